"""One look for all figures: colours that colour-blind readers can tell apart, sizes, header, axes and legend.

Figures are made without pyplot and without rcParams, so they can be drawn in any thread or worker process.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from splitsem.plots.units import format_bytes, format_hz, format_seconds

DPI = 150
INK, MUTED, FAINT, GRID, PAPER = "#1b1f24", "#59636e", "#9aa4af", "#e6e9ed", "#ffffff"
# Okabe & Ito 2008 without the yellow, which is too light on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d")
MARKERS = ("o", "s", "^", "v", "P", "X", "h")
STAGES = {"edge_s": ("edge", "#0072b2"), "link_s": ("link", "#e69f00"), "server_s": ("server", "#009e73")}
REFERENCES = {"JPEG": ("D", "#8b1e3f"), "WebP": ("d", "#5b3a8c")}
FORMATS = {"s": format_seconds, "B": format_bytes, "Hz": format_hz}
_HEADER_IN = 0.62  # height of title and subtitle, in inches


def new_figure(width_in: float, height_in: float, title: str, subtitle: str) -> Figure:
    """An empty figure with a left-aligned header; the axes get the room below it."""
    lines = textwrap.wrap(subtitle, int(width_in * 15)) or [""]
    header_in = _HEADER_IN + 0.15 * (len(lines) - 1)
    height_in += header_in
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor=PAPER, layout="constrained")
    engine = figure.get_layout_engine()
    engine.set(w_pad=0.08, h_pad=0.06, wspace=0.03, rect=(0, 0, 1, 1 - header_in / height_in))  # type: ignore[union-attr, call-arg]
    left = 0.12 / width_in
    figure.text(left, 1 - 0.12 / height_in, title, size=12, weight="bold", color=INK, va="top")
    figure.text(left, 1 - 0.36 / height_in, "\n".join(lines), size=8.5, color=MUTED, va="top", linespacing=1.3)
    return figure


def style_axes(ax: Axes, xlabel: str, ylabel: str, grid: str = "both") -> None:
    """Light grid behind the data, no box, small quiet ticks."""
    ax.set_xlabel(xlabel, size=9.5, color=INK, labelpad=6)
    ax.set_ylabel(ylabel, size=9.5, color=INK, labelpad=6)
    ax.set_axisbelow(True)
    ax.grid(visible=True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    ax.tick_params(which="both", labelsize=8.5, labelcolor=INK, color=FAINT, length=0, pad=5)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(FAINT)


def unit_axis(ax: Axes, unit: str, values: Sequence[float], log: bool | None = None) -> None:
    """Scale the x axis in ``unit`` with SI prefixes; logarithmic when the values span more than a factor of ten."""
    positive = [float(v) for v in values if 0 < v < float("inf")]
    spread = max(positive) / min(positive) if positive else 1.0
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: FORMATS[unit](value)))
    if not positive or not (spread > 10 if log is None else log):
        ax.xaxis.set_major_locator(MaxNLocator(6))
        return
    ax.set_xscale("log")
    pad = max(spread**0.06, 1.25)
    ax.set_xlim(min(positive) / pad, max(positive) * pad)
    subs = (1.0,) if spread > 3e3 else (1.0, 3.0) if spread > 150 else (1.0, 2.0, 5.0)
    ax.xaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: FORMATS[unit](value)))  # set_xscale dropped it


def score_axis(ax: Axes, values: Sequence[float]) -> None:
    """Limits around the scores that never blow up differences of a tenth of a point."""
    low, high = min(values), max(values)
    room = max(0.12 * (high - low), 0.01)
    ax.set_ylim(low - room, high + room)
    ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))


def legend_outside(ax: Axes, handles: Sequence[Any], title: str | None = None) -> Legend:
    """The legend to the right of the axes, never over the data."""
    legend = ax.legend(
        handles=list(handles),
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0.0,
        frameon=False,
        fontsize=8.5,
        labelcolor=INK,
        title=title,
        title_fontproperties={"size": 8.5, "weight": "bold"},
        alignment="left",
        labelspacing=0.6,
        handletextpad=0.6,
    )
    return legend


def palette(count: int) -> list[Any]:
    """``count`` colours: the qualitative ones while they last, then an ordered colour-blind safe ramp."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    ramp = mpl.colormaps["viridis"]
    return [ramp(0.92 * i / (count - 1)) for i in range(count)]


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG."""
    figure.savefig(path, format="png", dpi=DPI)


def empty(ax: Axes, message: str = "no job of this sweep succeeded") -> None:
    """Say that there is nothing to draw."""
    ax.text(0.5, 0.5, message, transform=ax.transAxes, ha="center", va="center", size=11, color=MUTED)
    ax.set_xticks([])
    ax.set_yticks([])
