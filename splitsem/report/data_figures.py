"""Figures of a task's data: how many samples of each class a client holds, and what its domains look like."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from splitsem.report import style

_MAX_NAMES = 40  # most class names that fit one below the other
_MAX_NUMBERS = 20  # most clients whose numbers fit side by side
_FULL_BAR = 0.86  # share of a row's height


def partition(
    counts: NDArray[np.integer],
    class_names: Sequence[str],
    subtitle: str = "",
    holder: str = "client",
    kinds: str = "classes",
) -> Figure:
    """Clients from left to right, a row of bars for each class, all on one scale; above, the clients' totals.

    Args:
        counts: samples, shape ``(clients, classes)``.
        class_names: a name for each class.
        subtitle: how the samples were divided.
        holder: what holds samples, ``client`` or ``domain``.
        kinds: what the rows are, ``classes`` or ``domains``.
    """
    num_clients, num_classes = counts.shape
    tallest = max(int(counts.max()), 1)
    column_in = float(np.clip(9.0 / num_clients, 0.06, 0.5))
    row_in = float(np.clip(5.0 / num_classes, 0.07, 0.32))
    title = f"Who has what: {int(counts.sum()):,} samples, {num_clients} {holder}s, {num_classes} {kinds}"
    scale = f"tallest bar: {tallest:,} samples"
    size_in = (max(num_clients * column_in + 1.9, 5.4), num_classes * row_in + 1.6)
    figure = style.new_figure(*size_in, title, " · ".join(filter(None, (subtitle, scale))), kept="height")
    names = [str(name) for name in class_names]
    figure.data = pd.DataFrame(counts, columns=names).rename_axis(holder).reset_index()
    top, main = figure.subplots(2, 1, sharex=True, height_ratios=[0.8, max(num_classes * row_in, 0.8)])

    style.style_axes(top, "", "Samples", grid="y")
    top.bar(range(num_clients), counts.sum(1), width=0.8, color=style.FAINT)
    top.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    top.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    top.tick_params(labelbottom=False)

    style.style_axes(main, holder.capitalize(), "", grid="x")
    client, label = np.nonzero(counts)
    height = _FULL_BAR * counts[client, label] / tallest
    main.bar(client, -height, width=0.8, bottom=label + 0.5, color=style.COLOURS[0])  # y is inverted: −height is up
    if num_classes <= _MAX_NAMES:
        main.hlines(np.arange(num_classes) + 0.5, -0.6, num_clients - 0.4, color=style.GRID, linewidth=0.8, zorder=0)
    main.set_ylim(num_classes - 0.5, -0.5)
    main.set_xlim(-0.6, num_clients - 0.4)
    main.set_xticks(range(0, num_clients, -(-num_clients // _MAX_NUMBERS)))
    named = range(0, num_classes, -(-num_classes // _MAX_NAMES))
    main.set_yticks(named, [str(class_names[i])[:24] for i in named])
    main.tick_params(axis="y", labelsize=8.5 if num_classes <= 15 else 6.5)
    return figure


_SIDE_IN = 0.82


def domains(
    images_DNCHW: NDArray[np.floating],
    names: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    subtitle: str = "",
) -> Figure:
    """One row a domain, one column a sample.

    Args:
        images_DNCHW: N pictures in [0, 1] of each of D domains; only the first channel is drawn unless there are 3.
        names: names of the D domains.
        captions: below each picture, D lists of N, such as its class; None for none.
        subtitle: what was run.
    """
    num_domains, num = images_DNCHW.shape[:2]
    title = "What the domains look like" if num_domains > 1 else "What the domain looks like"
    row_in = _SIDE_IN + (0.08 if captions else 0.0)
    figure = style.new_figure(max(num * _SIDE_IN + 2.4, 4.0), num_domains * row_in, title, subtitle)
    axes = figure.subplots(num_domains, num, squeeze=False)
    for domain, row in enumerate(axes):
        for sample, ax in enumerate(row):
            picture = images_DNCHW[domain, sample].transpose(1, 2, 0)
            shown = picture if picture.shape[-1] == 3 else picture[..., 0]
            ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
            if captions:
                ax.set_xlabel(captions[domain][sample][:14], size=6.5, color=style.MUTED, labelpad=2)
        row[0].set_ylabel(
            f"{domain} · {names[domain]}",
            size=8.5,
            color=style.INK,
            rotation=0,
            ha="right",
            va="center",
            labelpad=8,
        )
    return figure
