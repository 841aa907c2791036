"""Figures of a joint optimisation: accuracy against throughput, the chosen γ by unit, α and importance by branch."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from splitsem.models.branches import GAMMAS, Branch
from splitsem.report import legends, style
from splitsem.report.label_places import place_labels
from splitsem.report.results import codec_families
from splitsem.report.style import Chart
from splitsem.report.units import format_number

_BASELINES = {"all_parallel": ("all branches beside each other", "s"), "all_fused": ("all branches folded", "D")}


def joint_front(
    front: pd.DataFrame,
    scored: pd.DataFrame,
    baselines: pd.DataFrame,
    accuracy_ref: float,
    epsilon: float,
    subtitle: str,
) -> Figure:
    """One dot a configuration; up and to the right is better.

    Args:
        front: the predicted Pareto front of time and damage: ``throughput_hz`` and ``accuracy_val``.
        scored: deployed and scored networks with the columns of ``front``; ``is_best`` marks the chosen network.
        baselines: a row each for ``all_parallel``, ``all_fused`` and ``fastest`` (``name``), and ``front``'s columns.
        accuracy_ref: A_ref, the accuracy of the network with all branches.
        epsilon: ε.
        subtitle: task, model, link, split of the data.
    """
    figure, ax = constrained_axes(accuracy_ref, epsilon, subtitle)
    figure.data = pd.concat(
        [f.assign(kind=k) for k, f in (("front", front), ("scored", scored), ("baseline", baselines))]
    )
    near = front[front["accuracy_val"] > _floor(scored, baselines, accuracy_ref, epsilon)]
    faint, blue, orange = style.FAINT, style.COLOURS[0], style.COLOURS[1]
    for gid, rows, marker, color, size in (("front", near, ".", faint, 4), ("scored", scored, "o", blue, 5.5)):
        dots: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 0, "marker": marker, "markersize": size}
        ax.plot(rows["throughput_hz"], rows["accuracy_val"], color=color, zorder=2 + (gid == "scored"), gid=gid, **dots)
    handles = [
        Line2D([], [], linestyle="none", marker="o", color=blue, markersize=6, label="deployed and scored"),
        Line2D([], [], linestyle="none", marker=".", color=faint, markersize=7, label="front, as predicted"),
    ]
    for row in baselines.itertuples():
        label, marker = _BASELINES.get(str(row.name), ("fastest, whatever the accuracy", "X"))
        ax.plot(row.throughput_hz, row.accuracy_val, marker=marker, color=orange, markersize=7, zorder=4, gid=row.name)  # type: ignore[arg-type]
        handles.append(Line2D([], [], linestyle="none", marker=marker, color=orange, markersize=7, label=label))
    handles += [draw_chosen(ax, scored[scored["is_best"]]), *constraint_handles("all branches", epsilon)]
    rates = [*near["throughput_hz"], *scored["throughput_hz"], *baselines["throughput_hz"]]
    scores = [*near["accuracy_val"], *scored["accuracy_val"], *baselines["accuracy_val"], accuracy_ref]
    style.unit_axis(ax, "Hz", rates)
    style.score_axis(ax, [*scores, accuracy_ref - epsilon])
    legends.outside(ax, handles)
    return figure


def constrained_axes(accuracy_ref: float, epsilon: float, subtitle: str) -> tuple[Chart, Axes]:
    """An empty figure of accuracy against throughput; what lies more than ε below A_ref is grey."""
    figure = style.new_figure(8.4, 4.4, "Accuracy against throughput of the joint optimum", subtitle)
    ax = figure.add_subplot()
    style.style_axes(ax, "Throughput (samples per second, Hz)", "Accuracy on the validation split (0 to 1)")
    ax.axhspan(-1, accuracy_ref - epsilon, color=style.GRID, alpha=0.45, zorder=0, gid="forbidden")
    ax.axhline(accuracy_ref, color=style.MUTED, linestyle=(0, (5, 3)), linewidth=1.1, zorder=1, gid="reference")
    return figure, ax


def constraint_handles(reference: str, epsilon: float) -> list[Line2D]:
    """Legend entries for what ``constrained_axes`` drew; ``reference`` says whose accuracy A_ref is."""
    return [
        Line2D([], [], color=style.MUTED, linestyle=(0, (5, 3)), label=f"{reference}, A_ref"),
        Line2D([], [], color=style.GRID, linewidth=7, label=f"more than ε = {100 * epsilon:g} points below"),
    ]


def draw_chosen(ax: Axes, best: pd.DataFrame) -> Line2D:
    """Draw a ring around the chosen configuration; returns the ring's entry in the legend."""
    ring: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": style.INK}
    ax.plot(best["throughput_hz"], best["accuracy_val"], linestyle="none", zorder=5, gid="best", **ring)
    return Line2D(
        [], [], linestyle="none", marker="o", markerfacecolor="none", color=style.INK, markersize=10, label="chosen"
    )


