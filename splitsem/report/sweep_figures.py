"""The figures of a sweep's scores: over throughput, and over payload bytes."""

import re
import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from splitsem.report import legends, style
from splitsem.report import results as rs
from splitsem.report.label_places import place_labels
from splitsem.report.style import Chart
from splitsem.report.units import format_bytes, worded

_RATE = "Throughput (samples per second, Hz)"
_SHADE = "#c9d3dd"
_MOST_BELOW = 4  # kinds that are listed below the axis of scores
_NARROW_IN = 5.0  # a narrower figure has labels of two lines
_LETTERS_AN_INCH = 7  # of the figure's width, in a line of a label
_MANY = 30  # bars of more configurations than these are fainter, or they hide the points


def draw_points(ax: Axes, split: pd.DataFrame, x: str) -> list[Line2D]:
    """Draw one marker a configuration, colour and shape by series, with the 95 % interval of its score."""
    if split.empty:
        return []
    colors = _colours(split, "series")
    markers = {name: style.MARKERS[i % len(style.MARKERS)] for i, name in enumerate(colors)}
    for name, rows in split.groupby("series", sort=False):
        look: dict[str, Any] = {"color": colors[str(name)], "marker": markers[str(name)]}
        ax.scatter(rows[x], rows["score"], s=30, linewidth=0, alpha=0.85, zorder=3, **look)
    faint = 0.45 if len(split) <= _MANY else 0.2
    for name, rows in split[split["score_ci95"] > 0].groupby("series", sort=False):
        bars: dict[str, Any] = {"fmt": "none", "ecolor": colors[str(name)], "elinewidth": 0.9, "alpha": faint}
        ax.errorbar(rows[x], rows["score"], _reaches(rows, "score_ci95"), zorder=2.2, **bars)
    return [
        Line2D([], [], color=colors[name], marker=markers[name], linestyle="none", markersize=6, label=name)
        for name in colors
    ]


def _colours(split: pd.DataFrame, by: str) -> dict[str, Any]:
    """A colour for each series in natural order, or for each split point in the network's."""
    if by == "split_point":
        return dict(zip(split[by].unique(), style.COLOURS, strict=False))
    names = sorted(split[by].unique(), key=_natural)
    return dict(zip(names, style.palette(len(names)), strict=True))


def _reaches(rows: pd.DataFrame, half: str) -> Any:
    """How far the bars of intervals reach, where the score itself ends at 0 and 1."""
    return style.interval_bars(rows["score"], rows[half])


def draw_front(ax: Axes, front: pd.DataFrame, x: str, *, falling: bool) -> list[Line2D]:
    """Mark the best, shade what ties with them, and join the best by the staircase of what can be reached.

    Args:
        ax: the axes.
        front: the front's rows, with the column ``front``.
        x: the column on the horizontal axis.
        falling: more ``x`` is better: the best are the table's, with its ★, and the stairs go down to the right. Else
            less ``x`` is better: the best are others, with a ◆, and the stairs go up.
    """
    best, ties = (front[front["front"] == kind].sort_values([x, "score"]) for kind in ("best", "tie"))
    stairs = np.repeat(best[[x, "score"]].to_numpy(), 2, axis=0)
    across, up = (stairs[:-1, 0], stairs[1:, 1]) if falling else (stairs[1:, 0], stairs[:-1, 1])
    ax.plot(across, up, color=style.INK, linewidth=1.0, alpha=0.55, zorder=2)
    marker, size, label = ("*", 11, "best (★)") if falling else ("D", 7, "fewest bytes (◆)")
    _draw_best(ax, best, x, marker, size)
    look: dict[str, Any] = {"marker": marker, "markerfacecolor": style.STAR, "markeredgecolor": style.INK}
    handles = [Line2D([], [], color=style.INK, linewidth=1, markersize=size, markeredgewidth=0.8, label=label, **look)]
    if len(ties):
        ax.scatter(ties[x], ties["score"], s=190, color=_SHADE, linewidths=0, zorder=1.8, gid="tie")
        look = {"color": _SHADE, "marker": "o", "markersize": 12, "linestyle": "none"}
        handles.append(Line2D([], [], label="tie with a ★ (=)" if falling else "tie with a ◆", **look))
    return handles


def _draw_best(ax: Axes, best: pd.DataFrame, x: str, marker: str, size: float, gid: str = "best") -> None:
    look: dict[str, Any] = {"marker": marker, "facecolors": style.STAR, "edgecolors": style.INK, "linewidths": 0.8}
    ax.scatter(best[x], best["score"], s=1.4 * size**2, zorder=4, gid=gid, **look)


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
    return [Line2D([], [], label=worded(text, rs.score_name(frame)), **dashes)], [scores[0], scores[-1]]


