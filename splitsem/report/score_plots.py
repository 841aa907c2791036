"""The two score plots of a sweep, over throughput and over payload bytes, and the parts that both are made of."""

import re
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from splitsem.report import results as rs
from splitsem.report import style
from splitsem.report.pareto import pareto_front
from splitsem.report.style import place_labels
from splitsem.report.units import format_bytes


def draw_points(ax: Axes, split: pd.DataFrame, x: str) -> list[Line2D]:
    """Draw one marker a configuration, colour and shape by series; error bars where several seeds were run."""
    if split.empty:
        return []
    names = sorted(split["series"].unique(), key=_natural)
    colors = dict(zip(names, style.palette(len(names)), strict=True))
    markers = {name: style.MARKERS[i % len(style.MARKERS)] for i, name in enumerate(names)}
    series: dict[str, Any] = {"hue": "series", "style": "series", "palette": colors, "markers": markers}
    seaborn.scatterplot(split, x=x, y="score", ax=ax, s=30, linewidth=0, alpha=0.75, zorder=3, legend=False, **series)
    for name, rows in split[split["score_std"] > 0].groupby("series", sort=False):
        bars: dict[str, Any] = {"fmt": "none", "ecolor": colors[str(name)], "elinewidth": 0.8, "alpha": 0.5}
        ax.errorbar(rows[x], rows["score"], rows["score_std"], **bars)
    return [
        Line2D([], [], color=colors[name], marker=markers[name], linestyle="none", markersize=6, label=name)
        for name in names
    ]


def draw_front(ax: Axes, front: pd.DataFrame, x: str, *, falling: bool) -> Line2D:
    """Ring the Pareto points, sorted by ``x``, and join the points by the staircase of what can be reached.

    ``falling``: more ``x`` is better, and the stairs go down to the right; else less ``x`` is, and the stairs go up.
    """
    stairs = np.repeat(front[[x, "score"]].to_numpy(), 2, axis=0)
    across, up = (stairs[:-1, 0], stairs[1:, 1]) if falling else (stairs[1:, 0], stairs[:-1, 1])
    ax.plot(across, up, color=style.INK, linewidth=1.0, alpha=0.55, zorder=2)
    rings = ax.scatter(
        front[x], front["score"], s=78, facecolors="none", edgecolors=style.INK, linewidths=1.2, zorder=4
    )
    rings.set_gid("pareto")
    return Line2D(
        [], [], color=style.INK, linewidth=1, marker="o", markersize=8, markerfacecolor="none", label="Pareto front"
    )


def draw_unsplit(ax: Axes, frame: pd.DataFrame) -> tuple[list[Line2D], list[float]]:
    """Draw the whole network's score as a dashed line, or as a band where the sweep has several such scores."""
    scores = sorted(set(frame["score_unsplit"].dropna().round(6)))
    if not scores:
        return [], []
    dashes: dict[str, Any] = {"color": style.MUTED, "linestyle": (0, (5, 3)), "linewidth": 1.1}
    for score in scores if len(scores) <= 3 else (scores[0], scores[-1]):
        ax.axhline(score, zorder=1, gid="unsplit", **dashes)
    if len(scores) > 3:
        ax.axhspan(scores[0], scores[-1], color=style.GRID, alpha=0.6, zorder=0, linewidth=0)
    text = f"unsplit ({scores[0]:.3f})" if len(scores) == 1 else f"unsplit ({scores[0]:.3f} to {scores[-1]:.3f})"
    return [Line2D([], [], label=text, **dashes)], [scores[0], scores[-1]]


def draw_references(ax: Axes, reference: pd.DataFrame, x: str) -> list[Line2D]:
    """Draw the "just send the picture" rows: one marker a row, joined where a quality was swept."""
    handles = []
    for name, rows in reference.groupby("family", sort=False):
        marker, color = style.REFERENCES.get(str(name), ("h", style.INK))
        rows = rows.sort_values(x)
        look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 7.5, "markeredgecolor": style.PAPER}
        ax.plot(rows[x], rows["score"], linewidth=1.0, zorder=5, gid=f"reference {name}", **look)
        handles.append(Line2D([], [], linestyle="none", label=f"{name} at input", **look))
    return handles


def label_points(ax: Axes, front: pd.DataFrame, shown: pd.DataFrame, x: str) -> None:
    """Name the front's points and the two ends of the network by split point, and by series if there are several.

    Configurations at exactly the same place share a label, which names one and counts the others.
    """
    several = rs.splits(shown)["series"].nunique() > 1
    named = [(row[x], row["score"], _name(row, several), style.INK) for _, row in front.iterrows()]
    if not several:
        ends = rs.splits(shown)
        ends = ends[ends["split_point"].isin(["input", "output"]) & ~ends.index.isin(front.index)]
        named += [(row[x], row["score"], row["split_point"], style.MUTED) for _, row in ends.iterrows()]
    spots: dict[tuple[float, float], list[tuple[str, str]]] = {}
    for x_value, y_value, text, color in named:
        spots.setdefault((x_value, y_value), []).append((text, color))
    points = list(spots)
    texts = [names[0][0] + (f" (+{len(names) - 1})" if len(names) > 1 else "") for names in spots.values()]
    avoid = [tuple(p) for p in shown[[x, "score"]].to_numpy()]
    placed = place_labels(ax, points, texts, avoid, lines=ax.get_lines())
    for annotation, names in zip(placed, spots.values(), strict=True):
        annotation.set_color(names[0][1])
        annotation.set_gid("label")


def _natural(text: str) -> list[str | int]:
    """A sort key that puts ``8 bit`` before ``10 bit``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def _name(row: pd.Series, several: bool) -> str:
    return f"{row['split_point']} · {row['series']}" if several else str(row["split_point"])


def accuracy_throughput(results: pd.DataFrame) -> Figure:
    """Score over throughput, one dot a configuration; up and to the right is better.

    Args:
        results: one row a job, as in results.csv; failed jobs are left out.

    Returns:
        The figure. Configurations on the Pareto front are ringed, joined and named; the dashed line is the unsplit
        score; "just send the picture" rows have markers of their own.
    """
    frame = rs.prepare(results)
    shown = frame[frame["is_ok"] & np.isfinite(frame["throughput_hz"]) & (frame["throughput_hz"] > 0)]
    figure = style.new_figure(8.4, 4.4, "Accuracy against throughput", rs.describe(frame))
    ax = figure.add_subplot()
    style.style_axes(ax, "Throughput (samples per second, Hz)", "Score (0 to 1, higher is better)")
    if shown.empty:
        style.empty(ax)
        return figure
    split, reference = rs.splits(shown), rs.references(shown)
    handles = draw_points(ax, split, "throughput_hz")
    front = split[split["pareto"]].sort_values(["throughput_hz", "score"])
    handles.append(draw_front(ax, front, "throughput_hz", falling=True))
    unsplit, unsplit_scores = draw_unsplit(ax, shown)
    handles += unsplit + draw_references(ax, reference, "throughput_hz")
    style.unit_axis(ax, "Hz", shown["throughput_hz"].tolist())
    spread = [*(shown["score"] - shown["score_std"]), *(shown["score"] + shown["score_std"])]
    style.score_axis(ax, [*spread, *unsplit_scores])
    style.legend_outside(ax, handles)
    label_points(ax, front, shown, "throughput_hz")
    return figure


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
    """Draw markers, and lines along a swept codec setting; colour: the split point if few, else the codec."""
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
    """Draw the sample's size as a vertical line, and raw float32 features as one small tick a split point."""
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
