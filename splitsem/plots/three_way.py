"""The three-way trade-off: bytes of the encoder on the device × bytes of a payload × score."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from splitsem.pareto import pareto_front
from splitsem.plots import results as rs
from splitsem.plots import style
from splitsem.plots.codec_looks import Look, looks
from splitsem.plots.intervals import half_ci95
from splitsem.plots.units import format_bytes

_LINEAR_BYTES = 1000.0  # below which the axis of encoder sizes is linear, so that 0 is on it
_CLEAN_SCORE = "Score over a clean link (0 to 1, higher is better)"


def three_way(results: pd.DataFrame) -> pd.DataFrame:
    """A row for each codec setting and split point, means over the seeds of the training.

    Args:
        results: one row a job, as in results.csv, with ``encoder_bytes``.

    Returns:
        ``codec`` (the series), ``family``, ``split_point``, ``encoder_bytes``, ``payload_bytes``, ``score`` (over a
        clean link, where both were run), ``score_ci95`` (over the trainings; 0 for one), ``score_unsplit``,
        ``score_over_link`` where it was measured, ``raw_ratio`` and ``input_ratio`` (float32 feature and uint8 sample
        in payloads), ``num_trainings``, ``is_reference`` and ``pareto`` (no other is at least as good in all three).
    """
    frame = rs.with_series(results)
    frame = frame[frame["is_ok"]]
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
    """Whether several codecs were compared, at least one of them with weights on the device."""
    if not {"encoder_bytes", "score", "codec"} <= set(results):
        return False
    own = rs.splits(rs.with_series(results))
    return own["series"].nunique() > 1 and bool((own["encoder_bytes"] > 0).any())


def three_way_figure(results: pd.DataFrame) -> Figure:
    """Score over payload bytes, and the same points over encoder bytes; what is on the front of all three is ringed.

    Args:
        results: one row a job, as in results.csv, with ``encoder_bytes``.

    Returns:
        The figure; settings of one family are joined.
    """
    table = three_way(results)
    num = int(table["num_trainings"].max())
    subtitle = rs.describe(rs.with_series(results))
    figure = style.new_figure(11.0, 4.4, "Encoder on the device × payload × score", subtitle)
    left, right = figure.subplots(1, 2, sharey=True)
    style.style_axes(left, "Payload per sample (bytes, header included)", _CLEAN_SCORE)
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
    style.score_axis(left, pd.concat(ends).clip(0, 1).tolist())
    style.legend_outside(right, handles)
    return figure


def _draw(ax: Axes, rows: pd.DataFrame, x: str, look: Look) -> None:
    ax.errorbar(
        rows[x],
        rows["score"],
        yerr=rows["score_ci95"] if (rows["score_ci95"] > 0).any() else None,
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
