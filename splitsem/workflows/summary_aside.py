"""The end of a sweep in the process aside, which has imported by then what draws: the process of the jobs need not."""

import contextlib
import io
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from splitsem import extras
from splitsem.report import figure_choice
from splitsem.report.terminal import Screen


class Summed(NamedTuple):
    """What a summary leaves beside its files.

    Attributes:
        text: what it printed.
        statuses: of the rows of ``results.csv``; none where no job was started.
    """

    text: str
    statuses: set[str]


def get_ready(name: str | None) -> None:
    """Import what a summary needs, while jobs compute.

    Args:
        name: the summary's function, with its module.
    """
    if name and extras.has("plots"):
        import_module(name.rpartition(".")[0])


def summarise(folder: Path, seconds: float, plots: dict[str, Any], screen: Screen) -> Summed:
    """``summary.summarise`` for another process.

    Args:
        folder: the sweep's.
        seconds: how long it took.
        plots: see ``figure_choice.using``.
        screen: of the other process.
    """
    from splitsem.workflows import summary

    with contextlib.redirect_stdout(io.StringIO()) as printed, figure_choice.using(**plots):
        results = summary.summarise(folder, seconds, screen=screen)
    return Summed(printed.getvalue(), set(results["status"]) if len(results) else set())
