"""Score against the channel: how codecs hold up as bits go wrong, with the spread over the channel's seeds."""

from typing import Any, Literal

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy import special

from splitsem.plots import style

Axis = Literal["snr_db", "ber"]
_TITLES = {"snr_db": "Eb/N0 on the air (dB)", "ber": "Bit error rate on the air, before correction"}


def score_channel(results: pd.DataFrame, x: Axis = "snr_db", subtitle: str = "") -> Figure:
    """Mean score over SNR or bit error rate, one line a codec, with the 95 % interval over seeds (Student's t).

    Args:
        results: one row for each codec, channel setting and seed, with ``codec``, ``score`` and ``x``, as from
            ``replay.play_all``; rows of the same ``link``, where there is this column, are one point at their mean x.
            ``score_clean`` (a codec's score on a clean link) is drawn dotted, ``score_unsplit`` dashed.
        x: ``snr_db``, or ``ber`` on a logarithmic axis.
        subtitle: what was run.

    Returns:
        The figure.
    """
    figure = style.new_figure(8.4, 4.4, "Accuracy over a channel that damages bits", subtitle)
    ax = figure.add_subplot()
    style.style_axes(ax, _TITLES[x], "Score (0 to 1, higher is better)")
    shown = results.dropna(subset=[x, "score"])
    shown = shown[shown["ber"] > 0] if x == "ber" else shown
    if shown.empty:
        style.empty(ax, "no row has both a score and this measure of the channel")
        return figure
    level = "link" if "link" in shown else x
    shown = shown.assign(x=shown.groupby(["codec", level])[x].transform("mean"))
    codecs = [str(codec) for codec in shown["codec"].unique()]
    colors = dict(zip(codecs, style.palette(len(codecs)), strict=True))
    markers = {codec: style.MARKERS[i % len(style.MARKERS)] for i, codec in enumerate(codecs)}
    sns.lineplot(
        shown,
        x="x",
        y="score",
        hue="codec",
        style="codec",
        palette=colors,
        markers=markers,
        dashes=False,
        errorbar=interval95,
        err_kws={"alpha": 0.18, "linewidth": 0},
        markeredgewidth=0,
        markersize=5.5,
        linewidth=1.5,
        legend=False,
        ax=ax,
    )
    ax.set_xlabel(_TITLES[x])
    ax.set_ylabel("Score (0 to 1, higher is better)")
    if x == "ber":
        ax.set_xscale("log")
    look: dict[str, Any] = {"markersize": 6, "markeredgewidth": 0}
    handles: list[Any] = [Line2D([], [], color=colors[c], marker=markers[c], label=c, **look) for c in codecs]
    seeds = int(shown.groupby(["codec", level]).size().min())
    handles.append(Patch(color=style.FAINT, alpha=0.4, label=f"95 % interval, {seeds} seeds or more"))
    handles += _references(ax, shown, colors)
    ends = shown.groupby(["codec", level])["score"].apply(lambda v: pd.Series(interval95(v))).tolist()
    drawn = [column for column in ("score_clean", "score_unsplit") if column in shown]
    style.score_axis(ax, [*ends, *shown[drawn].to_numpy().ravel()])
    style.legend_outside(ax, handles)
    return figure


def interval95(scores: pd.Series) -> tuple[float, float]:
    """Ends of the 95 % confidence interval of the mean, within 0…1; the mean itself where there is one value only."""
    mean = float(scores.mean())
    if len(scores) < 2:
        return mean, mean
    half = float(special.stdtrit(len(scores) - 1, 0.975) * scores.std(ddof=1) / len(scores) ** 0.5)
    return max(mean - half, 0.0), min(mean + half, 1.0)


def _references(ax: Any, shown: pd.DataFrame, colors: dict[str, Any]) -> list[Line2D]:
    handles = []
    if "score_clean" in shown:
        for codec, score in shown.groupby("codec", sort=False)["score_clean"].mean().items():
            ax.axhline(score, color=colors[str(codec)], linestyle=(0, (1, 2)), linewidth=1.2, zorder=1, gid="clean")
        handles.append(Line2D([], [], color=style.MUTED, linestyle=(0, (1, 2)), linewidth=1.2, label="clean link"))
    if "score_unsplit" in shown:
        ax.axhline(shown["score_unsplit"].mean(), color=style.INK, linestyle=(0, (5, 3)), linewidth=1, zorder=1)
        handles.append(Line2D([], [], color=style.INK, linestyle=(0, (5, 3)), linewidth=1, label="unsplit network"))
    return handles
