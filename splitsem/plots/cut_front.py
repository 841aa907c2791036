"""Accuracy against throughput of all cuts and codecs of a network: the front, the baselines and the choice."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from splitsem.plots import style
from splitsem.plots.joint_front import constrained_axes, constraint_handles, draw_chosen
from splitsem.plots.labels import place_labels
from splitsem.plots.results import codec_families

_CUT_BASELINES = {
    "baseline": ("float32 at its best cut", "D"),
    "edge_only": ("all on the edge", "s"),
    "server_only": ("all on the server", "X"),
}
_SHOWN = 8.0
"""Rows further than so many times ε (and a tenth) below A_ref are left out: they would squeeze all the others."""


def cut_front(
    rates: pd.DataFrame, baselines: pd.DataFrame, accuracy_ref: float, epsilon: float, subtitle: str
) -> Figure:
    """One dot a split point and codec; up and to the right is better.

    Args:
        rates: a row each: ``throughput_hz``, ``accuracy_val``, ``codec``, ``split_point``, the ``value`` that was
            minimised, and whether it is on the Pareto front of value and accuracy (``is_front``) and was chosen
            (``is_best``).
        baselines: a row each (``name``: ``baseline``, ``edge_only``, ``server_only``), and the first two columns.
        accuracy_ref: A_ref, of the network that is not split.
        epsilon: ε.
        subtitle: task, model, link, machines.
    """
    figure, ax = constrained_axes(accuracy_ref, epsilon, subtitle)
    low = accuracy_ref - max(_SHOWN * epsilon, 0.1)
    shown = rates[(rates["accuracy_val"] >= low) | rates["is_best"]]
    names = shown["codec"].str.split(" ").str[0]  # without settings: topk keep_ratio=0.1
    shown = shown.assign(family=names.replace(codec_families(names)))
    handles: list[Line2D] = []
    for (family, rows), colour in zip(
        shown.groupby("family", sort=False), style.palette(shown["family"].nunique()), strict=True
    ):
        dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markeredgewidth": 0, "color": colour}
        ax.plot(rows["throughput_hz"], rows["accuracy_val"], markersize=5, alpha=0.75, zorder=3, gid="rate", **dots)
        handles.append(Line2D([], [], markersize=6, label=family, **dots))
    front = shown[shown["is_front"]].sort_values("value")  # which need not be the order of the throughputs
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
    style.legend_outside(ax, handles)
    texts = [f"{row['split_point']} · {row['codec']}" for row in front.to_dict("records")]
    spots, others = (list(zip(rows["throughput_hz"], rows["accuracy_val"], strict=True)) for rows in (front, shown))
    place_labels(ax, spots, texts, others, lines=ax.get_lines(), size=7.5)
    return figure
