"""Federated training: score round by round, and score against the bytes that clients have sent."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from splitsem.plots import style
from splitsem.plots.units import format_bytes, format_score, format_seconds


def score_by_round(rows: Sequence[Mapping[str, float]], metrics: Mapping[str, Any]) -> Figure:
    """Training loss and validation score by round, side by side.

    Args:
        rows: one a round, as in the run's history.
        metrics: of the run, as in metrics.json.
    """
    figure = style.new_figure(7.2, 2.6, _title(metrics), _about(metrics))
    rounds = [row["round/number"] for row in rows]
    quantities = {"round/train_loss": "Training loss of the clients", "round/val_score": "Validation score"}
    for ax, (name, label), color in zip(figure.subplots(1, 2), quantities.items(), style.COLOURS, strict=False):
        style.style_axes(ax, "Round", label)
        ax.plot(rounds, [row[name] for row in rows], color=color, marker="o", markersize=3.5, linewidth=1.4)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure


def score_by_uplink(rows: Sequence[Mapping[str, float]], metrics: Mapping[str, Any]) -> Figure:
    """Validation score over all bytes that all clients have sent so far."""
    figure = style.new_figure(5.6, 3.0, _title(metrics), _about(metrics))
    ax = figure.add_subplot()
    style.style_axes(ax, "Sent by all clients together", "Validation score")
    sent = list(accumulate(row["round/total_uplink_bytes"] for row in rows))
    scores = [row["round/val_score"] for row in rows]
    ax.plot(sent, scores, color=style.COLOURS[0], marker="o", markersize=3.5, linewidth=1.4)
    style.unit_axis(ax, "B", sent)
    style.score_axis(ax, scores)
    return figure


def _title(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['strategy']} over {metrics['num_clients']} clients: score {format_score(metrics['score'])}"


def _about(metrics: Mapping[str, Any]) -> str:
    return (
        f"{metrics['task']} · {metrics['model']} · {metrics['partition']} · {metrics['codec']} up, "
        f"{metrics['downlink_codec']} down · a client and round: {format_bytes(metrics['uplink_bytes'])} up "
        f"({metrics['uplink_compression_ratio']:.1f} times fewer), {format_bytes(metrics['downlink_bytes'])} down, "
        f"{format_seconds(metrics['train_s'])} of training"
    )
