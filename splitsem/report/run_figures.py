"""The figures of one run: where its time goes, how many bytes it sends instead of what, and how it learned."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from splitsem.report import results as rs
from splitsem.report import style
from splitsem.report.units import format_bytes, format_ratio, format_score, format_seconds

_SIZES = {
    "raw_bytes": "raw float32",
    "input_bytes": "input as it is",
    "payload_bytes": "payload",
    "answer_bytes": "answer",
}


_COLUMNS = ["name", "value", "unit"]


def run_breakdown(metrics: Mapping[str, Any]) -> Figure:
    """Latency (its stages) and bytes (raw float32, input, payload, answer) of one job.

    Args:
        metrics: the metrics of one run, as in metrics.json; absent metrics are dashes.
    """
    frame = rs.prepare(pd.DataFrame([{"status": "ok", **metrics}]))
    row = frame.iloc[0]
    half = "" if pd.isna(row["score_ci95"]) else f" ± {row['score_ci95']:.4f}"
    title = f"Cut at {row['split_point']}: {rs.score_name(frame)} {format_score(row['score'])}{half}"
    figure = style.new_figure(7.2, 2.6, title, rs.about(frame), num_side_by_side=2, kept="height")
    known = {"s": rs.stage_times(frame).iloc[0], "B": row[list(_SIZES)]}
    figure.data = pd.DataFrame([(n, v, unit) for unit, of in known.items() for n, v in of.items()], columns=_COLUMNS)
    time_ax, size_ax = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _draw_time(time_ax, row)
    _draw_sizes(size_ax, row)
    return figure


def _draw_time(ax: Axes, row: pd.Series) -> None:
    style.style_axes(ax, "Time for one sample", "", grid="x")
    times = rs.stage_times(row.to_frame().T.infer_objects()).iloc[0].to_numpy(dtype=float)
    lengths = np.nan_to_num(times, posinf=0.0)
    left = 0.0
    for y, (stage, time_s, length) in enumerate(zip(style.STAGES, times, lengths, strict=True)):
        ax.barh(y, length, left=left, height=0.68, **style.stage_look(stage))
        ax.text(left + length, y, f"  {format_seconds(time_s)}", va="center", size=8.5, color=style.INK)
        left += length
    ax.set_yticks(range(len(times)), [label for label, _ in style.STAGES.values()])
    ax.set_ylim(len(times) - 0.4, -0.6)
    ax.set_xlim(0, (left or 1.0) * 1.25)
    style.unit_ticks(ax.xaxis, "s", 4)
    ax.set_title(f"{format_seconds(row['latency_s'])} latency", size=9.5, weight="bold", color=style.INK, loc="left")


def _draw_sizes(ax: Axes, row: pd.Series) -> None:
    style.style_axes(ax, "Bytes for one sample", "", grid="x")
    sizes = row[list(_SIZES)].to_numpy(dtype=float)
    lengths = np.nan_to_num(sizes, posinf=0.0)
    colors = (style.FAINT, style.FAINT, style.STAGES["link_busy_s"][1], style.STAGES["answer"][1])
    ax.barh(range(len(sizes)), lengths, height=0.62, color=colors, linewidth=0)
    for y, (size, length) in enumerate(zip(sizes, lengths, strict=True)):
        ax.text(length, y, f"  {format_bytes(size)}", va="center", size=8.5, color=style.INK)
    ax.set_yticks(range(len(sizes)), list(_SIZES.values()))
    ax.set_ylim(len(sizes) - 0.4, -0.6)
    ax.set_xlim(0, (lengths.max() or 1.0) * 1.32)
    style.unit_ticks(ax.xaxis, "B", 3)
    smaller = (
        f"{format_ratio(row['compression_ratio'])} smaller than float32" if row["payload_bytes"] else "sends nothing"
    )
    ax.set_title(smaller, size=9.5, weight="bold", color=style.INK, loc="left")


def training_curve(history: Sequence[Mapping[str, float]], metrics: Mapping[str, Any]) -> Figure:
    """Training loss and validation score by epoch, side by side.

    Args:
        history: ``train_loss`` and ``val_score`` of each epoch.
        metrics: metrics of the split training, as in metrics.json.
    """
    title = f"Split training at {metrics['split_point']}: score {format_score(metrics['score'])}"
    about = (
        f"{metrics['task']} · {metrics['model']} · {metrics['codec']} up, {metrics['gradient_codec']} down · a step: "
        f"{format_bytes(metrics['uplink_bytes'])} up, {format_bytes(metrics['downlink_bytes'])} down, "
        f"{format_seconds(metrics['step_s'])}"
    )
    figure = style.new_figure(7.2, 2.6, title, about, num_side_by_side=2)
    figure.data = pd.DataFrame(list(history)).rename_axis("epoch").reset_index()
    figure.data["epoch"] += 1
    epochs = range(1, len(history) + 1)
    quantities = {"train_loss": "Training loss", "val_score": "Validation score"}
    for ax, (name, label), color in zip(figure.subplots(1, 2), quantities.items(), style.COLOURS, strict=False):
        style.style_axes(ax, "Epoch", label)
        ax.plot(epochs, [row[name] for row in history], color=color, marker="o", markersize=3.5, linewidth=1.4)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure
