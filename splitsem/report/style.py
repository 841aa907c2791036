"""One look for all figures: colours that colour-blind readers can tell apart, header, axes, legend, point labels.

Figures are made without pyplot and without rcParams, so they can be drawn in any thread or worker process.
"""

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from splitsem.report.units import format_bytes, format_hz, format_seconds

DPI = 150
STAR = "#f2c200"
INK, MUTED, FAINT, GRID, PAPER = "#1b1f24", "#59636e", "#9aa4af", "#e6e9ed", "#ffffff"
# Okabe & Ito 2008 without the yellow, which is too light on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#4d4d4d")
MARKERS = ("o", "s", "^", "v", "P", "X", "h")
# A hue for each place, the lighter one for what is not its main work.
STAGES = {
    "head_s": ("head", "#0072b2"),
    "encode_s": ("encode", "#7cc4f0"),
    "link_busy_s": ("link, busy", "#e69f00"),
    "link_delay_s": ("link, delay", "#f6d99b"),
    "decode_s": ("decode", "#7fd6bd"),
    "tail_s": ("tail", "#009e73"),
    "answer": ("answer", "#b5559b"),
}
REFERENCES = {
    "JPEG": ("D", "#8b1e3f"),
    "WebP": ("d", "#5b3a8c"),
    "uint8": ("P", "#7a4b00"),
    "PNG": ("X", "#7a4b00"),
    "WebP lossless": ("p", "#5b3a8c"),
    "all on the edge": (">", "#1b1f24"),
    "sample as it is": ("P", "#7a4b00"),
}
FORMATS = {"s": format_seconds, "B": format_bytes, "Hz": format_hz}
_HEADER_IN = 0.62  # height of title and subtitle, in inches


def new_figure(width_in: float, height_in: float, title: str, subtitle: str) -> Figure:
    """An empty figure with a left-aligned header; the axes get the room below the header."""
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
    """Give the axes a light grid behind the data, no box, and small quiet ticks."""
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
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: FORMATS[unit](value)))  # set_xscale drops the formatter


def score_axis(ax: Axes, values: Sequence[float], needed: Sequence[float] = ()) -> None:
    """Set limits around the scores that never blow up differences of a tenth of a point.

    Args:
        ax: the axes.
        values: all scores, with the ends of their intervals.
        needed: the ones that must be seen apart. Values that lie deeper below the highest one than one and
            a half times the spread of these are left out; by default none is.
    """
    high = max(values)
    floor = high - 1.5 * max(high - min(needed), 0.01) if len(needed) else -np.inf
    seen = [value for value in values if value >= floor]
    low = min(seen)
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
    """``count`` colours: qualitative colours while they suffice, else an ordered colour-blind safe ramp."""
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


_RADII_PT = (7.0, 13.0, 22.0, 34.0, 48.0)
_ANGLES = np.deg2rad([90, 45, 135, 0, 180, -45, -135, -90, 67, 113, 22, 158, -22, -158, -67, -113])


