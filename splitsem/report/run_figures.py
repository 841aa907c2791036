"""Figures of single runs and of where a sweep's time goes: edge, link and server; bytes; a training's curve."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from splitsem.report import results as rs
from splitsem.report import style
from splitsem.report.units import format_bytes, format_ratio, format_score, format_seconds

_MAX_FACETS, _MAX_COLUMNS = 6, 3
_MAX_SPREAD = 3.0  # most ratio of the panels' longest bars on one time axis
_XLABEL, _YLABEL = "Latency of one sample (s, ms, µs)", "Split point, in network order"
_ROW_IN = 0.21  # height of one bar with its gap


def latency_breakdown(results: pd.DataFrame) -> Figure:
    """Stacked horizontal bars of ``edge_s``, ``link_s`` and ``server_s``, from the input down to the output.

    Up to six series (codecs, links, …) get a panel each, on one time axis unless the series differ too much to be
    readable. For more series, only the fastest at each split point is drawn and named. The height grows with the
    number of points. Each bar ends with its sum; the smallest sum of all cuts is bold.

    Args:
        results: one row a job, as in results.csv; failed jobs are left out.
    """
    frame = rs.prepare(results)
    times = frame[list(style.STAGES)]
    whole = np.isfinite(times.to_numpy()).all(axis=1)
    shown = frame.assign(latency_s=times.sum(axis=1))[frame["is_ok"].to_numpy() & whole]
    split, reference = rs.splits(shown), rs.references(shown)
    names = list(split["series"].unique())
    best_only = len(names) > _MAX_FACETS
    if best_only:
        fastest = split.loc[split.groupby("split_point", sort=False)["latency_s"].idxmin()]
        panels = {"": fastest.sort_values("split_index", kind="stable")}
    else:
        panels = {name: split[split["series"] == name] for name in names} or {"": split}
    rows = _row_names(split, reference)
    num_columns = min(len(panels), _MAX_COLUMNS)
    num_rows = -(-len(panels) // num_columns)
    figure = style.new_figure(
        8.4 if len(panels) == 1 else 2.4 + 2.4 * num_columns,
        max((0.8 + _ROW_IN * len(rows)) * num_rows + 0.3, 2.2),
        "Where the time goes" + (", fastest setting per split point" if best_only else ""),
        rs.describe(frame),
    )
    grid = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
    if not rows:
        style.style_axes(grid[0, 0], _XLABEL, _YLABEL, grid="x")
        style.empty(grid[0, 0])
        return figure
    for ax in grid.flat[len(panels) :]:
        ax.remove()
    grid[0, 0].set_yticks(range(len(rows)), rows)
    grid[0, 0].set_ylim(len(rows) - 0.4, -0.6)
    own_scale = _draw_panels(list(grid.flat), panels, reference, rows, name_series=best_only)
    stages = [Patch(color=color, label=label) for label, color in style.STAGES.values()]
    style.legend_outside(grid[0, -1], stages)
    figure.supxlabel(_XLABEL + (": each panel has its own scale" if own_scale else ""), size=9.5, color=style.INK)
    figure.supylabel(_YLABEL, size=9.5, color=style.INK)
    return figure


def _draw_panels(
    axes: list[Axes], panels: dict[str, pd.DataFrame], reference: pd.DataFrame, rows: list[str], *, name_series: bool
) -> bool:
    """Draw one panel a series; returns whether each got its own time axis, because one series dwarfs the others."""
    bars = []
    for panel in panels.values():
        own = rs.references_for(reference, panel) if len(panel) else reference  # an empty panel has only references
        bars.append(pd.concat([own, panel]) if len(own) else panel)
    longest_s = [float(b["latency_s"].max()) for b in bars]
    own_scale = max(longest_s) > _MAX_SPREAD * min(longest_s)
    room = 1.28 if name_series else 1.12 if len(panels) == 1 else 1.36  # leaves space for the sums beside the bars
    for ax, name, panel, panel_s in zip(axes, panels, bars, longest_s, strict=False):
        style.style_axes(ax, "", "", grid="x")
        limit_s = room * (panel_s if own_scale else max(longest_s)) or 1.0
        ax.set_xlim(0, limit_s)
        _draw_bars(ax, panel, rows, limit_s, name_series=name_series)
        ax.xaxis.set_major_locator(MaxNLocator(5 if len(panels) == 1 else 3))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_seconds(value)))
        if len(panels) > 1:
            ax.set_title(name, size=9.5, weight="bold", color=style.INK, loc="left")
    return own_scale


def _row_names(split: pd.DataFrame, reference: pd.DataFrame) -> list[str]:
    points = split.sort_values("split_index", kind="stable")["split_point"].drop_duplicates()
    return [*(f"{name} at input" for name in reference["series"].drop_duplicates()), *points]


def _draw_bars(ax: Axes, bars: pd.DataFrame, rows: list[str], limit_s: float, *, name_series: bool) -> None:
    names = bars["split_point"].where(~bars["is_reference"], bars["series"] + " at input")
    place = {name: i for i, name in enumerate(rows)}
    y = names.map(place).to_numpy(dtype=float)
    # Several jobs can share a place (a swept setting that is no series of its own): draw the fastest.
    bars = bars.assign(y=y).sort_values("latency_s", kind="stable").drop_duplicates("y").sort_values("y")
    left = np.zeros(len(bars))
    for stage, (label, color) in style.STAGES.items():
        ax.barh(bars["y"], bars[stage], left=left, height=0.72, color=color, label=label, linewidth=0)
        left = left + bars[stage].to_numpy()
    own = left[~bars["is_reference"].to_numpy()]
    fastest = own.min() if len(own) else None
    for y_value, total, (_, bar) in zip(bars["y"], left, bars.iterrows(), strict=True):
        is_best = total == fastest
        text = format_seconds(total) + (f" · {bar['series']}" if name_series and not bar["is_reference"] else "")
        ax.text(
            total + 0.01 * limit_s,
            y_value,
            text,
            va="center",
            size=7.5,
            color=style.INK if is_best else style.MUTED,
            weight="bold" if is_best else "normal",
        )


_SIZES = {"raw_bytes": "raw float32", "input_bytes": "input as it is", "payload_bytes": "payload"}


def run_breakdown(metrics: Mapping[str, Any]) -> Figure:
    """Latency (edge, link, server) and bytes (raw float32, input, payload) of one job.

    Args:
        metrics: the metrics of one run, as in metrics.json; absent metrics are dashes.
    """
    frame = rs.prepare(pd.DataFrame([{"status": "ok", **metrics}]))
    row = frame.iloc[0]
    title = f"Cut at {row['split_point']}: score {format_score(row['score'])}"
    figure = style.new_figure(7.2, 2.3, title, rs.describe(frame))
    time_ax, size_ax = figure.subplots(1, 2, width_ratios=[1.25, 1])
    _draw_time(time_ax, row)
    _draw_sizes(size_ax, row)
    return figure


def _draw_time(ax: Axes, row: pd.Series) -> None:
    style.style_axes(ax, "Time for one sample (s, ms, µs)", "", grid="x")
    times = row[list(style.STAGES)].to_numpy(dtype=float)
    lengths = np.nan_to_num(times, posinf=0.0)
    left = 0.0
    handles = []
    for y, ((label, color), time_s, length) in enumerate(zip(style.STAGES.values(), times, lengths, strict=True)):
        ax.barh(y, length, left=left, height=0.62, color=color, linewidth=0)
        ax.text(left + length, y, f"  {format_seconds(time_s)}", va="center", size=8.5, color=style.INK)
        left += length
        handles.append(Patch(color=color, label=label))
    ax.set_yticks(range(3), [str(handle.get_label()) for handle in handles])
    ax.set_ylim(2.6, -0.6)
    ax.set_xlim(0, (left or 1.0) * 1.25)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_seconds(value)))
    ax.set_title(f"{format_seconds(row['latency_s'])} latency", size=9.5, weight="bold", color=style.INK, loc="left")


def _draw_sizes(ax: Axes, row: pd.Series) -> None:
    style.style_axes(ax, "Bytes for one sample", "", grid="x")
    sizes = row[list(_SIZES)].to_numpy(dtype=float)
    lengths = np.nan_to_num(sizes, posinf=0.0)
    colors = (style.FAINT, style.FAINT, style.STAGES["link_s"][1])
    ax.barh(range(3), lengths, height=0.62, color=colors, linewidth=0)
    for y, (size, length) in enumerate(zip(sizes, lengths, strict=True)):
        ax.text(length, y, f"  {format_bytes(size)}", va="center", size=8.5, color=style.INK)
    ax.set_yticks(range(3), list(_SIZES.values()))
    ax.set_ylim(2.6, -0.6)
    ax.set_xlim(0, (lengths.max() or 1.0) * 1.32)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_bytes(value)))
    smaller = format_ratio(row["compression_ratio"])
    ax.set_title(f"{smaller} smaller than float32", size=9.5, weight="bold", color=style.INK, loc="left")


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
    figure = style.new_figure(7.2, 2.6, title, about)
    epochs = range(1, len(history) + 1)
    quantities = {"train_loss": "Training loss", "val_score": "Validation score"}
    for ax, (name, label), color in zip(figure.subplots(1, 2), quantities.items(), style.COLOURS, strict=False):
        style.style_axes(ax, "Epoch", label)
        ax.plot(epochs, [row[name] for row in history], color=color, marker="o", markersize=3.5, linewidth=1.4)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return figure