def draw_references(ax: Axes, reference: pd.DataFrame, x: str) -> list[Line2D]:
    """Draw the references: one marker a row, a curve where a quality was swept."""
    handles = []
    for name, rows in reference.groupby("family", sort=False):
        marker, color = style.REFERENCES.get(str(name), ("h", style.INK))
        rows = rows.sort_values("payload_bytes")
        look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 6, "markeredgecolor": style.PAPER}
        ax.plot(rows[x], rows["score"], linewidth=1.0, alpha=0.9, zorder=2.8, gid=f"reference {name}", **look)
        at = "" if rows["split_point"].ne("input").all() else " at input"
        handles.append(Line2D([], [], linestyle="-" if len(rows) > 1 else "none", label=f"{name}{at}", **look))
    return handles


def label_points(ax: Axes, front: pd.DataFrame, shown: pd.DataFrame, x: str) -> None:
    """Name the stars and the two ends of the network by split point, and by series if there are several.

    A star that others tie with says how many do. Configurations at the same place share a label, which names one and
    counts the others.
    """
    several = rs.splits(shown)["series"].nunique() > 1
    num_ties = front.loc[front["front"] == "tie", "tie_group"].value_counts()
    width_in = style.width_of(ax)
    then = " " if width_in > _NARROW_IN else "\n"
    best = front[front["front"] == "best"]
    named = []
    for _, row in best.iterrows():
        count = int(num_ties.get(row["tie_group"], 0))
        name = textwrap.fill(rs.named(row, several=several), int(_LETTERS_AN_INCH * width_in))
        text = name + (f"{then}and {count} ties" if count > 1 else f"{then}and a tie" if count else "")
        named.append((row[x], row["score"], text, style.INK))
    if not several:
        ends = rs.splits(shown)
        ends = ends[ends["split_point"].isin(["input", "output"]) & ~ends.index.isin(best.index)]
        named += [(row[x], row["score"], row["split_point"], style.MUTED) for _, row in ends.iterrows()]
    low, high = ax.get_ylim()
    spots: dict[tuple[float, float], list[tuple[str, str]]] = {}
    for x_value, y_value, text, color in named:
        if low <= y_value <= high:
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


def _scale_scores(ax: Axes, shown: pd.DataFrame, front: pd.DataFrame, unsplit: list[float]) -> None:
    """Let the axis of scores show the front's spread; scores far below it are listed above the axes."""
    ends = [shown["score"] + sign * shown["score_ci95"].fillna(0.0) for sign in (-1, 1)]
    best = front[front["front"] == "best"]
    needed = [*(best["score"] - best["score_ci95"].fillna(0.0)), *unsplit]
    style.score_axis(ax, [*ends[0], *ends[1], *unsplit], needed)
    below = shown[shown["score"] < ax.get_ylim()[0]]
    if len(below):
        kinds = below["family"].where(below["is_reference"], below["series"])
        ranges = [_range(name, rows["score"]) for name, rows in below.groupby(kinds, sort=False)]
        named, num_more = ranges[:_MOST_BELOW], len(ranges) - _MOST_BELOW
        more = f" · {num_more} more" if num_more > 0 else ""
        style.note(ax, f"▼ below the axis: {' · '.join(named)}{more}")


def _mark_below(ax: Axes, shown: pd.DataFrame, x: str, by: str) -> None:
    """An arrow at the lower edge for each row whose score is below it, in its colour."""
    colours, is_below = _colours(rs.splits(shown), by), shown["score"] < ax.get_ylim()[0]
    kinds = shown["family"].where(shown["is_reference"], shown[by])
    for (name, is_reference), rows in shown[is_below].groupby([kinds, "is_reference"], sort=False):
        known = style.REFERENCES.get(str(name), ("h", style.INK))[1] if is_reference else colours[str(name)]
        look: dict[str, Any] = {"color": known, "marker": "v", "markersize": 5, "linestyle": "none", "clip_on": False}
        ax.plot(rows[x], [0.0] * len(rows), transform=ax.get_xaxis_transform(), zorder=5, gid=f"below {name}", **look)


def _range(name: object, scores: pd.Series) -> str:
    low, high = f"{scores.min():.2f}", f"{scores.max():.2f}"
    return f"{name} {low}" if low == high else f"{name} {low} to {high}"