def _floor(scored: pd.DataFrame, baselines: pd.DataFrame, accuracy_ref: float, epsilon: float) -> float:
    """The lowest accuracy to show: a front's points below all scored networks are mere guesses."""
    return min(scored["accuracy_val"].min(), baselines["accuracy_val"].min(), accuracy_ref - 2 * epsilon) - 0.01


_CUT_BASELINES = {
    "baseline": ("float32 at its best cut", "D"),
    "edge_only": ("all on the edge", "s"),
    "server_only": ("all on the server", "X"),
}
_SHOWN = 8.0
"""Rows more than ``_SHOWN`` · ε (and a tenth) below A_ref are left out: they would squeeze all other rows."""


def cut_front(
    rates: pd.DataFrame, baselines: pd.DataFrame, accuracy_ref: float, epsilon: float, subtitle: str
) -> Figure:
    """One dot a split point and codec; up and to the right is better.

    Args:
        rates: a row each: ``throughput_hz``, ``accuracy_val``, ``codec``, ``split_point``, the ``value`` that was
            minimised, and whether it is on the Pareto front of value and accuracy (``is_front``) and was chosen
            (``is_best``).
        baselines: a row each (``name``: ``baseline``, ``edge_only``, ``server_only``), with the first two columns.
        accuracy_ref: A_ref, the accuracy of the unsplit network.
        epsilon: ε.
        subtitle: task, model, link, machines.
    """
    figure, ax = constrained_axes(accuracy_ref, epsilon, subtitle)
    figure.data = pd.concat([rates.assign(kind="rate"), baselines.assign(kind="baseline")])
    low = accuracy_ref - max(_SHOWN * epsilon, 0.1)
    shown = rates[(rates["accuracy_val"] >= low) | rates["is_best"]]
    names = shown["codec"].str.split(" ").str[0]  # drops settings: "topk keep_ratio=0.1" becomes "topk"
    shown = shown.assign(family=names.replace(codec_families(names)))
    handles: list[Line2D] = []
    for (family, rows), colour in zip(
        shown.groupby("family", sort=False), style.palette(shown["family"].nunique()), strict=True
    ):
        dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markeredgewidth": 0, "color": colour}
        ax.plot(rows["throughput_hz"], rows["accuracy_val"], markersize=5, alpha=0.75, zorder=3, gid="rate", **dots)
        handles.append(Line2D([], [], markersize=6, label=family, **dots))
    front = shown[shown["is_front"]].sort_values("value")  # the order by value can differ from the order by throughput
    line: dict[str, Any] = {"color": style.INK, "linewidth": 1.0, "alpha": 0.5}
    ax.plot(front["throughput_hz"], front["accuracy_val"], zorder=2, gid="front", **line)
    handles.append(Line2D([], [], label="front of what is minimised", **line))
    for row in baselines.to_dict("records"):
        label, marker = _CUT_BASELINES[row["name"]]
        look: dict[str, Any] = {"marker": marker, "color": style.INK, "markersize": 7, "markerfacecolor": style.PAPER}
        ax.plot(row["throughput_hz"], row["accuracy_val"], zorder=4, gid=row["name"], **look)
        handles.append(Line2D([], [], linestyle="none", label=label, **look))
    handles += [draw_chosen(ax, shown[shown["is_best"]]), *constraint_handles("unsplit", epsilon)]
    num_left = len(rates) - len(shown)
    if num_left:
        handles.append(Line2D([], [], linestyle="none", label=f"{num_left} below {low:.2f} not shown"))
    style.unit_axis(ax, "Hz", [*shown["throughput_hz"], *baselines["throughput_hz"]])
    style.score_axis(ax, [*shown["accuracy_val"], accuracy_ref, accuracy_ref - epsilon])
    legends.outside(ax, handles)
    texts = [f"{row['split_point']} · {row['codec']}" for row in front.to_dict("records")]
    spots, others = (list(zip(rows["throughput_hz"], rows["accuracy_val"], strict=True)) for rows in (front, shown))
    place_labels(ax, spots, texts, others, lines=ax.get_lines(), size=7.5)
    return figure


