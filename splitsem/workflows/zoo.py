"""Workflow zoo: cut many networks at every offered point, compare each with itself unsplit, and tabulate their points.

Each network runs in a process of its own with a time limit: one that fails stops no other. ``results.csv`` gets a row
when a network is done, so that a run that was stopped goes on where it was.
"""

import csv
import logging
import multiprocessing
import time
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.json_files import write_text
from splitsem.report.terminal import terminal
from splitsem.workflows import zoo_list
from splitsem.workflows.result import Metrics, Result
from splitsem.workflows.zoo_list import Entry
from splitsem.workflows.zoo_network import FIELDS, Row, send_row

if TYPE_CHECKING:
    import pandas as pd

    from splitsem.placement import Placement

log = logging.getLogger(__name__)
_PRELOADED = ["hydra", "torch._dynamo", "torchvision", "timm"]  # imported once, not once a network


def run(cfg: DictConfig, folder: Path) -> Result:
    """Check the chosen networks; the table is printed by family and written for each network to ``results.csv``."""
    import pandas as pd

    from splitsem.report.zoo_report import bottlenecks, family_table

    path = Path(cfg.workflow.file) if cfg.workflow.file else zoo_list.COMMITTED
    entries = zoo_list.chosen(zoo_list.read(path), cfg.workflow.networks)
    results = folder / "results.csv"
    done = _done(results)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    placement = instantiate(cfg.device)
    for number, entry in enumerate(entries, 1):
        if entry.name not in done:
            row = _row(context, entry, placement, cfg.workflow.limit_s, folder / "networks.log")
            _append(results, row)
            log.info("%3d/%d  %s", number, len(entries), told(row))
    frame = pd.read_csv(results, keep_default_na=False, na_values={name: [""] for name in _NUMBERS})
    frame = frame[frame["network"].isin([entry.name for entry in entries])]
    terminal().print(family_table(frame))
    metrics = _metrics(frame)
    headline = (
        f"{metrics['num_exact']} of {metrics['num_networks']} networks are exact at all of their "
        f"{metrics['num_points']} points; each network's row: {results}"
    )
    return Result(metrics, {"bottlenecks": bottlenecks(frame)}, [], headline)


_NUMBERS = ("num_params", "num_points", "num_bottlenecks", "smallest_share", "first_flops_share", "cut_s", "cut_cpu_s",
            "check_s", "max_diff")  # fmt: skip


def told(row: Row) -> str:
    """A row as one line."""
    line = str(row["network"])
    if "num_points" in row:
        line += f": {row['num_points']} points, {row['num_bottlenecks']} bottlenecks, cut in {row['cut_s']} s"
    if "is_exact" in row:
        line += ", exact" if row["is_exact"] == "yes" else ", NOT exact"
    return f"{line}: {row['reason']}" if row.get("reason") else line


def _row(context: ForkServerContext, entry: Entry, placement: "Placement", limit_s: float, log_path: Path) -> Row:
    """What a process of its own finds out about a network, within the time limit."""
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=send_row, args=(entry, placement, send, log_path), name=entry.name)
    process.start()
    send.close()
    row: Row = {}
    try:
        with suppress(EOFError):
            row = receive.recv()  # its imports are not the network's
            until_s = time.monotonic() + limit_s
            while receive.poll(max(until_s - time.monotonic(), 0)):
                row = receive.recv()
            return {**row, "reason": f"not done within workflow.limit_s={limit_s:g} s"}
        process.join()
    finally:
        process.kill()
        process.join()
    if process.exitcode:
        why = f"by signal {-process.exitcode}, perhaps out of memory" if process.exitcode < 0 else "with an error"
        row = {"network": entry.name, **row, "reason": f"its process ended {why}; see {log_path.name}"}
    return row


def _append(path: Path, row: Row) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, restval="")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _done(path: Path) -> set[str]:
    """The networks that an interrupted run has rows of; a last line without an end is of no network."""
    if not path.exists():
        return set()
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text(whole, path)
    found = csv.DictReader(whole.splitlines())
    if found.fieldnames is not None and tuple(found.fieldnames) != FIELDS:
        raise ConfigError(f"{path} has other columns than this version writes: name another folder by hydra.run.dir=…")
    return {row["network"] for row in found}


def _metrics(frame: "pd.DataFrame") -> Metrics:
    is_cut = frame["num_points"] > 2
    return {
        "num_networks": len(frame),
        "num_cut": int(is_cut.sum()),
        "num_exact": int((frame["is_exact"] == "yes").sum()),
        "num_inexact": int((frame["is_exact"] == "no").sum()),
        "num_points": int(frame["num_points"].sum()),
        "num_with_bottleneck": int((frame["num_bottlenecks"] > 0).sum()),
        "cut_share": float(is_cut.mean()),
        "cut_s": float(frame["cut_s"].median()),
    }
