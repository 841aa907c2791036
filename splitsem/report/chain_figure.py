"""The figure of a chain of machines: where the time of one sample goes, for the choice and what it is compared with."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from splitsem.report import legends, style


def chain_stages(stages: pd.DataFrame, subtitle: str = "") -> Figure:
    """A stacked bar for each plan: machines in colour, the hops between them grey and hatched; the sum is the latency.

    Args:
        stages: a row for each stage, in order: ``plan``, ``stage``, ``kind`` (``machine`` or ``link``), ``seconds``.
        subtitle: task, model, links.
    """
    plans = list(dict.fromkeys(stages["plan"]))
    figure = style.new_figure(8.4, 1.6 + 0.34 * len(plans), "Where the time of a chain goes", subtitle)
    ax = figure.add_subplot()
    style.style_axes(ax, "Latency of one sample", "", grid="x")
    names = list(dict.fromkeys(stages["stage"]))
    is_link = dict(zip(stages["stage"], stages["kind"] == "link", strict=True))
    machines = [name for name in names if not is_link[name]]
    colours = dict(zip(machines, style.palette(len(machines)), strict=True))
    looks = {
        name: {"facecolor": style.FAINT, "edgecolor": style.PAPER, "hatch": "////", "linewidth": 0}
        if is_link[name]
        else {"facecolor": colours[name], "linewidth": 0}
        for name in names
    }
    for place, plan in enumerate(plans):
        left = 0.0
        for row in stages[stages["plan"] == plan].itertuples():
            ax.barh(place, float(row.seconds), left=left, height=0.7, **looks[str(row.stage)])
            left += float(row.seconds)
    ax.set_yticks(range(len(plans)), plans)
    ax.set_ylim(len(plans) - 0.4, -0.6)
    style.unit_ticks(ax.xaxis, "s")
    link = Patch(label="links", facecolor=style.FAINT, edgecolor=style.PAPER, hatch="////", linewidth=0)
    legends.outside(ax, [*(Patch(label=name, **looks[name]) for name in machines), link])
    figure.data = stages
    return figure
