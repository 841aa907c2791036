"""The figure of a run that adapts: the link, the setting of each frame, and its latency, over time."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from splitsem.report import legends, style
from splitsem.report.units import format_seconds

_LOST, _MINE, _TRUE = "#d55e00", "#0072b2", "#4d4d4d"
_MOST_NAMES = 10


def adaptation(
    frames: pd.DataFrame,
    about: str,
    true_rate: tuple[np.ndarray, np.ndarray] | None = None,
    others: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Bandwidth, setting and latency over the frames of a run.

    Args:
        frames: a row a frame, as in ``frames.csv``: ``taken_s``, ``setting``, ``latency_s``, ``payload_bytes``,
            ``is_lost`` and ``bandwidth_bps`` with ``bandwidth_low_bps`` and ``bandwidth_high_bps``.
        about: the subtitle's beginning.
        true_rate: of a simulated run, seconds and bits per second.
        others: of a simulated run, the latency of each frame by whom it is compared with.
    """
    num_switches = int((frames["setting"] != frames["setting"].shift()).sum()) - 1
    title = f"{num_switches} switches over {len(frames)} frames"
    means = {"this run": frames["latency_s"].mean(), **{name: run.mean() for name, run in (others or {}).items()}}
    told = ", ".join(f"{name} {format_seconds(mean)}" for name, mean in means.items())
    figure = style.new_figure(9.5, 6.2, title, f"{about}. Mean latency: {told}.")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1.1, 1.2])
    _draw_link(axes[0], frames, true_rate)
    _draw_settings(axes[1], frames)
    _draw_latency(axes[2], frames, others or {})
    axes[2].set_xlabel("Time of the frame (s)", size=9.5, color=style.INK, labelpad=6)
    return figure


def _draw_link(ax: Axes, frames: pd.DataFrame, true_rate: tuple[np.ndarray, np.ndarray] | None) -> None:
    style.style_axes(ax, "", "Bandwidth (Mbit/s)")
    time_s, mbps = frames["taken_s"], frames["bandwidth_bps"] / 1e6
    low, high = frames["bandwidth_low_bps"] / 1e6, frames["bandwidth_high_bps"] / 1e6
    ax.fill_between(time_s, low, np.minimum(high, 10 * mbps), color=_MINE, alpha=0.18, linewidth=0, step="post")
    handles: list[Line2D | Patch] = [
        *ax.step(time_s, mbps, color=_MINE, linewidth=1.3, where="post", label="estimated"),
        Patch(color=_MINE, alpha=0.18, label="its 95 % interval"),
    ]
    if true_rate is not None:
        at_s, rate_bps = true_rate
        seen = np.where(rate_bps > 0, rate_bps / 1e6, np.nan)
        handles += ax.step(at_s, seen, color=_TRUE, linewidth=0.9, where="post", label="true")
        down = rate_bps == 0
        if down.any():
            ax.fill_between(
                at_s, 0, 1, where=down, transform=ax.get_xaxis_transform(), color=_LOST, alpha=0.15, linewidth=0
            )
            handles.append(Patch(color=_LOST, alpha=0.15, label="outage"))
    _log_axis(ax, lambda value: f"{value:g}")
    ax.set_ylim(max(float(mbps.min()) / 2, 1e-3), 2 * float(mbps.max()))
    legends.outside(ax, handles)


def _draw_settings(ax: Axes, frames: pd.DataFrame) -> None:
    """A lane for each setting, those that send most above; settings that had few frames share one."""
    style.style_axes(ax, "", "")
    counts = frames["setting"].value_counts()
    own = set(counts.head(_MOST_NAMES).index)
    shown = frames["setting"].where(frames["setting"].isin(own), "others")
    lanes = frames["payload_bytes"].groupby(shown).mean().sort_values().index.tolist()
    place = shown.map({name: lane for lane, name in enumerate(lanes)}).to_numpy()
    time_s = frames["taken_s"].to_numpy()
    ax.step(time_s, place, color=style.FAINT, linewidth=0.7, where="post", zorder=1)
    ax.scatter(time_s, place, s=7, color=_MINE, linewidth=0, zorder=2)
    ax.set_yticks(range(len(lanes)), lanes)
    ax.set_ylim(-0.6, len(lanes) - 0.4)
    dot = Line2D([], [], color=_MINE, marker="o", linestyle="", markersize=4, label="a frame's setting")
    legends.outside(ax, [dot])


def _draw_latency(ax: Axes, frames: pd.DataFrame, others: Mapping[str, np.ndarray]) -> None:
    style.style_axes(ax, "", "Latency")
    time_s, latency_s = frames["taken_s"], frames["latency_s"]
    handles = []
    for (name, run), color in zip(others.items(), style.COLOURS[2:], strict=False):
        handles += ax.plot(time_s, run, color=color, linewidth=0.8, alpha=0.8, label=name)
    handles += ax.plot(time_s, latency_s, color=_MINE, linewidth=1.1, label="this run")
    lost = frames["is_lost"].astype(bool)
    if lost.any():
        mark = ax.scatter(time_s[lost], latency_s[lost], s=26, marker="x", color=_LOST, linewidth=1.2, zorder=3)
        mark.set_label("finished on the edge")
        handles.append(mark)  # type: ignore[arg-type]
    _log_axis(ax, format_seconds)
    legends.outside(ax, handles)


def _log_axis(ax: Axes, words: Callable[[float], str]) -> None:
    """A logarithmic y axis with two ticks at least: 1, 2, 5 a decade where a decade or less is seen."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 30 * low else (1.0,), numticks=12))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))
    ax.yaxis.set_minor_locator(NullLocator())
