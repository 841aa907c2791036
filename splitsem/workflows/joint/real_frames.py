"""mode=real: both ends' tables, what frames take beyond the tables, and what networks take on the wire."""

import json
import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.cost.fits import FrameFit, TimedFrames, fit_frames
from splitsem.cost.hardware_lut import HardwareLut, hardware_lut_json
from splitsem.errors import ConfigError
from splitsem.json_files import write_text
from splitsem.models.branches import whole_gamma
from splitsem.models.repvgg import HyperRepVgg
from splitsem.placement import Placement
from splitsem.search.problem import Problem
from splitsem.workflows.joint import tiers
from splitsem.workflows.joint.base import Document, Store, t_eff_s
from splitsem.workflows.joint.real import FrameJob, RealPair

log = logging.getLogger(__name__)
_CODE = (
    "splitsem.workflows.joint.real",
    "splitsem.workflows.offload",
    "splitsem.workflows.serve",
    "splitsem.remote.grpc.transport",
)
_MOST_SIZES = 6
_MOST_SAMPLES = 200
_NUM_PACED = 1000
_TIMES = ("measured_latency_s", "measured_throughput_hz", "paced_edge_s", "paced_server_s")
_KEPT = (*_TIMES, "score")


class RealRun(NamedTuple):
    """The parts of a joint run that frames over a real link need.

    Attributes:
        cfg: the configuration.
        model: name of the model.
        untrained: the network, untrained, since no time depends on weights.
        placement: where torch runs here.
        store: keeps the results.
        pair: the processes at both ends.
    """

    cfg: DictConfig
    model: str
    untrained: HyperRepVgg
    placement: Placement
    store: Store
    pair: RealPair

    @property
    def settings(self) -> DictConfig:
        """Settings of the workflow."""
        settings: DictConfig = self.cfg.workflow
        return settings


def hardware(run: RealRun, train: Callable[[], object]) -> HardwareLut:
    """Both ends by their own measurements, and what frames of the reference networks took between the ends.

    The domains of a sweep share these results, since no time depends on weights or data. ``train`` is called before the
    processes ask for trained weights.
    """
    lut = replace(_tables(run), answer=tiers.answer_way(run.cfg, instantiate(run.cfg.task), None))
    facts = _facts(run) | {"tables": tiers.digest(hardware_lut_json(lut)), "model": run.model}
    found = run.store.get("frames", facts, lambda: {"networks": _references(run, lut, train)}, _CODE)
    fit = fit_frames(_timed(run.settings, lut, found["networks"]))
    log.info(
        "Frames: edge %.2f ms, server %.2f ms beside their units (table × %.2f and × %.2f), delay %.2f ms, "
        "%.1f Mbit/s; errors left: latency %.1f %%, cycle %.1f %%",
        *(1e3 * fit.edge_base_s, 1e3 * fit.server_base_s, fit.edge_factor, fit.server_factor, 1e3 * fit.delay_s),
        *(8e-6 / max(fit.s_per_byte, 1e-12), 100 * fit.latency_error, 100 * fit.cycle_error),
    )
    return replace(lut, link=fit.line(), frames=fit)


def _tables(run: RealRun) -> HardwareLut:
    """Each end's table: a given file, or what a process at the end measures; an edge without prefix is this machine."""
    cfg = run.cfg.copy()
    for end in ("edge", "server"):
        given = cfg.workflow[f"{end}_lut"]
        if given or (end == "edge" and not run.pair.prefixes["edge"]):
            continue
        names = ("meter", "rates_s", f"{end}_prefix")
        facts = {name: _plain(run)[name] for name in names} | {"end": end, "model": run.model}
        facts |= {name: OmegaConf.to_container(run.cfg[name], resolve=True) for name in ("model", "device")}
        facts["shapes"] = [unit.input_shape for unit in run.untrained.facts()]
        code = tiers.code(run.cfg, run.untrained)
        table = run.store.get("table", facts, lambda end=end: run.pair.table(end), code)  # type: ignore[misc]
        path = Path(run.pair.folder) / f"{end}.json"
        write_text(json.dumps(table), path)
        cfg.workflow[f"{end}_lut"] = str(path)
    server = cfg.workflow.server_lut
    return tiers.hardware_of_both(cfg, run.model, run.untrained, run.placement, server, edge_slowdown=1.0)


