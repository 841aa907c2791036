"""The end of a sweep: gather its jobs into results.csv, plots, report.html and the table on the terminal."""

import json
import shlex
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from splitsem.plots.accuracy_throughput import accuracy_throughput
from splitsem.plots.latency_breakdown import latency_breakdown
from splitsem.plots.rate_accuracy import rate_accuracy
from splitsem.plots.report import report
from splitsem.plots.tables import results_table
from splitsem.sweep import overrides_of


def gather(folder: Path) -> pd.DataFrame:
    """A row a job (its overrides and metrics, or its error), then a row for each reference."""
    rows = []
    jobs = sorted((p for p in folder.iterdir() if p.name.isdigit() and (p / ".hydra").is_dir()), key=lambda p: int(p.name))
    for job in jobs:
        row: dict[str, object] = {"job": int(job.name), **overrides_of(job)}
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
    """Write everything that a sweep leaves in ``folder``, print the table, and return the results."""
    results = gather(folder)
    return results
