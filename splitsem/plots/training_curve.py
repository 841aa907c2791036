"""The course of one training: loss and validation score after each epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from splitsem.plots import style
from splitsem.plots.units import format_bytes, format_score, format_seconds


def training_curve(history: Sequence[Mapping[str, float]], metrics: Mapping[str, Any]) -> Figure:
    """Training loss and validation score by epoch, side by side.

    Args:
        history: ``train_loss`` and ``val_score`` of each epoch.
        metrics: of the split training, as in metrics.json.
    """
    title = f"Split training at {metrics['split_point']}: score {format_score(metrics['score'])}"
    about = (
        f"{metrics['task']} · {metrics['model']} · {metrics['codec']} up, {metrics['gradient_codec']} down · a step: "
        f"{format_bytes(metrics['uplink_bytes'])} up, {format_bytes(metrics['downlink_bytes'])} down, "
        f"{format_seconds(metrics['step_s'])}"
    )
    figure = style.new_figure(7.2, 2.6, title, about)
    epochs = range(1, len(history) + 1)
    quantities = {"train_loss": "Training loss", "val_score": "Validation score"}
    for ax, (name, label), color in zip(figure.subplots(1, 2), quantities.items(), style.COLOURS, strict=False):
        style.style_axes(ax, "Epoch", label)
        ax.plot(epochs, [row[name] for row in history], color=color, marker="o", markersize=3.5, linewidth=1.4)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure
