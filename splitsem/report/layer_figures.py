"""The figure of a profile's layers: how long each takes, in the order of the network."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from splitsem.report import legends, style

_MOST = 60  # bars; further ones would not be read
_OTHER = "other"
_MOST_KINDS = 7


def layer_bars(table: pd.DataFrame, subtitle: str = "") -> Figure:
    """A bar for each layer, its colour the kind of operation, a line from the lower to the upper end of its interval.

    Of a network with more than 60 layers, those that take the longest are drawn, in the order of the network.

    Args:
        table: a row for each layer: ``layer``, ``kind``, ``median_s``, ``low_s``, ``high_s``.
        subtitle: machine, network, threads.
    """
    rows = table.loc[table["median_s"].nlargest(_MOST).index].sort_index()
    share = rows["median_s"].sum() / table["median_s"].sum() if len(table) else 1.0
    left_out = f"; the {len(rows)} longest of {len(table)} layers, {share:.0%} of the time" if share < 1 else ""
    figure = style.new_figure(9.6, 1.4 + 0.2 * max(len(rows), 4), "Time of each layer", f"{subtitle}{left_out}")
    ax = figure.add_subplot()
    style.style_axes(ax, "Milliseconds for one sample", "", grid="x")
    if rows.empty:
        style.empty(ax, "no layer was measured")
        return figure
    longest = table.groupby("kind")["median_s"].sum().nlargest(_MOST_KINDS).index
    kinds = [kind if kind in longest else _OTHER for kind in rows["kind"]]
    names = [*dict.fromkeys(kind for kind in kinds if kind != _OTHER), _OTHER]
    colours = dict(zip(names, style.palette(len(names)), strict=False))
    places = range(len(rows))
    ax.barh(places, 1e3 * rows["median_s"], color=[colours[kind] for kind in kinds], height=0.78)
    ax.hlines(places, 1e3 * rows["low_s"], 1e3 * rows["high_s"], color=style.INK, linewidth=1)
    ax.set_yticks(places, rows["layer"], size=7)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    handles = [Patch(color=colour, label=kind) for kind, colour in colours.items() if kind in kinds]
    legends.outside(ax, handles, "operation")
    return figure
