"""The roofline figure: FLOP/s that units reach on a machine, over their FLOP per byte; one mark a unit and γ."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from splitsem.models.branches import GAMMAS, Branch, Gamma
from splitsem.report import legends, style
from splitsem.report.units import format_number, format_si

_COLOURS = "viridis"
_SHAPES = {"D": "o", "K": "s", "I": "h", "DK": "D", "DI": "^", "KI": "v", "DKI": "P"}
_PLAIN = {"marker": "*", "fillstyle": "full"}
_SIZE = 6.0


def roofline(
    table: pd.DataFrame, peak_flops_per_s: float, memory_bytes_per_s: float, title: str = "", subtitle: str = ""
) -> Figure:
    """Achieved FLOP/s over FLOP per byte, both logarithmic, below the roof (Williams et al., CACM 52(4), 2009).

    A mark's shape says which branches run. A full mark has branches folded into one operation, a light mark has
    branches beside each other. A mark's colour says where in the network the unit is.

    Args:
        table: a row for each unit and γ, as from ``cost.branch_lut.branch_frame``: ``unit``, ``unit_index``,
            ``branches`` (of the unit, empty where it has none), ``gamma``, ``flop_per_byte`` and ``flops_per_s``;
            rows without arithmetic cannot be drawn and are left out.
        peak_flops_per_s: height of the roof's flat part.
        memory_bytes_per_s: slope of the roof's rising part.
        title: title of the figure; empty takes the usual title.
        subtitle: machine, precision, threads.
    """
    knee = peak_flops_per_s / memory_bytes_per_s
    figure = style.new_figure(9.6, 5.6, title or "Roofline: what units reach of what the machine can", subtitle)
    ax = figure.add_subplot()
    style.style_axes(ax, "Arithmetic intensity (FLOP per byte, weights included)", "Achieved arithmetic (FLOP/s)")
    drawn = table[(table["flop_per_byte"] > 0) & (table["flops_per_s"] > 0)]
    drawn = drawn[np.isfinite(drawn["flop_per_byte"]) & np.isfinite(drawn["flops_per_s"])]
    figure.data = drawn
    if drawn.empty:
        style.empty(ax, "no unit has arithmetic and a time")
        return figure
    ax.set(xscale="log", yscale="log")
    _roof(ax, drawn, peak_flops_per_s, memory_bytes_per_s)
    last = max(int(table["unit_index"].max()), 1)
    ramp = colormaps[_COLOURS]
    plain = drawn["branches"] == ""
    groups = [(_look(GAMMAS[int(gamma)]), rows) for gamma, rows in drawn[~plain].groupby("gamma")]
    for look, rows in [*groups, (_PLAIN, drawn[plain])]:
        for row in rows.itertuples():
            own = _coloured(look, ramp(0.95 * row.unit_index / last))
            ax.plot(row.flop_per_byte, row.flops_per_s, **own, gid="way")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_si(value, "FLOP/s", smallest=0)))
    ax.annotate(
        f"knee {format_number(knee)} FLOP/B",
        (knee, ax.get_ylim()[0]),
        (5, 6),
        textcoords="offset points",
        size=8.5,
        color=style.MUTED,
    )
    used = [gamma for gamma in GAMMAS if gamma.index in set(drawn["gamma"][~plain])]
    handles: list[Any] = [
        Line2D([], [], label=f"{gamma.index}: {gamma.label}", **_coloured(_look(gamma), style.INK)) for gamma in used
    ]
    if plain.any():
        handles.append(Line2D([], [], label="has no branches", **_coloured(_PLAIN, style.INK)))
    legends.outside(ax, handles, "γ: + folded, / beside")
    _depth_bar(figure, ax, table, last)
    return figure


def _roof(ax: Axes, drawn: pd.DataFrame, peak_flops_per_s: float, memory_bytes_per_s: float) -> None:
    """Draw the roof's two lines and the knee, and set limits that show the roof and all marks."""
    knee = peak_flops_per_s / memory_bytes_per_s
    low, high = min(drawn["flop_per_byte"].min(), knee) / 2, max(drawn["flop_per_byte"].max(), knee) * 2.5
    x = np.array([low, knee, high])
    y = np.minimum(peak_flops_per_s, x * memory_bytes_per_s)
    ax.plot(x, y, color=style.INK, linewidth=1.6, zorder=1, gid="roof")
    ax.axvline(knee, color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1, gid="knee")
    ax.set_xlim(low, high)
    ax.set_ylim(drawn["flops_per_s"].min() / 2, max(peak_flops_per_s, drawn["flops_per_s"].max()) * 2)
    text: dict[str, Any] = {"textcoords": "offset points", "size": 8.5, "color": style.INK}
    peak = f"{format_si(peak_flops_per_s, 'FLOP/s')} matrix product"
    ax.annotate(peak, (high, peak_flops_per_s), (-4, 4), ha="right", **text)
    start = max(low, ax.get_ylim()[0] / memory_bytes_per_s)
    middle = (start * knee) ** 0.5
    ax.annotate(
        f"{format_si(memory_bytes_per_s, 'B/s')} copy",
        (middle, middle * memory_bytes_per_s),
        (-5, 5),
        ha="right",
        **text,
    )


def _look(gamma: Gamma) -> dict[str, Any]:
    shape = _SHAPES["".join(branch for branch in Branch if branch in gamma.branches)]
    fills = {1: "full", len(gamma.branches): "none"} if len(gamma.branches) > 1 else {1: "full"}
    halves = {10: "left", 11: "right", 12: "bottom"}
    return {"marker": shape, "fillstyle": halves.get(gamma.index) or fills[len(gamma.groups)]}


def _coloured(look: dict[str, Any], colour: Any) -> dict[str, Any]:
    common = {"linestyle": "none", "markersize": _SIZE, "markeredgewidth": 0.9, "markerfacecoloralt": style.PAPER}
    face = style.PAPER if look["fillstyle"] == "none" else colour
    fill = "full" if look["fillstyle"] == "none" else look["fillstyle"]
    return {**common, "marker": look["marker"], "fillstyle": fill, "color": face, "markeredgecolor": colour}


def _depth_bar(figure: Figure, ax: Axes, table: pd.DataFrame, last: int) -> None:
    """Draw the colour bar that says which colour is which unit."""
    ramp = colormaps[_COLOURS].resampled(256)
    mappable = ScalarMappable(Normalize(0, last / 0.95), ramp)
    bar = figure.colorbar(mappable, ax=ax, orientation="horizontal", fraction=0.04, pad=0.02, aspect=60)
    names = table.drop_duplicates("unit_index").set_index("unit_index")["unit"]
    ticks = [t for t in np.unique(np.linspace(0, last, 6).round().astype(int)) if t in names.index]
    bar.set_ticks(ticks, labels=[str(names[t]) for t in ticks])
    bar.ax.set_xlim(0, last)
    bar.set_label("unit, in the order of the network", size=8.5, color=style.INK)
    bar.ax.tick_params(labelsize=8, labelcolor=style.INK, length=0)
    bar.outline.set_visible(False)