def place_labels(
    ax: Axes,
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    avoid: Sequence[tuple[float, float]] = (),
    *,
    lines: Sequence[Line2D] = (),
    size: float = 8.0,
    color: str = INK,
) -> list[Annotation]:
    """Write each text near its point, at the free place that costs least; a thin line joins a far text to its point.

    Call it last: limits, scales and everything that takes room (legend, tick labels) must be final.

    Args:
        ax: the axes; its limits stay as they are.
        points: where the labels belong, in data coordinates.
        texts: one label a point.
        avoid: further markers that should stay visible, in data coordinates.
        lines: lines that a label should rather not sit on.
        size: font size in points.
        color: colour of the text.

    Returns:
        The annotations, in the order of ``points``.
    """
    if not points:
        return []
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # runs the layout, so that pixels mean something
    px_per_pt = figure.dpi / 72
    anchors = ax.transData.transform(np.asarray(points, dtype=float))
    obstacles = ax.transData.transform(np.asarray([*points, *avoid], dtype=float))
    strokes = _sample(lines, 2 * px_per_pt)
    area = ax.get_window_extent()
    frame = np.array([area.x0, area.y0, area.x1, area.y1])
    taken = np.empty((0, 4))
    annotations: list[Annotation | None] = [None] * len(points)
    for i in np.argsort(-anchors[:, 1], kind="stable"):  # from the top down, because labels prefer to go up
        annotation = ax.annotate(
            texts[i],
            points[i],
            (0, 0),
            textcoords="offset points",
            size=size,
            color=color,
            ha="center",
            va="center",
            annotation_clip=False,
            zorder=6,
            path_effects=[withStroke(linewidth=2.2, foreground=PAPER)],
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3},
        )
        annotation.set_in_layout(False)
        extent = annotation.get_window_extent()
        half = np.array([extent.width, extent.height]) / 2 + 0.8 * px_per_pt
        offsets, radii = _candidates(half, px_per_pt)
        boxes = np.hstack([anchors[i] + offsets - half, anchors[i] + offsets + half])
        cost = _cost(boxes, radii, taken, frame, px_per_pt)
        cost += 12 * _num_inside(obstacles, boxes, 3.0 * px_per_pt)
        cost += 5.0 * (_num_inside(strokes, boxes, 0.0) > 0)
        best = int(cost.argmin())
        annotation.set_position(tuple(offsets[best] / px_per_pt))
        if radii[best] <= _RADII_PT[1] and annotation.arrow_patch is not None:
            annotation.arrow_patch.set_visible(False)
        taken = np.vstack([taken, boxes[best]])
        annotations[i] = annotation
    return [a for a in annotations if a is not None]


def _candidates(half: NDArray, px_per_pt: float) -> tuple[NDArray, NDArray]:
    """Offsets of a label's centre from its point in pixels, and the distance (in points) of its nearest edge."""
    direction = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])
    offsets, radii = [], []
    for radius in _RADII_PT:
        gap = direction * radius * px_per_pt
        offsets.append(gap + direction.round(1) * half)
        radii.append(np.full(len(direction), radius))
    return np.vstack(offsets), np.concatenate(radii)


def _cost(boxes: NDArray, radii: NDArray, taken: NDArray, frame: NDArray, px_per_pt: float) -> NDArray:
    """Each candidate's cost, from overlap with labels, room outside the axes, and distance from the point."""
    overlap_w = np.minimum(boxes[:, None, 2], taken[None, :, 2]) - np.maximum(boxes[:, None, 0], taken[None, :, 0])
    overlap_h = np.minimum(boxes[:, None, 3], taken[None, :, 3]) - np.maximum(boxes[:, None, 1], taken[None, :, 1])
    overlaps = (overlap_w.clip(0) * overlap_h.clip(0)).sum(axis=1) / px_per_pt**2
    outside = (frame[:2] - boxes[:, :2]).clip(0).sum(axis=1) + (boxes[:, 2:] - frame[2:]).clip(0).sum(axis=1)
    return overlaps * 10 + outside / px_per_pt * 20 + radii * 0.6


def _num_inside(pixels: NDArray, boxes: NDArray, margin: float) -> NDArray:
    """How many of the pixels lie in each box, widened by ``margin``."""
    above = pixels[None, :, :] > boxes[:, None, :2] - margin
    below = pixels[None, :, :] < boxes[:, None, 2:] + margin
    return (above & below).all(axis=2).sum(axis=1)


def _sample(lines: Sequence[Line2D], step_px: float) -> NDArray:
    """Pixels along the lines, one every ``step_px``."""
    pixels = [np.empty((0, 2))]
    for line in lines:
        path = line.get_transform().transform_path(line.get_path())
        corners = np.asarray(path.vertices, dtype=float)
        for start, end in pairwise(corners):
            count = int(min(np.hypot(*(end - start)) / step_px, 2000)) + 2
            pixels.append(np.linspace(start, end, count))
    return np.vstack(pixels)
