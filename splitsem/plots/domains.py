"""What the domains look like: some pictures of each, a row a domain."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from splitsem.plots import style

_SIDE_IN = 0.82


def domains(
    images_DNCHW: NDArray[np.floating],
    names: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    subtitle: str = "",
) -> Figure:
    """One row a domain, one column a sample.

    Args:
        images_DNCHW: pictures in [0, 1] of D domains, N of each; one or three channels, the first of any others.
        names: of the domains, D.
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