def accuracy_throughput(results: pd.DataFrame) -> Figure:
    """Score over throughput, one dot a configuration with the 95 % interval; up and to the right is better.

    Args:
        results: one row a job, as in results.csv; failed jobs are left out.

    Returns:
        The figure. The best are starred, joined and named, what ties with them is shaded, see ``fronts.front``; the
        dashed line is the unsplit score; references have markers of their own, a curve a kind of picture. Where no
        score leaves the interval of the unsplit one, a second panel has their paired differences.
    """
    frame = rs.prepare(results)
    shown = frame[frame["is_ok"] & np.isfinite(frame["throughput_hz"]) & (frame["throughput_hz"] > 0)]
    split, reference = rs.splits(shown), rs.references(shown)
    is_flat = len(split) > 1 and bool(((split["score"] - split["score_unsplit"]).abs() <= split["score_ci95"]).all())
    figure = style.new_figure(
        8.4, 6.4 if is_flat else 4.4, worded("Accuracy against throughput", rs.score_name(frame)), rs.about(frame)
    )
    ax, *more = figure.subplots(1 + is_flat, 1, sharex=True, squeeze=False)[:, 0]
    style.style_axes(ax, "" if more else _RATE, worded("Score (0 to 1, higher is better)", rs.score_name(frame)))
    if shown.empty:
        style.empty(ax)
        return figure
    for below in more:
        style.style_axes(below, _RATE, worded("Score − unsplit (points of 0.01)", rs.score_name(frame)))
        _draw_differences(below, split)
    figure.data = _told(shown, "throughput_hz")
    front = split[split["front"] != ""]
    handles = draw_points(ax, split, "throughput_hz") + draw_front(ax, front, "throughput_hz", falling=True)
    unsplit, unsplit_scores = draw_unsplit(ax, shown)
    handles += unsplit + draw_references(ax, reference, "throughput_hz")
    style.unit_axis(ax, "Hz", shown["throughput_hz"].tolist())
    _scale_scores(ax, shown, front, unsplit_scores)
    _mark_below(ax, shown, "throughput_hz", "series")
    legends.outside(ax, handles, _legend_title(shown))
    label_points(ax, front, shown, "throughput_hz")
    return figure


def _told(shown: pd.DataFrame, x: str) -> pd.DataFrame:
    """The numbers of a figure's marks."""
    own = ["score", "score_ci95", "score_delta", "score_delta_ci95", "score_unsplit"]
    return shown[["split_point", "series", "reference", "front", x, *own]]


def _draw_differences(ax: Axes, split: pd.DataFrame) -> None:
    """What the scores' own intervals hide: differences to the unsplit network on the same samples."""
    for i, (name, color) in enumerate(_colours(split, "series").items()):
        rows = split[split["series"] == name]
        look: dict[str, Any] = {
            "fmt": style.MARKERS[i % len(style.MARKERS)],
            "color": color,
            "markersize": 4.5,
            "elinewidth": 1.1,
            "alpha": 0.85,
        }
        ci95 = 100 * np.nan_to_num(_reaches(rows, "score_delta_ci95"))
        ax.errorbar(rows["throughput_hz"], 100 * rows["score_delta"], ci95, gid="difference", **look)
    ax.axhline(0.0, color=style.MUTED, linestyle=(0, (5, 3)), linewidth=1.1, zorder=1)
    best = split[split["front"] == "best"].assign(score=lambda rows: 100 * rows["score_delta"])
    _draw_best(ax, best, "throughput_hz", "*", 11, gid="best difference")
    text = "bars: paired 95 % interval; where it holds 0, the cut cannot be told from the unsplit network"
    style.note(ax, text)


def _legend_title(shown: pd.DataFrame) -> str:
    interval = rs.about_interval(shown).replace(" over ", "\nover ")
    return interval if interval.startswith("no ") else f"bars: {interval}"


