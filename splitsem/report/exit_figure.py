"""The figure of an early exit: what each threshold does on the validation split, and which one was taken."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from splitsem.report import legends, style
from splitsem.report.units import format_score


def exit_trade_off(
    trade_off: Mapping[str, Sequence[float]], metrics: Mapping[str, Any], max_loss: float | None
) -> Figure:
    """Score and threshold over the share of the validation samples that exit; the dot is the threshold taken.

    The band is the paired 95 % interval of the score's difference to that without an exit. Where the threshold was
    chosen by ``exit.max_loss``, a dashed line is the least score that this allows: the lower edge of the band counts.

    Args:
        trade_off: ``threshold``, ``share``, ``score`` and ``loss_ci95`` of each place, from the threshold 1 to 0.
        metrics: the metrics of the run, as in metrics.json.
        max_loss: score that the exit was allowed to lose, half the interval included; None: the threshold was given.
    """
    share = 100 * metrics["exit_share_val"]
    title = f"Early exit at {metrics['split_point']}: {share:.1f} % exit"
    about = (
        f"{metrics['task']} · {metrics['model']} · {metrics['codec']} · "
        f"{metrics['num_val_samples']} validation samples; on "
        f"test {100 * metrics['exit_share']:.1f} % exit, score {format_score(metrics['score'])}"
    )
    figure = style.new_figure(7.2, 2.6, title, about, num_side_by_side=2, kept="height")
    figure.data = pd.DataFrame(dict(trade_off))
    score_ax, threshold_ax = figure.subplots(1, 2)
    places, scores = 100 * figure.data["share"], figure.data["score"]
    below, above = style.interval_bars(scores, figure.data["loss_ci95"])
    band = score_ax.fill_between(
        places, scores - below, scores + above, step="post", color=style.COLOURS[0], alpha=0.18, linewidth=0
    )
    band.set_label("its paired 95 % interval")
    without = trade_off["score"][0]
    how = "given" if max_loss is None else "chosen: the lowest threshold that keeps this"
    handles = _draw(score_ax, places, scores, "Score on validation", (share, without - metrics["exit_loss_val"]), how)
    handles.insert(1, band)
    handles.insert(2, score_ax.axhline(without, color=style.FAINT, linewidth=1.1, zorder=1, label="without exit"))
    if max_loss is not None:
        look: dict[str, Any] = {"color": style.INK, "linewidth": 1.1, "linestyle": "--", "zorder": 1}
        label = f"least score allowed by exit.max_loss={max_loss:g}, half the paired interval included"
        handles.insert(3, score_ax.axhline(without - max_loss, label=label, **look))
    style.score_axis(score_ax, [*(scores - below), *(scores + above), without, without - (max_loss or 0.0)])
    _draw(threshold_ax, places, figure.data["threshold"], "Threshold", (share, metrics["exit_threshold"]), how)
    style.score_axis(threshold_ax, [0.0, 1.0])
    legends.below(figure, handles)
    return figure


def _draw(
    ax: Axes, places: pd.Series, values: pd.Series, label: str, taken: tuple[float, float], how: str
) -> list[Any]:
    """Draw the steps, and the dot of the threshold that was taken; returns both."""
    style.style_axes(ax, "Samples that exit (%)", label)
    steps = ax.step(places, values, where="post", color=style.COLOURS[0], linewidth=1.4, label="with exit")
    dot = ax.plot(*taken, marker="o", markersize=6, color=style.COLOURS[1], linestyle="", zorder=3, label=how)
    ax.set_xlim(-2, 102)
    return [*steps, *dot]