_TIERS = {"edge": "#0072b2", "server": "#009e73"}
_ROWS = {Branch.D: 2, Branch.K: 1, Branch.I: 0}
_NAMES = {Branch.D: "D  3×3", Branch.K: "K  1×1", Branch.I: "I  identity"}
_LANE = 0.26  # distance of groups that run beside each other


def gamma_map(units: pd.DataFrame, subtitle: str = "", title: str = "How each block runs, and where") -> Figure:
    """One column a unit; a line joins branches folded into one operation; parallel groups stand side by side.

    Args:
        units: a row a unit, in order: ``unit``, ``gamma``, ``tier`` (``edge`` or ``server``, the edge's first) and
            ``branches`` (those that the unit has, as letters: ``DKI``, ``DK``; empty for a unit without branches).
        subtitle: model, link, objective.
        title: title of the figure.
    """
    figure = style.new_figure(max(5.5, 0.42 * len(units) + 2.6), 2.9, title, subtitle)
    figure.data = units
    ax = figure.add_subplot()
    for column, unit in enumerate(units.itertuples()):
        colour = _TIERS[str(unit.tier)]
        ax.axvspan(column - 0.5, column + 0.5, color=colour, alpha=0.09, linewidth=0, gid=str(unit.tier))
        if unit.branches:
            _draw_block(ax, column, int(unit.gamma), str(unit.branches), colour)  # type: ignore[arg-type]
        else:
            ax.plot(column, 1, marker="s", color=colour, markersize=7, markeredgewidth=0, gid="plain")
        label = str(unit.gamma) if unit.branches else "–"
        ax.text(column, 2.62, label, ha="center", va="center", size=8, color=style.INK)
    on_edge = int((units["tier"] == "edge").sum())
    ax.axvline(on_edge - 0.5, color=style.INK, linewidth=1.6, linestyle=(0, (4, 2)), zorder=3, gid="cut")
    ax.set_xlim(-0.75, len(units) - 0.25)
    ax.set_ylim(-0.5, 2.95)
    ax.set_xticks(range(len(units)), labels=list(units["unit"]), rotation=90)
    ax.set_yticks([*_ROWS.values(), 2.62], labels=[*_NAMES.values(), "γ"])
    ax.tick_params(labelsize=8.5, labelcolor=style.INK, length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    legends.outside(ax, _handles(on_edge, bool((units["branches"] == "").any())))
    return figure


def _draw_block(ax: Axes, column: int, gamma: int, branches: str, colour: str) -> None:
    groups = GAMMAS[gamma].groups
    lanes = [column + _LANE * (place - (len(groups) - 1) / 2) for place in range(len(groups))]
    for branch in Branch:
        if branch in branches and branch not in GAMMAS[gamma].branches:
            ax.plot(column, _ROWS[branch], **_dot(style.PAPER, style.FAINT), gid="dropped")
    for lane, group in zip(lanes, groups, strict=True):
        rows = sorted(_ROWS[branch] for branch in group)
        ax.plot([lane, lane], [rows[0], rows[-1]], color=colour, linewidth=2.4, zorder=2, gid="folded")
        for row in rows:
            ax.plot(lane, row, **_dot(colour, colour), gid="runs")


def _dot(face: str, edge: str) -> dict[str, Any]:
    return {"marker": "o", "markersize": 6.5, "markerfacecolor": face, "markeredgecolor": edge, "zorder": 3}


def _handles(on_edge: int, has_plain: bool) -> list[Any]:
    ink = style.MUTED
    alone: dict[str, Any] = {"linestyle": "none"}
    handles: list[Any] = [Patch(color=colour, label=f"on the {tier}") for tier, colour in _TIERS.items()]
    handles += [
        Line2D([], [], color=style.INK, linewidth=1.6, linestyle=(0, (4, 2)), label=f"cut, λ = {on_edge}"),
        Line2D([], [], color=ink, linewidth=2.4, marker="o", markersize=6.5, label="folded into one"),
        Line2D([], [], label="runs by itself", **alone, **_dot(ink, ink)),
        Line2D([], [], label="dropped", **alone, **_dot(style.PAPER, style.FAINT)),
    ]
    if has_plain:
        handles.append(Line2D([], [], **alone, marker="s", color=ink, markersize=7, label="has no branches"))
    return handles


_ABSENT = "#eef0f3"
_MAX_NUMBERED = 30  # most units whose numbers fit their cells


def hyper_weights(branches: pd.DataFrame, subtitle: str = "") -> Figure:
    """α of every branch: one column a unit, one row a branch; a branch that a unit does not have is grey.

    Args:
        branches: a row for each unit and branch: ``unit``, ``branch`` (D, K or I) and ``alpha``; units in order.
        subtitle: what was trained.
    """
    low, high = float(branches["alpha"].min()), float(branches["alpha"].max())
    extent = max(-low, high, 1e-12)
    norm, colours = (Normalize(-extent, extent), "RdBu") if low < 0 else (Normalize(0.0, extent), "cividis")
    return _map(branches, "alpha", norm, colours, "Hyper-weights of the branches", "α", subtitle)


def branch_importance(branches: pd.DataFrame, subtitle: str = "") -> Figure:
    """Importance ``|α| / (FLOPs / 1e9)`` of every branch, colours on a logarithmic scale: identities cost little.

    Args:
        branches: a row for each unit and branch: ``unit``, ``branch`` (D, K or I) and ``importance``; units in order.
                A branch of importance 0, and a branch that a unit does not have, is grey.
        subtitle: what was trained.
    """
    positive = branches["importance"][branches["importance"] > 0]
    low, high = (float(positive.min()), float(positive.max())) if len(positive) else (1.0, 1.0)
    norm = LogNorm(low, max(high, low * 1.0001))
    return _map(branches, "importance", norm, "cividis", "Importance of the branches", "|α| per GFLOP", subtitle)


def _map(
    branches: pd.DataFrame, value: str, norm: Normalize, colours: str, title: str, label: str, subtitle: str
) -> Figure:
    units = list(dict.fromkeys(branches["unit"]))
    grid = branches.pivot(index="branch", columns="unit", values=value).reindex(index=list(Branch), columns=units)
    values = np.ma.masked_invalid(grid.to_numpy(dtype=float))
    if isinstance(norm, LogNorm):
        values = np.ma.masked_less_equal(values, 0)
    figure = style.new_figure(max(5.0, 0.42 * len(units) + 2.2), 2.5, title, subtitle)
    ax = figure.add_subplot()
    ramp = colormaps[colours].with_extremes(bad=_ABSENT)
    shown = ax.imshow(values, cmap=ramp, norm=norm, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(units)), labels=units, rotation=90)
    ax.set_yticks(range(len(Branch)), labels=[_NAMES[branch] for branch in Branch])
    ax.set_xticks(np.arange(0.5, len(units) - 1), minor=True)
    ax.set_yticks(np.arange(0.5, len(Branch) - 1), minor=True)
    ax.grid(which="minor", color=style.PAPER, linewidth=1.5)
    ax.tick_params(which="both", labelsize=8.5, labelcolor=style.INK, length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if len(units) <= _MAX_NUMBERED:
        _write_numbers(ax, values, ramp, norm)
    bar = figure.colorbar(shown, ax=ax, pad=0.01, fraction=0.05)
    bar.set_label(label, size=8.5, color=style.INK)
    bar.ax.tick_params(which="both", labelsize=8, labelcolor=style.INK, length=0)
    bar.outline.set_visible(False)
    return figure


def _write_numbers(ax: Any, values: np.ma.MaskedArray, ramp: Any, norm: Normalize) -> None:
    for (row, column), number in np.ndenumerate(values):
        if np.ma.is_masked(values[row, column]):
            continue
        red, green, blue, _ = ramp(norm(number))
        is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        text = f"{number:.0e}".replace("e+0", "e").replace("e-0", "e-") if number >= 1000 else format_number(number, 2)
        ax.text(column, row, text, ha="center", va="center", size=7, color=style.PAPER if is_dark else style.INK)
