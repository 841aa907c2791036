"""Where the labels of points stand: at the free place that costs least."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from numpy.typing import NDArray

from splitsem.report.figure_choice import chosen
from splitsem.report.style import FAINT, INK, PAPER, fit

_RADII_PT = (7.0, 13.0, 22.0, 34.0, 48.0)
_GRID = (25, 15)  # places anywhere in the axes, for where all near ones are taken
_LINE_COSTS = (18.0, 2.0)  # of touching any line, and of each 2 pt of it that is covered
_BAR_COSTS = (5.0, 3.5)  # the same of intervals' bars
_CROSSED_COST = 40.0  # of the thin line to the point, where it crosses another label
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
    fit(figure)
    size = min(size, chosen().style.most_pt)
    figure.draw_without_rendering()  # runs the layout, so that pixels mean something
    px_per_pt = figure.dpi / 72
    anchors = ax.transData.transform(np.asarray(points, dtype=float))
    obstacles = ax.transData.transform(np.asarray([*points, *avoid], dtype=float))
    strokes, bars = _sample([*lines], 2 * px_per_pt), _sample(_bars(ax), 2 * px_per_pt)
    area = ax.get_window_extent()
    frame = np.array([area.x0, area.y0, area.x1, area.y1])
    taken = np.array([text.get_window_extent().extents for text in ax.texts]).reshape(-1, 4)
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
        near, far = _candidates(half, px_per_pt), _anywhere(half, anchors[i], frame, px_per_pt)
        offsets, radii = np.vstack([near[0], far[0]]), np.concatenate([near[1], far[1]])
        boxes = np.hstack([anchors[i] + offsets - half, anchors[i] + offsets + half])
        cost = _cost(boxes, radii, taken, frame, px_per_pt)
        cost += 12 * _num_inside(obstacles, boxes, 3.0 * px_per_pt)
        for pixels, (touched, covered) in ((strokes, _LINE_COSTS), (bars, _BAR_COSTS)):
            num_inside = _num_inside(pixels, boxes, 1.5 * px_per_pt)
            cost += touched * (num_inside > 0) + covered * num_inside
        joins = anchors[i] + np.linspace(0, 1, 40)[:, None, None] * offsets
        is_far = radii > _RADII_PT[1]
        cost += _CROSSED_COST * (is_far & _crosses(joins, taken))
        best = int(cost.argmin())
        annotation.set_position(tuple(offsets[best] / px_per_pt))
        if is_far[best]:
            strokes = np.vstack([strokes, joins[:, best]])
        elif annotation.arrow_patch is not None:
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


def _anywhere(half: NDArray, anchor: NDArray, frame: NDArray, px_per_pt: float) -> tuple[NDArray, NDArray]:
    """As of ``_candidates``, of places on a grid over the axes, but for those that touch the point."""
    columns, rows = (np.linspace(frame[i] + half[i], frame[i + 2] - half[i], _GRID[i]) for i in (0, 1))
    offsets = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2) - anchor
    radii = np.hypot(*(np.abs(offsets) - half).clip(0).T) / px_per_pt
    is_free = radii >= _RADII_PT[0]
    return offsets[is_free], radii[is_free]


def _cost(boxes: NDArray, radii: NDArray, taken: NDArray, frame: NDArray, px_per_pt: float) -> NDArray:
    """Each candidate's cost, from overlap with labels, room outside the axes, and distance from the point."""
    overlap_w = np.minimum(boxes[:, None, 2], taken[None, :, 2]) - np.maximum(boxes[:, None, 0], taken[None, :, 0])
    overlap_h = np.minimum(boxes[:, None, 3], taken[None, :, 3]) - np.maximum(boxes[:, None, 1], taken[None, :, 1])
    overlaps = (overlap_w.clip(0) * overlap_h.clip(0)).sum(axis=1) / px_per_pt**2
    outside = (frame[:2] - boxes[:, :2]).clip(0).sum(axis=1) + (boxes[:, 2:] - frame[2:]).clip(0).sum(axis=1)
    return overlaps * 10 + outside / px_per_pt * 20 + radii * 0.5


def _num_inside(pixels: NDArray, boxes: NDArray, margin: float) -> NDArray:
    """How many of the pixels lie in each box, widened by ``margin``."""
    above = pixels[None, :, :] > boxes[:, None, :2] - margin
    below = pixels[None, :, :] < boxes[:, None, 2:] + margin
    return (above & below).all(axis=2).sum(axis=1)


def _crosses(joins: NDArray, taken: NDArray) -> NDArray:
    """Which of the lines ``(points, n, 2)`` run through a box."""
    above, below = joins[:, :, None] > taken[:, :2], joins[:, :, None] < taken[:, 2:]
    is_inside: NDArray[np.bool_] = np.asarray((above & below).all(axis=3))
    return np.asarray(is_inside.any(axis=2).any(axis=0))


def _bars(ax: Axes) -> list[Line2D]:
    """The error bars of the axes, as lines."""
    found = [one for one in ax.collections if isinstance(one, LineCollection)]
    ends = [segment for one in found for segment in one.get_segments() if len(segment)]
    return [Line2D(*np.asarray(segment, dtype=float).T, transform=ax.transData) for segment in ends]


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
