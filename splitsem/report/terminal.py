"""The terminal: its console, the style of all our tables, and the table of split points; needs no pandas."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table

from splitsem.report.units import MISSING, format_number, format_ratio

if TYPE_CHECKING:
    from splitsem.splitting.point import SplitPoint, TensorSpec

WIDTH = 100


class Screen(NamedTuple):
    """Where a process prints: another process that prints for it takes its width and its colours.

    Attributes:
        width: letters in a line; a terminal has its own, a file or a pipe the tables' width.
        is_terminal: colours are shown.
    """

    width: int
    is_terminal: bool

    @classmethod
    def here(cls) -> "Screen":
        """This process's own."""
        is_terminal = sys.stdout.isatty()
        return cls(Console().width if is_terminal else WIDTH, is_terminal)


def terminal(screen: Screen | None = None) -> Console:
    """The console that prints tables on standard output; it records what it prints, for ``export_text``.

    Args:
        screen: what is printed for; None: this process's own.
    """
    width, is_terminal = screen or Screen.here()
    return Console(width=width, force_terminal=is_terminal or None, record=True)


class Grid(Table):
    """A table that leaves whole columns out where the terminal is too narrow, and says which: no number is ever cut.

    Args:
        title: stands above it.
        least: the titles of columns that may be left out, in groups that go together, the first to go first.
        rest: the file that has all of them.
    """

    def __init__(self, title: str = "", least: Sequence[Sequence[str]] = (), rest: str = "") -> None:
        super().__init__(
            title=plain(title) or None,
            title_justify="left",
            caption_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            width=WIDTH,
            pad_edge=False,
        )
        self.least, self.rest = least, rest

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See Table: of the columns that fit."""
        options = options.update_width(min(WIDTH, options.max_width))
        yield from Table.__rich_console__(self._fitted(console, options), console, options)

    def _fitted(self, console: Console, options: ConsoleOptions) -> "Grid":
        """This table without what does not fit, and with names that are broken between words only."""
        columns = [column for column in self.columns if not is_empty(column)]
        gone: list[Column] = []
        sizes = {
            column._index: self._measure_column(console, options.update_width(9 * WIDTH), column) for column in columns
        }
        least = {c._index: sizes[c._index].maximum if c.no_wrap else sizes[c._index].minimum for c in columns}
        for group in (*self.least, None):
            spare = options.max_width - sum(least[c._index] for c in columns) - (len(columns) + 1)  # between columns
            if spare >= 0 or group is None:
                break
            gone += [column for column in columns if _name(column) in group]
            columns = [column for column in columns if _name(column) not in group]
        shown = Grid()
        shown.title, shown.rows, shown.width, shown.caption = self.title, self.rows, options.max_width, self.caption
        for index, column in enumerate(columns):
            width = None
            if spare >= 0 and not column.no_wrap:
                extra = min(spare, sizes[column._index].maximum - least[column._index])
                padding = column is not columns[-1]  # the last one has none
                width, spare = least[column._index] + extra - padding, spare - extra
            shown.columns.append(replace(column, width=width, _index=index))
        if gone:
            titles = ", ".join(dict.fromkeys(_name(column) for column in self.columns if column in gone))
            left_out = f"{options.max_width} columns leave out {titles}" + (
                f"; {self.rest} has all" if self.rest else ""
            )
            shown.caption = f"{self.caption}\n{left_out}" if self.caption else left_out
        return shown


def is_empty(column: Column) -> bool:
    """Whether a column says nothing of any row."""
    cells = [str(cell).strip() for cell in column.cells]
    return bool(cells) and not set(cells) - {"", MISSING}


def _name(column: Column) -> str:
    """A column's title in one line."""
    return str(column.header).replace("/\n", "/ ").replace("\n", " ")


def grid_of(title: str, least: Sequence[Sequence[str]] = (), rest: str = "") -> Grid:
    """An empty table in the style of all our tables, no wider than a terminal; for the arguments see ``Grid``."""
    return Grid(title, least, rest)


def plain(text: object) -> str:
    """The text with its square brackets escaped, so that they are not markup."""
    return str(text).replace("[", r"\[")


def points_table(points: Sequence["SplitPoint"], input_bytes: int) -> Table:
    """A model's split points: the crossing tensors at each, and what either side computes and keeps.

    Args:
        points: in network order.
        input_bytes: size of one sample as uint8 or in its file format, for comparison with the raw size.
    """
    grid = grid_of(
        f"{len(points)} split points; the sample itself has {format_number(input_bytes / 1e3)} kB",
        least=(("hooks kB",), ("head kB", "tail kB"), ("raw / input",)),
        rest="points.csv",
    )
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
    told = [
        *["▼ bottleneck: fewer values cross than at the input, both as float32"] * any(p.is_bottleneck for p in points),
        *["raw / input: to the sample as it is"] * bool(input_bytes),
    ]
    needed = "head, tail kB: parameters and buffers that each side needs"
    grid.caption = "\n".join(filter(None, [" · ".join(told), needed]))
    if has_hooks:
        grid.caption += "\nhooks kB: what a splitter by module hooks would send there, where it is not what crosses"
    return grid


def _shapes(tensors: "Sequence[TensorSpec]", *, batched: bool) -> str:
    """Shapes as ``2: 16×32×32, 32×16×16``; the count is given only for several tensors."""
    shapes = ["×".join(map(str, t.shape[1:] if batched else t.shape)) or "1" for t in tensors]
    return f"{len(shapes)}: {', '.join(shapes)}" if len(shapes) > 1 else "".join(shapes)
