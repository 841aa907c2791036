"""The terminal: its console, the style of all our tables, and the table of split points; needs no pandas."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from splitsem.report.units import MISSING, format_number, format_ratio

if TYPE_CHECKING:
    from splitsem.splitting.point import SplitPoint, TensorSpec

WIDTH = 100


def terminal() -> Console:
    """The console that prints tables: a terminal has its own width, a file or a pipe the tables' width."""
    return Console(width=None if sys.stdout.isatty() else WIDTH)


def grid_of(title: str) -> Table:
    """An empty table in the style of all our tables, no wider than a terminal."""
    return Table(
        title=plain(title),
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        width=WIDTH,
        pad_edge=False,
    )


def plain(text: object) -> str:
    """The text with its square brackets escaped, so that they are not markup."""
    return str(text).replace("[", r"\[")


def points_table(points: Sequence["SplitPoint"], input_bytes: int) -> Table:
    """A model's split points: the crossing tensors at each, and what either side computes and keeps.

    Args:
        points: in network order.
        input_bytes: size of one sample as uint8 or in its file format, for comparison with the raw size.
    """
    grid = grid_of(f"{len(points)} split points; the sample itself has {format_number(input_bytes / 1e3)} kB")
    grid.add_column("λ", justify="right", no_wrap=True)
    grid.add_column("split point", overflow="fold", min_width=10)
    grid.add_column("crossing tensors", overflow="fold", min_width=12)
    has_hooks = any(point.hook_bytes != point.raw_bytes for point in points)
    for header in (
        "raw\nkB",
        *["hooks\nkB"] * has_hooks,
        "raw /\ninput",
        "head\nMFLOP",
        "tail\nMFLOP",
        "head\nkB",
        "tail\nkB",
    ):
        grid.add_column(header, justify="right", no_wrap=True)
    grid.add_column("", no_wrap=True)
    for point in points:
        grid.add_row(
            str(point.index),
            plain(point.name),
            _shapes(point.tensors, batched=point.is_batched),
            format_number(point.raw_bytes / 1e3),
            *[format_number(point.hook_bytes / 1e3) if point.hook_bytes != point.raw_bytes else ""] * has_hooks,
            format_ratio(point.raw_bytes / input_bytes) if input_bytes else MISSING,
            format_number(point.head_flops / 1e6),
            format_number(point.tail_flops / 1e6),
            format_number(point.head_param_bytes / 1e3),
            format_number(point.tail_param_bytes / 1e3),
            "▼" if point.is_bottleneck else "",
            style="bold" if point.is_bottleneck else "",
        )
    grid.caption = (
        "▼ bottleneck: less crosses than at the input, both as float32 · raw / input: to the sample as it is\n"
        "head, tail kB: parameters and buffers that each side needs"
    )
    if has_hooks:
        grid.caption += "\nhooks kB: what a splitter by module hooks would send there, where it is not what crosses"
    return grid


def _shapes(tensors: "Sequence[TensorSpec]", *, batched: bool) -> str:
    """Shapes as ``2: 16×32×32, 32×16×16``; the count is given only for several tensors."""
    shapes = ["×".join(map(str, t.shape[1:] if batched else t.shape)) or "1" for t in tensors]
    return f"{len(shapes)}: {', '.join(shapes)}" if len(shapes) > 1 else "".join(shapes)