def _references(run: RealRun, lut: HardwareLut, train: Callable[[], object]) -> list[Document]:
    """Frames, run in turns, of all branches folded at cuts of up to six sizes, and in parallel at both ends.

    At ``input`` the server is likely to be the slowest stage, at the last cut the edge, at the largest size the line.
    Where the edge needs the answer, nothing crosses at ``output``, and there are no frames to run.
    """
    train()
    units, sizes = lut.edge.units, lut.link_bytes
    _, cuts = np.unique(sizes[: np.flatnonzero(sizes)[-1] + 1], return_index=True)
    cuts = cuts[np.unique(np.linspace(0, len(cuts) - 1, _MOST_SIZES).round().astype(int))]
    ends = [0, int(np.flatnonzero(sizes)[-1])]
    asked = {True: sorted({*map(int, cuts), *ends}), False: sorted({*ends, len(units) // 2})}
    networks: list[Document] = [
        {"gammas": [whole_gamma(unit.ways, folded=is_folded) for unit in units], "cuts": split_indices}
        for is_folded, split_indices in asked.items()
    ]
    log.info("Frames of all branches, folded at %d cuts and in parallel at %d", *map(len, asked.values()))
    turns = _in_turns(run, networks, _few_samples(run))
    return [network | {"runs": runs} for network, runs in zip(networks, turns, strict=True)]


def _timed(settings: DictConfig, lut: HardwareLut, networks: Sequence[Document]) -> list[TimedFrames]:
    """What the tables say of ``networks`` at their cuts, and what was measured."""
    edge, server = (table.to_arrays(settings.calibrated, settings.undisturbed) for table in (lut.edge, lut.server))
    rows, frames = np.arange(len(lut.edge.units)), []
    for network in networks:
        edge_s, server_s = (table.time_s[rows, network["gammas"]] for table in (edge, server))
        for cut, jobs in zip(network["cuts"], network["runs"], strict=True):
            found = _typical(settings, jobs)
            frames.append(
                TimedFrames(
                    edge_s=float(edge_s[:cut].sum()),
                    server_s=float(server_s[cut:].sum()),
                    payload_bytes=float(lut.link_bytes[cut]),
                    latency_s=found["measured_latency_s"],
                    cycle_s=1 / found["measured_throughput_hz"],
                )
            )
    return frames


def measured(
    run: RealRun, best: Document, solutions: Document, problem: Problem, network: Document, frames: FrameFit | None
) -> Document:
    """Metrics ``measured_*`` of the chosen network and of both baselines, and errors of the predictions.

    Each value is typical of ``workflow.num_repeats`` turns, see ``_typical``. A baseline runs at its cut of least T_eff
    and at its cut of least cycle; the better throughput counts.

    Args:
        run: the ends.
        best: the chosen solution.
        solutions: solutions of the step ``throughput``.
        problem: the problem that the solver saw.
        network: what determines the network that is deployed.
        frames: the fit of what frames take beyond the tables, if there is one.
    """
    compared = {"": best, "baseline_": solutions["all_parallel"], "fused_": solutions["all_fused"]}
    cuts = {label: [found["lambda"]] for label, found in compared.items()}
    for label in ("baseline_", "fused_"):
        other = _fastest_cut(problem, compared[label]["gammas"])
        cuts[label] += [other] if other not in cuts[label] else []
    networks = {label: {"gammas": found["gammas"], "cuts": cuts[label]} for label, found in compared.items()}
    facts = _facts(run) | network | {"networks": networks}
    found = run.store.get("measured", facts, lambda: {"runs": _runs(run, networks)}, _CODE)
    metrics = wire_metrics(run.settings, compared, cuts, found["runs"])
    return metrics | ({} if frames is None else _fit_metrics(frames))


def _runs(run: RealRun, networks: dict[str, Document]) -> Document:
    runs = _in_turns(run, list(networks.values()), run.settings.num_samples)
    return dict(zip(networks, runs, strict=True))


def _in_turns(run: RealRun, networks: Sequence[Document], num_samples: int | None) -> list[list[list[Document]]]:
    """Jobs by network, cut and turn; turns make a machine's slow minutes hit all networks alike."""
    asked = [
        FrameJob(network, cut, num_samples if turn == 0 else _few_samples(run))  # the first turn scores
        for turn in range(run.settings.num_repeats)
        for network, one in enumerate(networks)
        for cut in one["cuts"]
    ]
    jobs = run.pair.offload([one["gammas"] for one in networks], asked, _NUM_PACED)
    runs: list[list[list[Document]]] = [[[] for _ in one["cuts"]] for one in networks]
    for job, found in zip(asked, jobs, strict=True):
        place = networks[job.network]["cuts"].index(job.cut)
        runs[job.network][place].append({name: found[name] for name in _KEPT})
    return runs


def wire_metrics(
    settings: DictConfig,
    solutions: dict[str, Document],
    cuts: dict[str, list[int]],
    runs: dict[str, list[list[Document]]],
) -> Document:
    """The metrics that sum up the turns.

    Args:
        settings: settings of the workflow.
        solutions: the predicted solutions, by prefix of their metrics: ``""`` is the choice, the others are baselines.
        cuts: the cuts at which each solution was run; the first is the predicted cut.
        runs: metrics of each solution's jobs, by cut and turn.
    """
    found: Document = {}
    for label, solution in solutions.items():
        at_cuts = [_typical(settings, jobs) for jobs in runs[label]]
        rates_hz, own = [one["measured_throughput_hz"] for one in at_cuts], at_cuts[0]
        latency_s = own["measured_latency_s"]
        took_s = t_eff_s({"latency_s": latency_s, "cycle_s": 1 / rates_hz[0]})
        found |= {
            f"measured_{label}latency_s": latency_s,
            f"measured_{label}throughput_hz": max(rates_hz),
            f"measured_{label}t_eff_s": took_s,
            f"{label}t_eff_prediction_error": abs(t_eff_s(solution) - took_s) / took_s,
            f"{label}latency_prediction_error": abs(solution["latency_s"] - latency_s) / latency_s,
            f"{label}cycle_prediction_error": abs(solution["cycle_s"] * rates_hz[0] - 1),
            f"wire_{label}accuracy": runs[label][0][0]["score"],
        }
        if label:
            found[f"measured_{label}lambda"] = cuts[label][int(np.argmax(rates_hz))]
        found |= {f"{label}{name}": own[name] for name in ("paced_edge_s", "paced_server_s")}
    of_baseline = t_eff_s(solutions[""]) / t_eff_s(solutions["baseline_"])
    measured_of_baseline = found["measured_t_eff_s"] / found["measured_baseline_t_eff_s"]
    found["relative_t_eff_prediction_error"] = abs(of_baseline / measured_of_baseline - 1)
    own_hz = found["measured_throughput_hz"]
    for label in ("baseline", "fused"):
        found[f"measured_gain_over_{label}"] = own_hz / found[f"measured_{label}_throughput_hz"] - 1
    return found


def _typical(settings: DictConfig, jobs: Sequence[Document]) -> Document:
    """Medians over one cut's turns, or, with ``undisturbed``, the least times and the highest throughput."""
    found = {}
    for name in _TIMES:
        best = max if name.endswith("_hz") else min
        values = [float(job[name]) for job in jobs]
        found[name] = best(values) if settings.undisturbed else statistics.median(values)
    return found


def _few_samples(run: RealRun) -> int:
    """Number of samples for a job whose score is of no interest."""
    return min(run.settings.num_samples or _MOST_SAMPLES, _MOST_SAMPLES)


def _fastest_cut(problem: Problem, gammas: Sequence[int]) -> int:
    """The cut at which the slowest stage of a network with these γ takes least."""
    able = []
    for cut in range(problem.num_units + 1):
        try:
            able.append((problem.times(cut, tuple(gammas)).cycle_s, cut))
        except ValueError:  # a unit has no time on that side
            continue
    if not able:
        raise ConfigError("no cut has every unit where it can run")
    return min(able)[1]


def _fit_metrics(frames: FrameFit) -> Document:
    return {f"frames_{name}": value for name, value in asdict(frames).items()}


def _plain(run: RealRun) -> Document:
    settings = OmegaConf.to_container(run.settings, resolve=True)
    assert isinstance(settings, dict)
    return {str(name): value for name, value in settings.items()}


def _facts(run: RealRun) -> Document:
    names = ("edge_prefix", "server_prefix", "num_timed", "num_repeats", "num_samples")
    settings = _plain(run)
    transport = OmegaConf.to_container(run.cfg.transport, resolve=True)
    return {name: settings[name] for name in names} | {"transport": transport}
