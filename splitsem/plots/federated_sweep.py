"""A sweep of federated runs over seeds: mean and interval of each setting, and how its score rises."""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from splitsem.plots import style
from splitsem.plots.intervals import half_ci95

POINTS = 100.0  # in a score of 1


def over_seeds(done: pd.DataFrame) -> pd.DataFrame:
    """One row for each ``label``, whose runs differ in their seed only.

    Args:
        done: one row a run: ``label``, ``score`` and the metrics of a federated run; ``codec`` and, where seeds were
            swept, ``seed``.

    Returns:
        ``label``, ``num_runs``, ``score`` with ``score_ci95`` (half the 95 % interval, Student's t), means of the bytes
        and seconds, and, where runs with ``codec=identity`` have the same seeds (and nothing else was swept),
        ``points_below_identity`` with its interval: of the differences seed by seed, which share the luck of the seed.
    """
    rows = []
    exact = done[(done["codec"] == "identity") & (done["downlink_codec"] == "identity")]
    for label, runs in done.groupby("label", sort=False):
        row: dict[str, object] = {"label": str(label), "num_runs": len(runs), "score": runs["score"].mean()}
        row["score_ci95"] = half_ci95(runs["score"])
        if "seed" in done and exact["seed"].is_unique and set(runs["seed"]) <= set(exact["seed"]):
            reached = exact.set_index("seed")["score"]
            below = POINTS * (reached.loc[runs["seed"]].to_numpy() - runs["score"])
            row |= {"points_below_identity": below.mean(), "points_ci95": half_ci95(below)}
        for name in ("uplink_bytes", "uplink_raw_bytes", "downlink_bytes", "round_s", "codec_share"):
            row[name] = runs[name].mean() if name in runs else math.nan
        row["uplink_compression_ratio"] = runs["uplink_raw_bytes"].sum() / runs["uplink_bytes"].sum()
        row["failed_clients"] = int(runs["failed_clients"].sum())
        rows.append(row)
    return pd.DataFrame(rows)


def score_by_update(means: pd.DataFrame) -> Figure:
    """Score over the bytes of one client's update; up and to the left is better.

    Args:
        means: of ``over_seeds``.
    """
    has_bars = bool((means["num_runs"] > 1).any())
    about = "mean of the runs and its 95 % interval" if has_bars else "a point a run"
    figure = style.new_figure(7.2, 3.6, "Score against bytes of an update", f"{about} · dotted: the network as it is")
    ax = figure.add_subplot()
    style.style_axes(ax, "Sent by a client in a round", "Score on the test split")
    handles = []
    for number, row in enumerate(means.to_dict("records")):
        x, y, half = row["uplink_bytes"], row["score"], row["score_ci95"] or None
        handles.append(ax.errorbar(x, y, half, **_look(number), linestyle="none", capsize=2.5, label=row["label"]))
    for raw_bytes in means["uplink_raw_bytes"].unique():
        ax.axvline(raw_bytes, color=style.MUTED, linestyle=(0, (1, 2)), linewidth=1.3)
    style.unit_axis(ax, "B", [*means["uplink_bytes"], *means["uplink_raw_bytes"]])
    style.score_axis(ax, [*(means["score"] - means["score_ci95"]), *(means["score"] + means["score_ci95"])])
    style.legend_outside(ax, handles)
    return figure


def score_over_rounds(history: pd.DataFrame) -> Figure:
    """Validation score by round, and by what a client has sent so far: each run thin, the mean of a setting's thick.

    Args:
        history: a row for each round of each run: ``label``, ``run``, ``round/number``, ``round/val_score`` and
            ``round/uplink_bytes``.
    """
    figure = style.new_figure(9.6, 3.6, "How the score rises", "thick: mean of each setting's runs · thin: each run")
    axes = figure.subplots(1, 2, sharey=True)
    style.style_axes(axes[0], "Round", "Validation score")
    style.style_axes(axes[1], "Sent by a client so far", "")
    history = history.assign(sent_bytes=history.groupby("run")["round/uplink_bytes"].cumsum())
    shown = []
    for number, (_, runs) in enumerate(history.groupby("label", sort=False)):
        means = runs.groupby("round/number").mean(numeric_only=True).reset_index()
        for ax, x in zip(axes, ("round/number", "sent_bytes"), strict=True):
            for _, run in runs.groupby("run"):
                _curve(ax, run[x], run["round/val_score"], number, linewidth=0.5, alpha=0.35)
            _curve(ax, means[x], means["round/val_score"], number, linewidth=1.6)
        settled = runs[runs["round/number"] > runs["round/number"].max() / 4]
        shown += settled["round/val_score"].tolist()  # the first rounds rise from chance, and would flatten the rest
    axes[0].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    style.unit_axis(axes[1], "B", history["sent_bytes"].tolist())
    style.score_axis(axes[0], shown)
    labels = history["label"].unique()
    looks = [Line2D([], [], color=_look(number)["color"], label=str(label)) for number, label in enumerate(labels)]
    style.legend_outside(axes[1], looks)
    return figure


def _curve(ax: Axes, x: pd.Series, y: pd.Series, number: int, **look: Any) -> None:
    ax.plot(x, y, color=_look(number)["color"], **look)


def _look(number: int) -> dict[str, Any]:
    marker = style.MARKERS[number // len(style.COLOURS) % len(style.MARKERS)]
    return {"color": style.COLOURS[number % len(style.COLOURS)], "marker": marker}
