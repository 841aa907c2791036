"""The end of a sweep: gathers its jobs into results.csv and hands them to the summary that their workflow brings.

A workflow names its summary in its configuration, ``workflow.summary``: a function that takes a ``Sweep``, writes
figures and a page into the sweep's folder, and prints a table.
"""

import json
import platform
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from hydra.utils import get_method
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from splitsem import json_files, redaction
from splitsem.files import write_csv
from splitsem.report import table_files
from splitsem.report.terminal import Screen, plain, terminal
from splitsem.report.time_intervals import with_intervals
from splitsem.report.units import setting_in_words
from splitsem.workflows import digests, folders, readme_file
from splitsem.workflows.tracking import versions

_MOST_PICTURED_JOBS = 12  # further ones' figures would hide the sweep's own
_UNTOLD = "its disk had no room for what went wrong"
_NOT_TOLD = (*digests.NO_RESULT, "cache_dir=", "hydra")


class Origin(NamedTuple):
    """What a report says of how its results came to be."""

    title: str
    command: str
    details: dict[str, str]


class Sweep(NamedTuple):
    """A sweep that is over, as summaries take it.

    Attributes:
        folder: the sweep's; a job's folder is its number.
        results: a row a job, then a row for each reference; see ``gather``.
        origin: for the head of a page.
        console: prints on the terminal.
    """

    folder: Path
    results: pd.DataFrame
    origin: Origin
    console: Console

    @property
    def done(self) -> pd.DataFrame:
        """The rows of jobs that succeeded, and of references."""
        return self.results[self.results["status"] == "ok"]

    def setting(self, name: str) -> Any:
        """A setting of the first job, None where it has none: for what all jobs of a sweep share."""
        return OmegaConf.select(OmegaConf.load(folders.jobs(self.folder)[0] / ".hydra" / "config.yaml"), name)

    def print_list(self) -> None:
        """Say where the results are: all there is to say of jobs that have nothing to compare."""
        path = self.folder / "results.csv"
        self.console.print(f"{len(self.results)} jobs: {plain(path)}", highlight=False, soft_wrap=True)

    def print_table(self, table: Table, name: str = "table") -> None:
        """Print a table, and leave it as LaTeX and as Markdown."""
        self.console.print(table)
        table_files.write(table, self.folder / name)

    def write_best(self, best: Mapping[str, float | str]) -> None:
        """Leave what the sweep found best, for the list of runs: numbers, and names of winners."""
        json_files.write_text(json.dumps(json_files.finite(dict(best)), indent=2) + "\n", self.folder / folders.BEST)

    def write_page(self, text: str) -> None:
        """Leave ``report.html`` and say where it is."""
        page = self.folder / "report.html"
        json_files.write_text(text, page)
        self.console.print(f"\n{plain(page.absolute())}", highlight=False, soft_wrap=True)

    def pictures(
        self, whole: Sequence[str], jobs: Mapping[str, int], names: Sequence[str]
    ) -> dict[tuple[str, str], bytes]:
        """PNG files by label (empty for the whole sweep's) and name.

        Args:
            whole: names of the sweep's own figures.
            jobs: number of each job, by label.
            names: of figures of jobs, which are left out where there are many jobs.
        """
        files = {("", name): self.folder / f"{name}.png" for name in whole}
        if len(jobs) <= _MOST_PICTURED_JOBS:
            files |= {
                (label, name): self.folder / f"{job:.0f}" / f"{name}.png"
                for label, job in jobs.items()
                for name in names
            }
        return {key: path.read_bytes() for key, path in files.items() if path.exists()}


def summarise(
    folder: Path,
    seconds: float | None = None,
    details: Mapping[str, str] | None = None,
    title: str = "",
    screen: Screen | None = None,
) -> pd.DataFrame:
    """Write ``results.csv``, have the jobs' workflow summarise them, and return the results.

    Args:
        folder: the sweep's.
        seconds: how long the sweep took; None where no job ran.
        details: what else the page says of how its results came to be.
        title: the page's; empty takes the settings that the sweep was asked for.
        screen: what is printed for; None: this process's own.
    """
    results = with_intervals(gather(folder))
    console = terminal(screen)
    if results.empty:
        console.print(f"No job was started: {plain(folder)}", highlight=False, soft_wrap=True)
        return results
    write_csv(results, folder / "results.csv")
    found = _details(results, seconds, details or {})
    origin = Origin(title or title_of(folder), readme_file.command_of(folder), found)
    sweep = Sweep(folder, results, origin, console)
    if (name := sweep.setting("workflow.summary")) is None:
        sweep.print_list()
    else:
        get_method(name)(sweep)
    (folder / folders.README).unlink(missing_ok=True)  # of the sweep before it went on
    readme_file.write(folder, console.export_text())
    return results


def gather(folder: Path) -> pd.DataFrame:
    """A row a job (its overrides and metrics, or its error), then a row for each reference.

    Where jobs are links to those of kept sweeps, ``sweep`` says whose.
    """
    rows = []
    for job in folders.jobs(folder):
        row: dict[str, object] = {"job": int(job.name), **_overrides(job)}
        if job.is_symlink():
            row["sweep"] = sweep_of(job.resolve().parent)
        if (metrics := folders.metrics(job)) is not None:
            row |= {"status": "ok"} | metrics
        elif (job / folders.ERROR).exists():
            row |= {"status": "failed", "error": (job / folders.ERROR).read_text().strip() or _UNTOLD}
        else:
            row |= {"status": "unfinished", "error": "stopped before it ended"}
        rows.append(row)
    for path in sorted(folder.glob("references/*.json")):
        rows.append({"status": "ok", **json.loads(path.read_text())})
    return pd.DataFrame(rows)


def sweep_of(folder: Path) -> str:
    """What a joined table calls a sweep: the last two parts of its folder, ``2026-11-29/11-18-37-split``."""
    return "/".join(folder.resolve().parts[-2:])


def title_of(folder: Path) -> str:
    """A sweep's settings in words, ``digits · quant2, quant8``; without where results go."""
    asked = [one for one in folders.asked(folder) if not one.lstrip("+~").startswith(_NOT_TOLD)]
    pairs = (one.lstrip("+~").partition("=") for one in asked)
    words = (setting_in_words(name, re.sub(r",\s*", ", ", value)) for name, _, value in pairs)
    return redaction.text(" · ".join(words)) or "sweep"


def _details(results: pd.DataFrame, seconds: float | None, more: Mapping[str, str]) -> dict[str, str]:
    took = f"{seconds:.0f} s for {len(results)} rows" if seconds is not None else "drawn again, no job ran"
    return {
        **more,
        "finished": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "duration": took,
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "machine": platform.platform(),
    }


def _overrides(folder: Path) -> dict[str, str]:
    """The overrides that a job ran under, by key."""
    if not (path := folder / ".hydra" / "overrides.yaml").exists():
        return {}  # its disk was full
    lines = [str(line) for line in OmegaConf.load(path)]
    pairs = (line.lstrip("+~").partition("=") for line in lines)
    return {key: value for key, _, value in pairs}
