"""The chart of how far each assumption may be off until another configuration is better than the winner."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from splitsem.report import legends, style
from splitsem.report.sensitivity import KNOBS, MOST, Knob, Sensitivity, format_factor

_WHOLE, _LIMITED, _CORNER = "#cfe3f1", "#0072b2", "#d55e00"
_MEANINGS = {
    _LIMITED: "a rival takes over at an end: it is better by more than 2 %",
    _WHOLE: "no rival takes over",
    _CORNER: "all six off at a time, until a rival takes over",
}
_LONGEST = 34  # letters of a name beside a bar
_GAP_PT = 12.0  # beside it


def sensitivity_figure(answers: Sequence[Sensitivity], described: str) -> Figure:
    """One panel a goal, one bar a knob: the factors by which it may be off; the tick at 1 is what was assumed.

    Beside a bar stands the value where it ends, and what takes over there. The last bar is for all knobs at a time.

    Args:
        answers: what ``sensitivity`` found.
        described: for the header.
    """
    num_rows = len(KNOBS) + 1
    figure = style.new_figure(
        8.4,
        0.4 + (0.65 + 0.23 * num_rows) * max(len(answers), 1),
        "How sure the winners are",
        described,
        num_side_by_side=2,  # a bar, and the names at either end of it
        kept="height",
    )
    figure.data = pd.DataFrame([row for answer in answers for row in _told(answer)])
    axes = figure.subplots(max(len(answers), 1), 1, sharex=True, squeeze=False)[:, 0]
    for ax, answer in zip(axes, answers, strict=False):
        style.style_axes(ax, "", "", grid="x")
        _draw(ax, answer)
    if not answers:
        style.style_axes(axes[0], "", "")
        style.empty(axes[0], "no winner whose times are known in parts")
        return figure
    axes[-1].set_xlabel("Factor of what was assumed, each alone", size=9.5, color=style.INK, labelpad=6)
    legends.below(figure, [Patch(color=colour, label=label) for colour, label in _MEANINGS.items()])
    _make_room(figure, axes)
    return figure


def _make_room(figure: Figure, axes: NDArray[np.object_]) -> None:
    """Let the axis that all panels share reach so far that what stands beside the bars is inside."""
    FigureCanvasAgg(figure)
    style.fit(figure)
    figure.draw_without_rendering()  # runs the layout, so that widths mean something
    texts = [text for ax in axes for text in ax.texts if isinstance(text, Annotation)]
    ends = np.log10([1 / MOST, MOST, *(text.xy[0] for text in texts)])
    gap = _GAP_PT * figure.dpi / 72
    outer = np.array([gap, gap, *(text.get_window_extent().width + gap for text in texts)])
    sides = np.array([-1, 1, *(-1 if text.get_horizontalalignment() == "right" else 1 for text in texts)])
    width = axes[0].get_window_extent().width
    for decades in np.geomspace(np.ptp(ends), 20 * np.ptp(ends), 200):
        reached = ends + sides * outer * decades / width
        if np.ptp(reached) <= decades:
            break
    spare = (decades - np.ptp(reached)) / 2
    axes[0].set_xlim(*(10 ** np.array([reached.min() - spare, reached.max() + spare])))


def _told(answer: Sensitivity) -> list[dict[str, object]]:
    """The numbers of one panel, a row a bar."""
    goal = {"goal": answer.goal.title, "winner": answer.name}
    rows: list[dict[str, object]] = [
        goal | {"knob": knob.title, "from": r.low, "to": r.high, "below": r.below, "above": r.above}
        for knob, r in zip(KNOBS, answer.reaches, strict=True)
    ]
    corner = {"from": 1 / answer.corner, "to": answer.corner, "above": answer.corner_rival}
    return [*rows, goal | {"knob": "all at a time"} | corner]


def _draw(ax: Axes, answer: Sensitivity) -> None:
    rows = [*zip(KNOBS, answer.reaches, strict=True)]
    for y, (knob, reach) in enumerate(rows):
        is_whole = not (reach.below or reach.above)
        ax.barh(
            y, reach.high - reach.low, left=reach.low, height=0.62, color=_WHOLE if is_whole else _LIMITED, linewidth=0
        )
        for factor, rival, side in ((reach.low, reach.below, -1), (reach.high, reach.above, 1)):
            if rival:
                _annotate(ax, y, factor, _end(knob, answer, factor, rival), side)
    y = len(rows)
    low, high = 1 / answer.corner, answer.corner
    ax.barh(y, high - low, left=low, height=0.62, color=_CORNER if answer.corner_rival else _WHOLE, linewidth=0)
    if answer.corner_rival:
        _annotate(ax, y, high, f"{format_factor(high)}: {_short(answer.corner_rival)}", 1)
    ax.axvline(1.0, color=style.INK, linewidth=1.1, zorder=3, gid="now")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator([0.01, 0.1, 1.0, 10.0, 100.0]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    labels = [_label(knob, answer) for knob, _ in rows]
    ax.set_yticks(range(len(labels) + 1), [*labels, "all six, worst way"])
    ax.set_ylim(len(labels) + 0.6, -0.6)
    title = f"{answer.goal.title}: {answer.name}" + ("" if answer.num_rivals else ", without a rival")
    ax.set_title(
        textwrap.fill(title, int(9.5 * style.width_of(ax))), size=9.5, weight="bold", color=style.INK, loc="left"
    )


def _label(knob: Knob, answer: Sensitivity) -> str:
    now = knob.value(answer.row, 1.0)
    return knob.title if now.endswith("×") else f"{knob.title} ({now})"


def _end(knob: Knob, answer: Sensitivity, factor: float, rival: str) -> str:
    return f"{knob.value(answer.row, factor)}: {_short(rival)}"


def _short(name: str) -> str:
    """A name that says how it begins and ends: the names of rivals may begin alike."""
    half = _LONGEST // 2
    return name if len(name) <= _LONGEST else f"{name[: half - 1].rstrip(' ·')}…{name[-half:].lstrip(' ·')}"


def _annotate(ax: Axes, y: int, factor: float, text: str, side: int) -> None:
    """Write ``text`` beside the end of a bar, on the outer side."""
    ax.annotate(
        text,
        (factor, y),
        (4 * side, 0),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        va="center",
        size=8,
        color=style.INK,
        zorder=4,
    )
