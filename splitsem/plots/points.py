"""What the two score plots share: points, Pareto front, unsplit line, references and point labels."""

import re
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from splitsem.plots import results as rs
from splitsem.plots import style
from splitsem.plots.labels import place_labels


def draw_points(ax: Axes, split: pd.DataFrame, x: str) -> list[Line2D]:
    """One marker a configuration, colour and shape by series; error bars where several seeds were run."""
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
    """Ring the Pareto points, sorted by ``x``, and join them by the staircase of what can be reached.

    ``falling``: more ``x`` is better, so the stairs go down to the right; else less is, and they go up.
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
    """The score of the whole network, dashed; a band where the sweep has several (models, seeds)."""
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
    """ "Just send the picture": one marker a row, joined where a quality was swept."""
    handles = []
    for name, rows in reference.groupby("family", sort=False):
        marker, color = style.REFERENCES.get(str(name), ("h", style.INK))
        rows = rows.sort_values(x)
        look: dict[str, Any] = {"color": color, "marker": marker, "markersize": 7.5, "markeredgecolor": style.PAPER}
        ax.plot(rows[x], rows["score"], linewidth=1.0, zorder=5, gid=f"reference {name}", **look)
        handles.append(Line2D([], [], linestyle="none", label=f"{name} at input", **look))
    return handles


def label_points(ax: Axes, front: pd.DataFrame, shown: pd.DataFrame, x: str) -> None:
    """Name the front by split point, and by series where there are several; the two ends of the network too.

    Configurations at the very same place share a label, which counts the others.
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
    """Sorts ``8 bit`` before ``10 bit``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def _name(row: pd.Series, several: bool) -> str:
    return f"{row['split_point']} · {row['series']}" if several else str(row["split_point"])
