"""γ map: which branches of each unit run, folded or beside each other, on which machine, and where the cut is."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from splitsem.models.branches import GAMMAS, Branch
from splitsem.plots import style

_TIERS = {"edge": "#0072b2", "server": "#009e73"}
_ROWS = {Branch.D: 2, Branch.K: 1, Branch.I: 0}
_NAMES = {Branch.D: "D  3×3", Branch.K: "K  1×1", Branch.I: "I  identity"}
_LANE = 0.26  # between groups that run beside each other


def gamma_map(units: pd.DataFrame, subtitle: str = "", title: str = "How each block runs, and where") -> Figure:
    """One column a unit; branches folded into one operation are joined by a line, groups beside each other stand so.

    Args:
        units: a row a unit, in order: ``unit``, ``gamma``, ``tier`` (``edge`` or ``server``, the edge's first) and
            ``branches`` (those that the unit has, as letters: ``DKI``, ``DK``; empty for a unit without branches).
        subtitle: model, link, objective.
        title: instead of the usual one.
    """
    figure = style.new_figure(max(5.5, 0.42 * len(units) + 2.6), 2.9, title, subtitle)
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
    style.legend_outside(ax, _handles(on_edge, bool((units["branches"] == "").any())))
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
