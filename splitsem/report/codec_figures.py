"""Figures that compare codecs: score over the channel, score over bytes and encoder size, importance maps."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from splitsem.report import legends, style
from splitsem.report import results as rs
from splitsem.report.federated_figures import half_ci95, over_trainings
from splitsem.report.pareto import pareto_front
from splitsem.report.units import format_bytes, worded

_GREYS = ("#1b1f24", "#59636e", "#8a949e", "#b4bcc4")
_DASHES = ((0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)), (0, (1, 1)))


class Look(NamedTuple):
    """Colour, marker and line style of one codec."""

    color: Any
    marker: str
    linestyle: Any


def looks(learned: Mapping[str, bool]) -> dict[str, Look]:
    """A look for each codec, by name; ``learned`` says which codecs have weights.

    Codecs with weights get colours, the others grey dashes. If no codec has weights, all get colours.
    """
    colourful = [name for name, has_weights in learned.items() if has_weights] or list(learned)
    colors = dict(zip(colourful, style.palette(len(colourful)), strict=True))
    grey = [name for name in learned if name not in colors]
    markers = {name: style.MARKERS[i % len(style.MARKERS)] for i, name in enumerate(colourful)}
    made = {name: Look(colors[name], markers[name], "-") for name in colourful}
    for i, name in enumerate(grey):
        made[name] = Look(_GREYS[i % len(_GREYS)], style.MARKERS[i % len(style.MARKERS)], _DASHES[i % len(_DASHES)])
    return {name: made[name] for name in learned}


Axis = Literal["snr_db", "ber"]
_TITLES = {"snr_db": "Eb/N0 on the air (dB)", "ber": "Bit error rate on the air, before correction"}
_SCORE = "Score (0 to 1, higher is better)"


def score_channel(results: pd.DataFrame, x: Axis = "snr_db", subtitle: str = "") -> Figure:
    """Mean score over SNR or bit error rate, one line a codec, with the 95 % interval over seeds (Student's t).

    Args:
        results: one row for each codec, channel setting and seed, with ``codec``, ``score`` and ``x``, as from
                ``workflows.replay.play_all``; rows with the same ``link``, if given, are one point at their mean x.
                With a ``training_seed``, the interval is over the trainings, each the mean of its channel seeds.
                With ``encoder_bytes``, codecs without weights are drawn grey and dashed.
                Or one row a setting with ``score_ci95``, as in results.csv. ``score_clean`` (a codec's score on a clean
                link) is drawn dotted, ``score_unsplit`` dashed.
        x: ``snr_db``, or ``ber`` on a logarithmic axis, without error-free rows.
        subtitle: what was run.

    Returns:
        The figure.
    """
    word = rs.score_name(results)
    figure = style.new_figure(8.4, 4.4, worded("Accuracy over a channel that damages bits", word), subtitle)
    ax = figure.add_subplot()
    style.style_axes(ax, _TITLES[x], worded(_SCORE, word))
    shown = results.dropna(subset=[x, "score"])
    shown = shown[shown["ber"] > 0] if x == "ber" else shown
    if shown.empty:
        style.empty(ax, worded("no row has both a score and this measure of the channel", word))
        return figure
    figure.data = points = curves(shown, x)
    named = looks(_learned(shown))
    colors = {codec: look.color for codec, look in named.items()}
    look: dict[str, Any] = {"markersize": 5.5, "markeredgewidth": 0, "linewidth": 1.5}
    for codec, rows in points.groupby("codec", sort=False):
        ax.plot(rows["x"], rows["score"], **named[str(codec)]._asdict(), **look)
    ax.set(xlabel=_TITLES[x], ylabel=worded(_SCORE, word), xscale="log" if x == "ber" else "linear")
    for codec, rows in points.groupby("codec", sort=False):
        ax.fill_between(rows["x"], rows["low"], rows["high"], color=colors[str(codec)], alpha=0.18, linewidth=0)
    handles: list[Any] = [Line2D([], [], label=codec, **own._asdict(), **look) for codec, own in named.items()]
    if (points["high"] > points["low"]).any():
        handles.append(Patch(color=style.FAINT, alpha=0.4, label=_what_bands_say(shown)))
    handles += _references(ax, shown, colors)
    drawn = [column for column in ("score_clean", "score_unsplit") if column in shown]
    style.score_axis(ax, [*points["low"], *points["high"], *shown[drawn].to_numpy().ravel()])
    legends.outside(ax, handles)
    return figure


def curves(shown: pd.DataFrame, x: Axis) -> pd.DataFrame:
    """A row for each codec and channel setting, by x: ``codec, x, score, low, high`` (ends of the 95 % interval)."""
    rows = []
    for (codec, _), group in shown.groupby(["codec", "link" if "link" in shown else x], sort=False):
        scores = over_trainings(group)
        mean, half = float(scores.mean()), half_ci95(scores)
        if len(group) == 1 and "score_ci95" in group and group["score_ci95"].notna().all():
            half = float(group["score_ci95"].iloc[0])
        low, high = max(mean - half, 0.0), min(mean + half, 1.0)
        rows.append({"codec": str(codec), "x": float(group[x].mean()), "score": mean, "low": low, "high": high})
    return pd.DataFrame(rows).sort_values("x", kind="stable")


def _learned(shown: pd.DataFrame) -> dict[str, bool]:
    """Which codecs have weights; without ``encoder_bytes`` every codec counts as learned."""
    if "encoder_bytes" not in shown:
        return dict.fromkeys(map(str, shown["codec"].unique()), True)
    sizes = shown.groupby(shown["codec"].astype(str), sort=False)["encoder_bytes"].max()
    return {str(codec): size > 0 for codec, size in sizes.items()}


def _what_bands_say(shown: pd.DataFrame) -> str:
    num = shown["training_seed"].nunique() if "training_seed" in shown else 0
    channel = shown["seed"].nunique() if "seed" in shown else 0
    if num > 1:
        each = "" if channel == 1 else f",\neach the mean of {channel} channel seeds"
        return f"95 % interval over {num} trainings{each}"
    if num == 1:
        return f"95 % interval over {channel} channel\nseeds of one training"
    return "95 % interval over seeds"


def _references(ax: Axes, shown: pd.DataFrame, colors: dict[str, Any]) -> list[Line2D]:
    handles = []
    if "score_clean" in shown:
        for codec, score in shown.groupby("codec", sort=False)["score_clean"].mean().items():
            ax.axhline(score, color=colors[str(codec)], linestyle=(0, (1, 2)), linewidth=1.2, zorder=1, gid="clean")
        handles.append(Line2D([], [], color=style.MUTED, linestyle=(0, (1, 2)), linewidth=1.2, label="clean link"))
    if "score_unsplit" in shown:
        look: dict[str, Any] = {"color": style.INK, "linestyle": (0, (5, 3)), "linewidth": 1}
        ax.axhline(shown["score_unsplit"].mean(), zorder=1, gid="unsplit", **look)
        handles.append(Line2D([], [], label="unsplit network", **look))
    return handles


_LINEAR_BYTES = 1000.0  # below which the axis of encoder sizes is linear, so that 0 is on it
_CLEAN_SCORE = "Score over a clean link (0 to 1, higher is better)"


def three_way(results: pd.DataFrame) -> pd.DataFrame:
    """A row for each codec setting and split point, means over the seeds of the training.

    Args:
        results: one row a job, as in results.csv, with ``encoder_bytes``.

    Returns:
        ``codec`` (the series), ``family``, ``split_point``, ``encoder_bytes``, ``payload_bytes``, ``score`` (over a
        clean link, where one was run), ``score_ci95`` (over the trainings; 0 for one), ``score_name``,
        ``score_unsplit``, ``score_over_link`` where measured, ``raw_ratio`` and ``input_ratio`` (float32 feature and
        uint8 sample ÷ payload), ``num_trainings``, ``is_reference`` and ``pareto`` (undominated in score and both
        sizes).
    """
    frame = rs.with_series(results)
    frame = frame[frame["is_ok"] & (frame["payload_bytes"] > 0)]  # a codec that sends nothing is none
    frame = frame.assign(clean=frame["score_clean"].fillna(frame["score"]))
    rows = []
    for (series, point), group in frame.groupby(["series", "split_point"], sort=False):
        first = group.iloc[0]
        mean = group.mean(numeric_only=True)
        rows.append(
            {
                "codec": series,
                "family": first["family"],
                "split_point": point,
                "encoder_bytes": mean["encoder_bytes"],
                "payload_bytes": mean["payload_bytes"],
                "score": mean["clean"],
                "score_ci95": half_ci95(group["clean"]),
                "score_name": first["score_name"],
                "score_unsplit": mean["score_unsplit"],
                "score_over_link": mean.get("score_over_link", float("nan")),
                "raw_ratio": mean["raw_bytes"] / mean["payload_bytes"],
                "input_ratio": mean["input_bytes"] / mean["payload_bytes"],
                "num_trainings": len(group),
                "is_reference": bool(first["is_reference"]),
            }
        )
    table = pd.DataFrame(rows)
    goals = table[["score", "payload_bytes", "encoder_bytes"]].to_numpy(dtype=float)
    return table.assign(pareto=pareto_front(goals, maximise=[True, False, False]))


def is_three_way(results: pd.DataFrame) -> bool:
    """Whether several codecs were compared, at least one of them with weights on the edge."""
    if not {"encoder_bytes", "score", "codec"} <= set(results):
        return False
    own = rs.splits(rs.with_series(results))
    return own["series"].nunique() > 1 and bool((own["encoder_bytes"] > 0).any())


def three_way_figure(results: pd.DataFrame) -> Figure:
    """Score over payload bytes, and over encoder bytes; points on the front of all three quantities are ringed.

    Args:
        results: one row a job, as in results.csv, with ``encoder_bytes``.

    Returns:
        The figure; settings of one family are joined.
    """
    table = three_way(results)
    num, word = int(table["num_trainings"].max()), rs.score_name(table)
    subtitle = rs.describe(rs.with_series(results))
    figure = style.new_figure(
        11.0, 4.4, worded("Encoder on the device × payload × score", word), subtitle, num_side_by_side=2
    )
    figure.data = table
    left, right = figure.subplots(1, 2, sharey=True)
    style.style_axes(left, "Payload per sample (bytes, header included)", worded(_CLEAN_SCORE, word))
    style.style_axes(right, "Encoder's weights on the device, beyond the head's (bytes)", "")
    own = table[~table["is_reference"]]
    sizes = own.groupby("family", sort=False)["encoder_bytes"].max()
    named = looks({str(family): size > 0 for family, size in sizes.items()})
    for name in table.loc[table["is_reference"], "family"].unique():
        marker, color = style.REFERENCES.get(name.split(" ")[0], ("D", style.MUTED))
        named[name] = Look(color, marker, ":")
    handles: list[Any] = []
    for family, rows in table.groupby("family", sort=False):
        look = named[str(family)]
        for ax, x in ((left, "payload_bytes"), (right, "encoder_bytes")):
            _draw(ax, rows.sort_values("payload_bytes"), x, look)
        drawn = look if len(rows) > 1 else look._replace(linestyle="none")
        handles.append(Line2D([], [], label=family, **drawn._asdict()))
    ring: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 12, "markerfacecolor": "none"}
    front = table[table["pareto"]]
    for ax, x in ((left, "payload_bytes"), (right, "encoder_bytes")):
        ax.plot(front[x], front["score"], markeredgecolor=style.INK, markeredgewidth=0.9, gid="front", **ring)
        ax.axhline(table["score_unsplit"].mean(), color=style.INK, linestyle=(0, (5, 3)), linewidth=1, zorder=1)
    handles.append(Line2D([], [], markeredgecolor=style.INK, label="no other beats it\nin all three", **ring))
    handles.append(Line2D([], [], color=style.INK, linestyle=(0, (5, 3)), linewidth=1, label="unsplit network"))
    if num > 1:
        handles.append(Line2D([], [], color=style.MUTED, label=f"bars: 95 % interval\nover {num} trainings"))
    _encoder_axis(right, table["encoder_bytes"].max())
    style.unit_axis(left, "B", table["payload_bytes"].tolist(), log=True)
    ends = [table["score"] - table["score_ci95"], table["score"] + table["score_ci95"], table["score_unsplit"]]
    style.score_axis(left, pd.concat(ends).tolist())
    legends.outside(right, handles)
    return figure


def _draw(ax: Axes, rows: pd.DataFrame, x: str, look: Look) -> None:
    ax.errorbar(
        rows[x],
        rows["score"],
        yerr=style.interval_bars(rows["score"], rows["score_ci95"]) if (rows["score_ci95"] > 0).any() else None,
        color=look.color,
        marker=look.marker,
        linestyle=look.linestyle if x == "payload_bytes" else "none",
        linewidth=1.1,
        markersize=6,
        markeredgewidth=0,
        elinewidth=1.0,
    )


def _encoder_axis(ax: Axes, largest: float) -> None:
    ax.set_xscale("symlog", linthresh=_LINEAR_BYTES)
    ax.set_xlim(-0.12 * _LINEAR_BYTES, max(largest, _LINEAR_BYTES) * 2)
    decades = [_LINEAR_BYTES * 10**i for i in range(8)]
    ax.xaxis.set_major_locator(FixedLocator([0, *decades]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "none" if value == 0 else format_bytes(value)))


_NUM_SAMPLES = 8
_COLOURS = "cividis"


def importance(
    importance_BKHW: NDArray[np.floating], images: NDArray[np.floating] | None = None, what: str = "symbols"
) -> Figure:
    """One column a sample: the picture and the importance at each position; below, the mean, channels by positions.

    Each sample's map is scaled by the map's largest value; so is the mean.

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
