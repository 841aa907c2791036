"""Cuts and codecs side by side on the terminal: what was chosen, and what it is compared with."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from splitsem.plots.units import format_bytes, format_hz, format_score, format_seconds
from splitsem.workflows.joint.store import Document, t_eff_s

_WORDS, _NUMBERS = ("", "cut", "codec"), ("payload", "edge", "link", "server", "rate", "T_eff", "val")
_WIDTH = 160  # the most; a line is as wide as it needs


def side_by_side(solutions: Mapping[str, Document]) -> list[str]:
    """A line for each solution, by what it is called, under one of headings."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for header in _WORDS:
        grid.add_column(header, no_wrap=True)
    for header in _NUMBERS:
        grid.add_column(header, justify="right", no_wrap=True)
    for words, one in solutions.items():
        stages = (format_seconds(one[name]) for name in ("edge_s", "link_s", "server_s"))
        payload, rate = format_bytes(one["payload_bytes"]), format_hz(one["throughput_hz"])
        took, accuracy = format_seconds(t_eff_s(one)), format_score(one["accuracy_val"])
        codec = one["codec"].replace("[", r"\[")
        grid.add_row(words, one["split_point"], codec, payload, *stages, rate, took, accuracy)
    console = Console(width=_WIDTH, color_system=None)
    with console.capture() as printed:
        console.print(grid)
    return [line.rstrip() for line in printed.get().splitlines()]
