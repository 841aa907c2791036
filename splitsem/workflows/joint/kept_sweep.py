"""KeptSweep is ``workflow.against``: measured sweeps of cuts and codecs, at which the choice of a joint run is paid.

Regret is what the choice takes there, over what the best of the sweep takes that keeps the same constraint, less one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from splitsem.errors import ConfigError
from splitsem.intervals import ci95
from splitsem.report.units import format_joules, format_seconds
from splitsem.search.objective import Objective
from splitsem.workflows.codec_offers import Offer
from splitsem.workflows.joint.base import Document
from splitsem.workflows.result import Metrics

TABLE = "results.csv"
_NEEDED = ("split_point", "codec", "latency_s", "throughput_hz", "edge_s", "payload_bytes")
Pair = tuple[str, str]


class Paid(NamedTuple):
    """What a setting takes in the sweeps.

    Attributes:
        value: of the objective, a mean over sweeps.
        low: the lower end of its 95 % interval: over sweeps, else of the median over frames; None: one number is all.
        high: the upper end.
    """

    value: float
    low: float | None
    high: float | None


class KeptSweep:
    """The jobs of measured sweeps.

    Args:
        folders: each with its ``results.csv``; several of them are repetitions, which give intervals.
        offers: the codecs that may be chosen.

    Raises:
        ConfigError: there is no folder; or one has no results, not those of cuts, those of another network, or those of
            a sweep over something else, too.
    """

    def __init__(self, folders: str | Sequence[str], offers: Sequence[Offer]) -> None:
        self.folders = [folders] if isinstance(folders, str) else list(folders)
        if not self.folders:
            raise ConfigError("workflow.against=[] names no sweep: give the folder of one, or null")
        self.jobs = pd.concat([_read(Path(folder).expanduser()) for folder in self.folders], ignore_index=True)
        self.labels = [(offer.label, rows) for offer in offers if not (rows := _of(self.jobs, offer)).empty]

    def paid(self, objective: Objective) -> dict[Pair, Paid]:
        """What each cut with each codec takes there."""
        found = {}
        for label, rows in self.labels:
            for point, some in rows.groupby("split_point", sort=False):
                found[str(point), "" if point == "output" else label] = _paid(some, objective)
        return found

    def regret(
        self, best: Document, allowed: Sequence[Pair], words: Mapping[str, Pair], objective: Objective
    ) -> tuple[list[str], Metrics]:
        """Lines for people, and metrics.

        Args:
            best: what was chosen.
            allowed: cut and codec of what keeps the constraints.
            words: what the choice is compared with, by its name for people.
            objective: what was minimised.
        """
        paid, own = self.paid(objective), _pair(best["split_point"], best["codec"])
        where = ", ".join(self.folders)
        if own not in paid:
            more = "a sweep has split points only" if own[0].startswith("anywhere-") else "sweep it, too"
            return [f"regret unknown: {where} has no {_said(own)}; {more}"], {}
        among = {pair: paid[pair] for pair in (_pair(*one) for one in allowed) if pair in paid}
        least = min(among, key=lambda pair: among[pair].value, default=own)
        chosen, fair = paid[own], paid[least]
        regret = chosen.value / fair.value - 1 if fair.value else 0.0
        ends = None
        if own == least:
            ends = 0.0, 0.0
        elif chosen.low is not None and chosen.high is not None and fair.low and fair.high:
            ends = chosen.low / fair.high - 1, chosen.high / fair.low - 1
        interval = "one measurement each: no interval; give several sweeps" if ends is None else _interval(ends)
        tied = " (tied)" if ends is not None and own != least and ends[0] <= 0 <= ends[1] else ""
        lines = [
            f"regret {regret:.1%}{tied} against the best of {len(among)} measured settings that keep the constraint, "
            f"{_said(least)}: {_amount(chosen, objective)} against {_amount(fair, objective)} ({interval})"
        ]
        near = [pair for pair, one in among.items() if fair.high and one.low is not None and one.low <= fair.high]
        if others_near := [pair for pair in near if pair not in (own, least)]:
            lines.append(
                f"there {len(others_near)} more cannot be told apart from the best, such as {_said(others_near[0])}"
            )
        others = {name: paid[_pair(*pair)] for name, pair in words.items() if _pair(*pair) in paid}
        if others:
            told = (f"{name} {_amount(one, objective)}" for name, one in others.items())
            lines.append(f"measured there: {', '.join(told)}")
        metrics: Metrics = {"regret": regret, "swept_best": _said(least), "num_swept": len(among)}
        return lines, metrics | ({} if ends is None else {"regret_low": ends[0], "regret_high": ends[1]})


def _read(folder: Path) -> pd.DataFrame:
    if not (folder / TABLE).is_file():
        raise ConfigError(f"workflow.against={folder} has no {TABLE}: give the folder of a sweep of cuts (-m)")
    try:
        jobs = pd.read_csv(folder / TABLE)
    except (OSError, ValueError) as exc:  # pandas' own are ValueErrors
        raise ConfigError(f"workflow.against: {folder / TABLE} is no table of a sweep ({exc})".split("\n")[0]) from exc
    if lacking := [name for name in _NEEDED if name not in jobs]:
        raise ConfigError(
            f"workflow.against: {folder / TABLE} has no column {lacking[0]}: give a sweep of workflow=split or offload"
        )
    choices = HydraConfig.get().runtime.choices
    for name in ("task", "model"):
        known = set(jobs[name].dropna()) if name in jobs else set()
        if known and choices[name] not in known:
            raise ConfigError(f"workflow.against={folder} is a sweep of {name}={', '.join(known)}, not {choices[name]}")
    if "exit_share" in jobs and jobs["exit_share"].notna().any():
        raise ConfigError(f"workflow.against={folder} is a sweep with exit=confidence: give one with exit=none")
    jobs = jobs[jobs["latency_s"].notna()]
    _check_same_network(folder)
    _check_swept(folder, jobs)
    return jobs


def _check_same_network(folder: Path) -> None:
    """Raise ConfigError where a job's settings of the network, weights aside, are not those of this run."""
    own = _network(HydraConfig.get().overrides.task)
    for written in folder.glob("*/.hydra/overrides.yaml"):
        theirs = _network([str(one) for one in OmegaConf.load(written)])
        if other := sorted(own ^ theirs):
            raise ConfigError(f"workflow.against={folder} is a sweep of another network: {other[0]} is of one only")


