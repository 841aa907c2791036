"""Joint optima of several domains beside each other: what accuracy they keep, and what throughput they gain."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from splitsem.plots import style

_KEPT, _MISSED, _STRONGER = style.COLOURS[0], style.COLOURS[1], style.COLOURS[4]


def domain_gains(
    domains: pd.DataFrame,
    subtitle: str = "",
    weaker: str = "all branches in parallel",
    stronger: str = "all fused",
) -> Figure:
    """Above, accuracy on the test split against A_ref; below, throughput against both baselines.

    Args:
        domains: a row a domain: ``label``, ``accuracy``, ``accuracy_ref``, ``epsilon``, ``feasible``,
            ``gain_over_baseline`` and ``gain_over_stronger`` (0.2 is 20 % more).
        subtitle: model, link, solver.
        weaker: what ``gain_over_baseline`` is over, in words.
        stronger: what ``gain_over_stronger`` is over.
    """
    figure = style.new_figure(max(6.5, 0.62 * len(domains) + 3.4), 4.8, "Joint optima by domain", subtitle)
    if domains.empty:
        style.empty(figure.add_subplot())
        return figure
    above, below = figure.subplots(2, 1, sharex=True)
    x = np.arange(len(domains))
    _accuracies(above, x, domains)
    _gains(below, x, domains, (weaker, stronger))
    below.set_xticks(x, labels=[str(label) for label in domains["label"]])
    if domains["label"].astype(str).str.len().max() > 6:
        below.tick_params(axis="x", labelrotation=90)
    below.set_xlabel("Domain")
    below.set_xlim(-0.6, len(domains) - 0.4)
    return figure


def _accuracies(ax: Axes, x: np.ndarray, domains: pd.DataFrame) -> None:
    style.style_axes(ax, "", "Test accuracy", grid="y")
    reference, limit = domains["accuracy_ref"], domains["accuracy_ref"] - domains["epsilon"]
    whole = ax.hlines(reference, x - 0.32, x + 0.32, color=style.INK, linewidth=1.6, label="whole network, A_ref")
    least = ax.hlines(
        limit, x - 0.32, x + 0.32, color=style.MUTED, linestyle=(0, (2, 2)), linewidth=1.2, label="A_ref − ε"
    )
    handles: list[Any] = [whole, least]
    for is_kept, colour, label in ((True, _KEPT, "joint optimum"), (False, _MISSED, "joint optimum, ε missed")):
        rows = domains["feasible"].astype(bool) == is_kept
        if rows.any():
            look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 7, "label": label}
            handles += ax.plot(x[rows], domains["accuracy"][rows], color=colour, gid="accuracy", **look)
    style.score_axis(ax, [*domains["accuracy"], *reference, *limit])
    style.legend_outside(ax, handles)


def _gains(ax: Axes, x: np.ndarray, domains: pd.DataFrame, baselines: tuple[str, str]) -> None:
    style.style_axes(ax, "", "Throughput gained", grid="y")
    wide = 0.36
    labels = [f"over {textwrap.fill(words, 20)}" for words in baselines]
    over_all = ax.bar(x - wide / 2, domains["gain_over_baseline"], wide, color=_KEPT, label=labels[0])
    over_fused = ax.bar(x + wide / 2, domains["gain_over_stronger"], wide, color=_STRONGER, label=labels[1])
    ax.axhline(0, color=style.FAINT, linewidth=0.8)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.0f} %" if value else "0"))
    style.legend_outside(ax, [over_all, over_fused])
