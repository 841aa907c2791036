"""The end of a sweep: gather its jobs into results.csv, plots, report.html and the table on the terminal."""

import json
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from omegaconf import OmegaConf

from splitsem.report.best import best
from splitsem.report.codec_figures import score_channel
from splitsem.report.federated_figures import federated_report
from splitsem.report.joint_report import joint_report
from splitsem.report.run_figures import latency_breakdown
from splitsem.report.score_plots import accuracy_throughput, rate_accuracy
from splitsem.report.sweep_report import report
from splitsem.report.tables import table as results_table
from splitsem.report.tables import terminal
from splitsem.workflows.federated.summary import is_federated, summarise_federated
from splitsem.workflows.joint.summary import is_joint, summarise_joint
from splitsem.workflows.learned_codec import codec_figures, print_codecs
from splitsem.workflows.tracking import versions

_JOINT_PICTURES = ("accuracy_throughput", "gamma_map")
_MOST_PICTURED_JOBS = 12  # further ones' figures would hide the sweep's own


class Origin(NamedTuple):
    """What a report says of how its results came to be."""

    title: str
    command: str
    details: dict[str, str]


def gather(folder: Path) -> pd.DataFrame:
    """A row a job (its overrides and metrics, or its error), then a row for each reference."""
    rows = []
    jobs = sorted(
        (p for p in folder.iterdir() if p.name.isdigit() and (p / ".hydra").is_dir()), key=lambda p: int(p.name)
    )
    for job in jobs:
        row: dict[str, object] = {"job": int(job.name), **_overrides(job)}
        if (job / "metrics.json").exists() and not (job / "error.txt").exists():
            row |= {"status": "ok"} | json.loads((job / "metrics.json").read_text())
        elif (job / "error.txt").exists():
            row |= {"status": "failed", "error": (job / "error.txt").read_text().strip()}
        else:
            row |= {"status": "unfinished", "error": "stopped before it ended"}
        rows.append(row)
    for path in sorted(folder.glob("references/*.json")):
        rows.append({"status": "ok", **json.loads(path.read_text())})
    return pd.DataFrame(rows)


def summarise(folder: Path, seconds: float) -> pd.DataFrame:
    """Write everything that a sweep leaves in ``folder``, print its table and findings, and return the results.

    Args:
        folder: the sweep's.
        seconds: how long the sweep took.
    """
    results = gather(folder)
    console = terminal()
    if results.empty:
        console.print(f"No job was started: {folder}", highlight=False, soft_wrap=True)
        return results
    results.to_csv(folder / "results.csv", index=False)
    page, origin = folder / "report.html", _origin(results, seconds)
    if is_joint(results):
        labels = summarise_joint(folder, results, console)["label"].astype(str).tolist()
        done = results[(results["status"] == "ok") & results["accuracy"].notna()]
        pictures = _pictures(folder, ("domains",), dict(zip(labels, done["job"], strict=True)), _JOINT_PICTURES)
        page.write_text(joint_report(results, labels, pictures, *origin))
        console.print(f"\n{page.absolute()}", highlight=False, soft_wrap=True)
        return results
    if "score" not in results:  # jobs of a workflow that does not split, or none that succeeded
        console.print(f"{len(results)} jobs: {folder / 'results.csv'}", highlight=False, soft_wrap=True)
        return results
    if is_federated(results):
        labels = summarise_federated(folder, results, console)
        done = results[results["status"] == "ok"]
        whole = ("score_by_update", "score_over_rounds")
        pictures = _pictures(folder, whole, dict(zip(labels, done["job"], strict=True)), ("score_by_round",))
        page.write_text(federated_report(results, labels, pictures, *origin))
        console.print(f"\n{page.absolute()}", highlight=False, soft_wrap=True)
        return results
    figures = {draw.__name__: draw(results) for draw in (accuracy_throughput, latency_breakdown, rate_accuracy)}
    if (over_channel := _over_channel(results)) is not None:
        figures["score_channel"] = score_channel(
            over_channel, "snr_db" if "snr_db" in over_channel else "ber", " ".join(sys.argv[1:])
        )
    figures |= codec_figures(folder, results)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
    page.write_text(report(results, figures, *origin))
    console.print(results_table(results))
    print_codecs(console, results)
    for answer in best(results):
        console.print(f"• {answer.sentence}", highlight=False)
    console.print(f"\n{page.absolute()}", highlight=False, soft_wrap=True)
    return results


def _origin(results: pd.DataFrame, seconds: float) -> Origin:
    details = {
        "finished": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "duration": f"{seconds:.0f} s for {len(results)} rows",
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "machine": platform.platform(),
    }
    return Origin(" ".join(sys.argv[1:]) or "sweep", shlex.join(["python", *sys.argv]), details)


def _pictures(
    folder: Path, whole: Sequence[str], jobs: Mapping[str, int], names: Sequence[str]
) -> dict[tuple[str, str], bytes]:
    """PNG files by label (empty for the whole sweep's) and name: ``whole``, and of a few jobs those of ``names``."""
    files = {("", name): folder / f"{name}.png" for name in whole}
    if len(jobs) <= _MOST_PICTURED_JOBS:
        files |= {(label, name): folder / f"{job:.0f}" / f"{name}.png" for label, job in jobs.items() for name in names}
    return {key: path.read_bytes() for key, path in files.items() if path.exists()}


def _over_channel(results: pd.DataFrame) -> pd.DataFrame | None:
    """The jobs of a sweep over a channel's settings, the codec column naming whatever else was swept; else None."""
    swept = [c for c in map(str, results) if "." in c and results[c].nunique() > 1]
    if "ber" not in results or not any(c.startswith("transport.channel.") for c in swept):
        return None
    others = [c for c in swept if not c.startswith("transport.channel.")]
    rows = results[results["ber"].notna()]
    labels = rows["codec"].astype(str)
    for column in others:
        labels += " · " + rows[column].fillna("").astype(str)
    return rows.assign(codec=labels)


def _overrides(folder: Path) -> dict[str, str]:
    """The overrides that a job ran under, by key."""
    lines = [str(line) for line in OmegaConf.load(folder / ".hydra" / "overrides.yaml")]
    pairs = (line.lstrip("+~").partition("=") for line in lines)
    return {key: value for key, _, value in pairs}
