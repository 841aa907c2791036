"""The figures of a sweep: score over throughput, score over payload bytes, and where the time of each cut goes."""

import re
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from splitsem.report import results as rs
from splitsem.report import style
from splitsem.report.pareto import pareto_front
from splitsem.report.style import place_labels
from splitsem.report.units import format_bytes, format_seconds

_MAX_FACETS, _MAX_COLUMNS = 6, 3
_MAX_SPREAD = 3.0  # most ratio of the panels' longest bars on one time axis
_XLABEL, _YLABEL = "Latency of one sample (s, ms, µs)", "Split point, in network order"
_FEW_ROWS = 6
_ROW_IN = 0.21  # height of one bar with its gap


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


def latency_breakdown(results: pd.DataFrame) -> Figure:
    """Stacked horizontal bars of ``edge_s``, ``link_s`` and ``server_s``, from the input down to the output.

    Up to six series (codecs, links, …) get a panel each, on one time axis unless the series differ too much to be
    readable. For more series, only the fastest at each split point is drawn and named. The height grows with the
    number of points. Each bar ends with its sum; the smallest sum of all cuts is bold.

    Args:
        results: one row a job, as in results.csv; failed jobs are left out.
    """
    frame = rs.prepare(results)
    times = frame[list(style.STAGES)]
    whole = np.isfinite(times.to_numpy()).all(axis=1)
    shown = frame.assign(latency_s=times.sum(axis=1))[frame["is_ok"].to_numpy() & whole]
    split, reference = rs.splits(shown), rs.references(shown)
    names = list(split["series"].unique())
    best_only = len(names) > _MAX_FACETS
    if best_only:
        fastest = split.loc[split.groupby("split_point", sort=False)["latency_s"].idxmin()]
        panels = {"": fastest.sort_values("split_index", kind="stable")}
    else:
        panels = {name: split[split["series"] == name] for name in names} or {"": split}
    rows = _row_names(split, reference)
    num_columns = min(len(panels), _MAX_COLUMNS)
    num_rows = -(-len(panels) // num_columns)
    figure = style.new_figure(
        8.4 if len(panels) == 1 else 2.4 + 2.4 * num_columns,
        max((0.8 + _ROW_IN * len(rows)) * num_rows + 0.3, 2.2),
        "Where the time goes" + (", fastest setting per split point" if best_only else ""),
        rs.describe(frame),
    )
    grid = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
    if not rows:
        style.style_axes(grid[0, 0], _XLABEL, _YLABEL, grid="x")
        style.empty(grid[0, 0])
        return figure
    for ax in grid.flat[len(panels) :]:
        ax.remove()
    grid[0, 0].set_yticks(range(len(rows)), rows)
    grid[0, 0].set_ylim(len(rows) - 0.4, -0.6)
    own_scale = _draw_panels(list(grid.flat), panels, reference, rows, name_series=best_only)
    stages = [Patch(color=color, label=label) for label, color in style.STAGES.values()]
    style.legend_outside(grid[0, -1], stages)
    figure.supxlabel(_XLABEL + (": each panel has its own scale" if own_scale else ""), size=9.5, color=style.INK)
    y_label = _YLABEL if len(rows) * num_rows > _FEW_ROWS else _YLABEL.partition(",")[0]  # else it meets the header
    figure.supylabel(y_label, size=9.5, color=style.INK)
    return figure


def _draw_panels(
    axes: list[Axes], panels: dict[str, pd.DataFrame], reference: pd.DataFrame, rows: list[str], *, name_series: bool
) -> bool:
    """Draw one panel a series; returns whether each got its own time axis, because one series dwarfs the others."""
    bars = []
    for panel in panels.values():
        own = rs.references_for(reference, panel) if len(panel) else reference  # an empty panel has only references
        bars.append(pd.concat([own, panel]) if len(own) else panel)
    longest_s = [float(b["latency_s"].max()) for b in bars]
    own_scale = max(longest_s) > _MAX_SPREAD * min(longest_s)
    room = 1.28 if name_series else 1.12 if len(panels) == 1 else 1.36  # leaves space for the sums beside the bars
    for ax, name, panel, panel_s in zip(axes, panels, bars, longest_s, strict=False):
        style.style_axes(ax, "", "", grid="x")
        limit_s = room * (panel_s if own_scale else max(longest_s)) or 1.0
        ax.set_xlim(0, limit_s)
        _draw_bars(ax, panel, rows, limit_s, name_series=name_series)
        ax.xaxis.set_major_locator(MaxNLocator(5 if len(panels) == 1 else 3))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_seconds(value)))
        if len(panels) > 1:
            ax.set_title(name, size=9.5, weight="bold", color=style.INK, loc="left")
    return own_scale


def _row_names(split: pd.DataFrame, reference: pd.DataFrame) -> list[str]:
    points = split.sort_values("split_index", kind="stable")["split_point"].drop_duplicates()
    return [*(f"{name} at input" for name in reference["series"].drop_duplicates()), *points]


def _draw_bars(ax: Axes, bars: pd.DataFrame, rows: list[str], limit_s: float, *, name_series: bool) -> None:
    names = bars["split_point"].where(~bars["is_reference"], bars["series"] + " at input")
    place = {name: i for i, name in enumerate(rows)}
    y = names.map(place).to_numpy(dtype=float)
    # Several jobs can share a place (a swept setting that is no series of its own): draw the fastest.
    bars = bars.assign(y=y).sort_values("latency_s", kind="stable").drop_duplicates("y").sort_values("y")
    left = np.zeros(len(bars))
    for stage, (label, color) in style.STAGES.items():
        ax.barh(bars["y"], bars[stage], left=left, height=0.72, color=color, label=label, linewidth=0)
        left = left + bars[stage].to_numpy()
    own = left[~bars["is_reference"].to_numpy()]
    fastest = own.min() if len(own) else None
    for y_value, total, (_, bar) in zip(bars["y"], left, bars.iterrows(), strict=True):
        is_best = total == fastest
        text = format_seconds(total) + (f" · {bar['series']}" if name_series and not bar["is_reference"] else "")
        ax.text(
            total + 0.01 * limit_s,
            y_value,
            text,
            va="center",
            size=7.5,
            color=style.INK if is_best else style.MUTED,
            weight="bold" if is_best else "normal",
        )
