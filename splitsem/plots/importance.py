"""Heat maps of what matters in a code: where, for some samples, and in which channel, over the whole batch."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from splitsem.plots import style

_NUM_SAMPLES = 8
_COLOURS = "cividis"


def importance(
    importance_BKHW: NDArray[np.floating], images: NDArray[np.floating] | None = None, what: str = "symbols"
) -> Figure:
    """One column a sample: the picture, and the importance at each position; below, channels by positions, mean.

    Each sample's map is scaled by its own largest value, and so is the mean.

    Args:
        importance_BKHW: importance of each value of the code, 0 or more: samples, channels, height, width.
        images: the samples in [0, 1], ``(B, 1 | 3, height, width)``; None leaves them out.
        what: what the values are, ``symbols`` or ``features``.
    """
    num = min(len(importance_BKHW), _NUM_SAMPLES)
    batch, channels, height, width = importance_BKHW.shape
    subtitle = f"integrated gradients of the task's loss, magnitude; {channels} × {height} × {width} {what}"
    figure = style.new_figure(8.4, 4.2 if images is not None else 3.2, f"Which {what} matter", subtitle)
    rows = [*([1.0] if images is not None else []), 1.0, 1.5]
    grid = figure.add_gridspec(len(rows), num, height_ratios=rows)
    look: dict[str, Any] = {"cmap": _COLOURS, "vmin": 0.0, "interpolation": "nearest"}
    for column in range(num):
        if images is not None:
            ax = figure.add_subplot(grid[0, column])
            picture = images[column].transpose(1, 2, 0)
            ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            _bare(ax, "sample" if column == 0 else "")
        ax = figure.add_subplot(grid[len(rows) - 2, column])
        places = importance_BKHW[column].sum(0)
        ax.imshow(places, vmax=max(float(places.max()), 1e-12), **look)
        _bare(ax, "positions" if column == 0 else "")
    mean = importance_BKHW.mean(0).reshape(channels, -1)
    ax = figure.add_subplot(grid[-1, :])
    shown = ax.imshow(mean / max(float(mean.max()), 1e-12), vmax=1.0, aspect="auto", **look)
    ax.set_xlabel("position, row by row", size=9.5, color=style.INK)
    ax.set_ylabel("channel", size=9.5, color=style.INK)
    ax.tick_params(labelsize=8.5, labelcolor=style.INK, length=0)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(8, integer=True))
    bar = figure.colorbar(shown, ax=ax, pad=0.01)
    bar.set_label(f"mean of {batch} samples\n(share of the largest)", size=8.5, color=style.INK)
    bar.ax.tick_params(labelsize=8.5, labelcolor=style.INK, length=0)
    bar.outline.set_visible(False)
    return figure


def _bare(ax: Any, label: str) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_ylabel(label, size=8.5, color=style.INK)
    for spine in ax.spines.values():
        spine.set_visible(False)
