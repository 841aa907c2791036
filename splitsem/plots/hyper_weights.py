"""Heat maps of a network's branches: their hyper-weights α, and how much each matters for what it costs."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from splitsem.models.branches import Branch
from splitsem.plots import style
from splitsem.plots.units import format_number

_NAMES = {Branch.D: "D  3×3", Branch.K: "K  1×1", Branch.I: "I  identity"}
_ABSENT = "#eef0f3"
_MAX_NUMBERED = 30  # units beyond which numbers no longer fit their cells


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
            A branch of importance 0, and one that a unit does not have, is grey.
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