def rate_accuracy(results: pd.DataFrame) -> Chart:
    """Score over payload bytes per sample; up and to the left is better.

    Where a codec's bit width or keep ratio was swept, a line joins its settings at the same split point.

    Args:
        results: one row a job, as in results.csv; failed jobs are left out.

    Returns:
        The figure, with the size of the sample itself, the raw float32 features, the unsplit score and the
        "just send the picture" rows as references. What sends nothing stands at the left edge. A ◆ has the fewest
        bytes: no configuration of fewer has a score that is as high; a ★ is the table's, which goes by throughput.
    """
    frame = rs.prepare(results)
    sized = frame[frame["is_ok"] & np.isfinite(frame["payload_bytes"])]
    shown, silent = sized[sized["payload_bytes"] > 0], sized[sized["payload_bytes"] == 0]
    figure = style.new_figure(
        8.4, 4.4, worded("Accuracy against bytes on the wire", rs.score_name(frame)), rs.about(frame)
    )
    ax = figure.add_subplot()
    style.style_axes(
        ax,
        "Payload per sample (bytes, header included)",
        worded("Score (0 to 1, higher is better)", rs.score_name(frame)),
    )
    if shown.empty:
        style.empty(ax, "nothing was sent" if len(silent) else "no job of this sweep succeeded")
        return figure
    split = rs.splits(shown)
    stars = split[split["front"] == "best"]
    curves = _curves(split)
    by = "split_point" if curves and split["split_point"].nunique() <= len(style.COLOURS) else "series"
    handles = _draw_curves(ax, split) if by == "split_point" else draw_points(ax, split, "payload_bytes")
    if by == "series":
        for rows in curves:
            ax.plot(rows["payload_bytes"], rows["score"], color=style.FAINT, linewidth=0.8, alpha=0.7, zorder=1.5)
    found = rs.front_of(split, 1 / split["payload_bytes"], 0.0 * split["payload_bytes"])  # sizes are exact
    split = split.assign(front=found.kind, tie_group=found.group)
    figure.data = _told(pd.concat([split, rs.references(sized), rs.splits(silent)]), "payload_bytes")
    front = split[split["front"] != ""]
    handles += draw_front(ax, front, "payload_bytes", falling=False)
    if len(stars):
        _draw_best(ax, stars, "payload_bytes", "*", 11, gid="star")
        look: dict[str, Any] = {"marker": "*", "color": style.STAR, "markeredgecolor": style.INK, "markersize": 11}
        handles.append(Line2D([], [], linestyle="none", label="the table's ★", **look))
    unsplit, unsplit_scores = draw_unsplit(ax, shown)
    handles += unsplit + draw_references(ax, rs.references(shown), "payload_bytes")
    handles += _draw_sizes(ax, shown) + _draw_silent(ax, silent)
    sizes = shown[["payload_bytes", "input_bytes", "raw_bytes"]].to_numpy().ravel()
    style.unit_axis(ax, "B", sizes.tolist(), log=True)
    _scale_scores(ax, pd.concat([shown, silent]), front, unsplit_scores)
    _mark_below(ax, shown, "payload_bytes", by)
    legends.outside(ax, handles, _legend_title(shown))
    label_points(ax, front, shown, "payload_bytes")
    return figure


def _draw_silent(ax: Axes, silent: pd.DataFrame) -> list[Line2D]:
    """Mark the scores of what sends nothing, which has no place on a logarithmic axis, at the left edge."""
    if silent.empty:
        return []
    names = list(dict.fromkeys(silent["split_point"]))
    which = f"{names[0]} sends nothing" if len(names) == 1 else f"{len(names)} cuts send nothing"
    look: dict[str, Any] = {"color": style.INK, "marker": "<", "markersize": 6, "linestyle": "none", "clip_on": False}
    scores = silent["score"].drop_duplicates()
    ax.plot([0.0] * len(scores), scores, transform=ax.get_yaxis_transform(), zorder=5, gid="silent", **look)
    return [Line2D([], [], label=f"0 B: {which}", **look)]


def _curves(split: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each split point and codec family that differ in their bytes, by bytes."""
    groups = (rows for _, rows in split.groupby(["family", "split_point"], sort=False))
    return [rows.sort_values("payload_bytes") for rows in groups if rows["payload_bytes"].nunique() > 1]


def _draw_curves(ax: Axes, split: pd.DataFrame) -> list[Line2D]:
    """Draw markers, and lines along a swept codec setting, in a colour a split point."""
    colors, families = _colours(split, "split_point"), list(split["family"].unique())
    dashes = dict(zip(colors, style.DASHES, strict=False))
    markers = {family: style.MARKERS[i % len(style.MARKERS)] for i, family in enumerate(families)}
    for (family, point), rows in split.sort_values("payload_bytes").groupby(["family", "split_point"], sort=False):
        look: dict[str, Any] = {"color": colors[str(point)], "marker": markers[family], "markeredgewidth": 0}
        look["linestyle"] = dashes[str(point)]
        ax.plot(rows["payload_bytes"], rows["score"], linewidth=1.4, markersize=5.5, alpha=0.85, zorder=2.5, **look)
        bars: dict[str, Any] = {"fmt": "none", "ecolor": colors[str(point)], "elinewidth": 0.9, "alpha": 0.45}
        ax.errorbar(rows["payload_bytes"], rows["score"], _reaches(rows, "score_ci95"), zorder=2.2, **bars)
    handles = [Line2D([], [], color=colors[p], linestyle=dashes[p], linewidth=1.8, label=p) for p in colors]
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
