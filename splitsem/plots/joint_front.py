"""Accuracy against throughput of a joint optimisation: the predicted front, what was scored, baselines, the choice."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from splitsem.plots import style

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
        scored: deployed and scored networks, the chosen one where ``is_best``: the same columns.
        baselines: a row each for ``all_parallel``, ``all_fused`` and ``fastest`` (``name``), and the same columns.
        accuracy_ref: A_ref, of all branches.
        epsilon: ε.
        subtitle: task, model, link, split of the data.
    """
    figure, ax = constrained_axes(accuracy_ref, epsilon, subtitle)
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
    style.legend_outside(ax, handles)
    return figure


def constrained_axes(accuracy_ref: float, epsilon: float, subtitle: str) -> tuple[Figure, Axes]:
    """An empty figure of accuracy against throughput; what lies more than ε below A_ref is grey."""
    figure = style.new_figure(8.4, 4.4, "Accuracy against throughput of the joint optimum", subtitle)
    ax = figure.add_subplot()
    style.style_axes(ax, "Throughput (samples per second, Hz)", "Accuracy on the validation split (0 to 1)")
    ax.axhspan(-1, accuracy_ref - epsilon, color=style.GRID, alpha=0.45, zorder=0, gid="forbidden")
    ax.axhline(accuracy_ref, color=style.MUTED, linestyle=(0, (5, 3)), linewidth=1.1, zorder=1, gid="reference")
    return figure, ax


def constraint_handles(reference: str, epsilon: float) -> list[Line2D]:
    """What ``constrained_axes`` drew, for the legend; ``reference`` says whose accuracy A_ref is."""
    return [
        Line2D([], [], color=style.MUTED, linestyle=(0, (5, 3)), label=f"{reference}, A_ref"),
        Line2D([], [], color=style.GRID, linewidth=7, label=f"more than ε = {100 * epsilon:g} points below"),
    ]


def draw_chosen(ax: Axes, best: pd.DataFrame) -> Line2D:
    """A ring around what was chosen; returns its entry in the legend."""
    ring: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": style.INK}
    ax.plot(best["throughput_hz"], best["accuracy_val"], linestyle="none", zorder=5, gid="best", **ring)
    return Line2D(
        [], [], linestyle="none", marker="o", markerfacecolor="none", color=style.INK, markersize=10, label="chosen"
    )


def _floor(scored: pd.DataFrame, baselines: pd.DataFrame, accuracy_ref: float, epsilon: float) -> float:
    """Below what was really scored the front goes down to guesses that nobody wants to see."""
    return min(scored["accuracy_val"].min(), baselines["accuracy_val"].min(), accuracy_ref - 2 * epsilon) - 0.01