def _network(overrides: Sequence[str]) -> set[str]:
    """The overrides that say what is computed."""
    found = (one.lstrip("+~") for one in overrides)
    return {one for one in found if one.startswith(("model.", "split.granularity=")) and "weights=" not in one}


def _check_swept(folder: Path, jobs: pd.DataFrame) -> None:
    """Raise ConfigError where jobs of the same cut and codec differ in a setting, so that no one of them can be told.

    Seeds are repetitions.
    """
    names = [str(name) for name in jobs]
    given = names[: names.index("status")] if "status" in names else ["task", "model", "transport"]
    fixed = ("job", "seed", "split.", "codec")
    for name in (name for name in given if name in jobs and not name.startswith(fixed)):
        if jobs[name].nunique() > 1:
            values = ", ".join(map(str, jobs[name].dropna().unique()))
            raise ConfigError(
                f"workflow.against={folder} is a sweep over {name} ({values}), too: give one of cuts and codecs alone"
            )


def _of(jobs: pd.DataFrame, offer: Offer) -> pd.DataFrame:
    """The jobs with this codec and these settings; at ``output`` none is at work."""
    rows = jobs["codec"] == offer.name
    columns = [str(name) for name in jobs if str(name).startswith("codec.")]
    for name in {*offer.given, *(column.removeprefix("codec.") for column in columns)}:
        value, column = offer.settings.get(name), f"codec.{name}"
        if column not in columns:
            return jobs[jobs["split_point"] == "output"]  # the sweep did not vary what the offer gives
        same = jobs[column].astype(str) == str(value)
        if isinstance(value, int | float):
            same = pd.to_numeric(jobs[column], errors="coerce") == value
        rows &= same if name in offer.given else same | jobs[column].isna()
    return jobs[rows | (jobs["split_point"] == "output")]


def _paid(rows: pd.DataFrame, objective: Objective) -> Paid:
    def column(name: str, end: str = "") -> pd.Series:
        measured = f"measured_{name.removesuffix('_s')}{end}_s" if end else f"measured_{name}"
        return rows[measured] if measured in rows else rows[name]

    def value(end: str) -> pd.Series:
        other = objective.cycle / column("throughput_hz") + objective.byte * rows["payload_bytes"]
        return objective.latency * column("latency_s", end) + objective.edge * column("edge_s", end) + other

    middle = value("")
    mean = float(middle.mean())
    if len(middle) > 1 and (half := ci95(list(middle))) is not None:
        return Paid(mean, max(0.0, mean - half), mean + half)
    if objective.cycle or "measured_latency_low_s" not in rows:
        return Paid(mean, None, None)  # frames tell no interval of a pace
    return Paid(mean, float(value("_low").iloc[0]), float(value("_high").iloc[0]))


def _pair(point: str, codec: str) -> Pair:
    return point, "" if point == "output" else codec


def _said(pair: Pair) -> str:
    return " ".join(part for part in pair if part)


def _interval(ends: tuple[float, float]) -> str:
    return f"95 %: {ends[0]:.1%} to {ends[1]:.1%}"


def _amount(paid: Paid, objective: Objective) -> str:
    return format_joules(paid.value) if objective.unit == "J" else format_seconds(paid.value)
