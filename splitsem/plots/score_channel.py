"""Score against the channel: how codecs hold up as bits go wrong, with the spread over the channel's seeds."""

from typing import Any, Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from splitsem.plots import style
from splitsem.plots.codec_looks import looks
from splitsem.plots.intervals import half_ci95, over_trainings

Axis = Literal["snr_db", "ber"]
_TITLES = {"snr_db": "Eb/N0 on the air (dB)", "ber": "Bit error rate on the air, before correction"}
_SCORE = "Score (0 to 1, higher is better)"


def score_channel(results: pd.DataFrame, x: Axis = "snr_db", subtitle: str = "") -> Figure:
    """Mean score over SNR or bit error rate, one line a codec, with the 95 % interval over seeds (Student's t).

    Args:
        results: one row for each codec, channel setting and seed, with ``codec``, ``score`` and ``x``, as from
            ``replay.play_all``; rows of the same ``link``, where there is this column, are one point at their mean x.
            With a ``training_seed``, the interval is over the trainings, each the mean of its channel seeds.
            With ``encoder_bytes``, codecs without weights are drawn grey and dashed.
            Or one row a setting with ``score_ci95``, as in results.csv. ``score_clean`` (a codec's score on a clean
            link) is drawn dotted, ``score_unsplit`` dashed.
        x: ``snr_db``, or ``ber`` on a logarithmic axis, without error-free rows.
        subtitle: what was run.

    Returns:
        The figure.
    """
    figure = style.new_figure(8.4, 4.4, "Accuracy over a channel that damages bits", subtitle)
    ax = figure.add_subplot()
    style.style_axes(ax, _TITLES[x], _SCORE)
    shown = results.dropna(subset=[x, "score"])
    shown = shown[shown["ber"] > 0] if x == "ber" else shown
    if shown.empty:
        style.empty(ax, "no row has both a score and this measure of the channel")
        return figure
    points = curves(shown, x)
    named = looks(_learned(shown))
    colors = {codec: look.color for codec, look in named.items()}
    look: dict[str, Any] = {"markersize": 5.5, "markeredgewidth": 0, "linewidth": 1.5}
    for codec, rows in points.groupby("codec", sort=False):
        ax.plot(rows["x"], rows["score"], **named[str(codec)]._asdict(), **look)
    ax.set(xlabel=_TITLES[x], ylabel=_SCORE, xscale="log" if x == "ber" else "linear")
    for codec, rows in points.groupby("codec", sort=False):
        ax.fill_between(rows["x"], rows["low"], rows["high"], color=colors[str(codec)], alpha=0.18, linewidth=0)
    handles: list[Any] = [Line2D([], [], label=codec, **own._asdict(), **look) for codec, own in named.items()]
    if (points["high"] > points["low"]).any():
        handles.append(Patch(color=style.FAINT, alpha=0.4, label=_what_bands_say(shown)))
    handles += _references(ax, shown, colors)
    drawn = [column for column in ("score_clean", "score_unsplit") if column in shown]
    style.score_axis(ax, [*points["low"], *points["high"], *shown[drawn].to_numpy().ravel()])
    style.legend_outside(ax, handles)
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
    """Which codecs have weights; without ``encoder_bytes`` all count as if they had."""
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
