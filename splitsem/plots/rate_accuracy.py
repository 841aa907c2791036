"""Rate against accuracy: what a score costs in bytes on the wire, against sending the picture itself."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from splitsem.pareto import pareto_front
from splitsem.plots import results as rs
from splitsem.plots import style
from splitsem.plots.points import draw_front, draw_points, draw_references, draw_unsplit, label_points
from splitsem.plots.units import format_bytes


def rate_accuracy(results: pd.DataFrame) -> Figure:
    """Score over payload bytes per sample; up and to the left is better.

    Where a codec's bit width or keep ratio was swept, a line joins its settings at the same split point.

    Args:
        results: one row a job, as in results.csv; failed jobs are left out.

    Returns:
        The figure, with the size of the sample itself, the raw float32 features, the unsplit score and the
        "just send the picture" rows as references.
    """
    frame = rs.prepare(results)
    shown = frame[frame["is_ok"] & np.isfinite(frame["payload_bytes"]) & (frame["payload_bytes"] > 0)]
    figure = style.new_figure(8.4, 4.4, "Accuracy against bytes on the wire", rs.describe(frame))
    ax = figure.add_subplot()
    style.style_axes(ax, "Payload per sample (bytes, header included)", "Score (0 to 1, higher is better)")
    if shown.empty:
        style.empty(ax)
        return figure
    split = rs.splits(shown)
    handles = _draw_curves(ax, split)
    mask = pareto_front(split[["score", "payload_bytes"]].to_numpy(), maximise=[True, False])
    front = split[mask].sort_values(["payload_bytes", "score"])
    handles.append(draw_front(ax, front, "payload_bytes", falling=False))
    unsplit, unsplit_scores = draw_unsplit(ax, shown)
    handles += unsplit + draw_references(ax, rs.references(shown), "payload_bytes")
    handles += _draw_sizes(ax, shown)
    sizes = shown[["payload_bytes", "input_bytes", "raw_bytes"]].to_numpy().ravel()
    style.unit_axis(ax, "B", sizes.tolist(), log=True)
    spread = [*(shown["score"] - shown["score_std"]), *(shown["score"] + shown["score_std"])]
    style.score_axis(ax, [*spread, *unsplit_scores])
    style.legend_outside(ax, handles)
    label_points(ax, front, shown, "payload_bytes")
    return figure


def _draw_curves(ax: Axes, split: pd.DataFrame) -> list[Line2D]:
    """Markers, and lines along a swept codec setting: colour is the split point while those are few, else the codec."""
    curves = [
        (str(family), str(point), rows.sort_values("payload_bytes"))
        for (family, point), rows in split.groupby(["family", "split_point"], sort=False)
        if rows["payload_bytes"].nunique() > 1
    ]
    points, families = list(split["split_point"].unique()), list(split["family"].unique())
    if not curves or len(points) > len(style.COLOURS):
        for _, _, rows in curves:
            ax.plot(rows["payload_bytes"], rows["score"], color=style.FAINT, linewidth=0.8, alpha=0.7, zorder=1.5)
        return draw_points(ax, split, "payload_bytes")
    colors = dict(zip(points, style.COLOURS, strict=False))
    markers = {family: style.MARKERS[i % len(style.MARKERS)] for i, family in enumerate(families)}
    for (family, point), rows in split.sort_values("payload_bytes").groupby(["family", "split_point"], sort=False):
        look: dict[str, Any] = {"color": colors[str(point)], "marker": markers[family], "markeredgewidth": 0}
        ax.plot(rows["payload_bytes"], rows["score"], linewidth=1.4, markersize=5.5, alpha=0.85, zorder=2.5, **look)
    handles = [Line2D([], [], color=color, linewidth=3, label=point) for point, color in colors.items()]
    if len(families) > 1:
        gray: dict[str, Any] = {"color": style.MUTED, "linestyle": "none", "markersize": 6}
        handles += [Line2D([], [], marker=marker, label=family, **gray) for family, marker in markers.items()]
    return handles


def _draw_sizes(ax: Axes, shown: pd.DataFrame) -> list[Line2D]:
    """The sample itself as a vertical line; the raw float32 features as one small tick a split point."""
    handles = []
    sizes = shown["input_bytes"].dropna().unique()
    dots: dict[str, Any] = {"color": style.MUTED, "linestyle": (0, (1, 2)), "linewidth": 1.3}
    for size in sizes[:3]:
        ax.axvline(size, zorder=1, gid="input_bytes", **dots)
    if len(sizes):
        text = f"input as it is ({format_bytes(float(sizes[0]))})" if len(sizes) == 1 else "input as it is"
        handles.append(Line2D([], [], label=text, **dots))
    raw = rs.splits(shown).drop_duplicates(["split_point", "raw_bytes"])["raw_bytes"].dropna()
    if len(raw):
        look: dict[str, Any] = {
            "color": style.MUTED,
            "marker": "|",
            "markersize": 8,
            "linestyle": "none",
            "markeredgewidth": 1.2,
        }
        bottom = ax.get_xaxis_transform()
        ax.plot(raw, np.full(len(raw), 0.016), transform=bottom, zorder=5, gid="raw_bytes", **look)
        handles.append(Line2D([], [], label="raw float32 features", **look))
    return handles
