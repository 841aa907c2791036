"""A sweep of federated runs over seeds: mean and interval of each setting, and how its score rises."""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
    """Validation score by round, and by what a client has sent so far; the band is the 95 % interval over the runs.

    Args:
        history: a row for each round of each run: ``label``, ``run``, ``round/number``, ``round/val_score`` and
            ``round/uplink_bytes``.
    """
    figure = style.new_figure(9.6, 3.2, "How the score rises", "mean of each setting's runs, and its 95 % interval")
    by_round, by_bytes = figure.subplots(1, 2, sharey=True)
    style.style_axes(by_round, "Round", "Validation score")
    style.style_axes(by_bytes, "Sent by a client so far", "")
    history = history.assign(sent_bytes=history.groupby("run")["round/uplink_bytes"].cumsum())
    shown = []
    for number, (label, runs) in enumerate(history.groupby("label", sort=False)):
        rounds = runs.groupby("round/number")
        mean, half = rounds["round/val_score"].mean(), rounds["round/val_score"].apply(half_ci95)
        _curve(by_round, mean.index, mean, half, number, str(label))
        _curve(by_bytes, rounds["sent_bytes"].mean(), mean, half, number, str(label))
        shown += mean.iloc[len(mean) // 5 :].tolist()  # the first rounds rise from chance, and would flatten the rest
    by_round.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    style.unit_axis(by_bytes, "B", history["sent_bytes"].tolist())
    style.score_axis(by_round, shown)
    style.legend_outside(by_bytes, by_bytes.get_lines())
    return figure


def _curve(ax: Axes, x: Any, mean: pd.Series, half: pd.Series, number: int, label: str) -> None:
    color = _look(number)["color"]
    ax.plot(x, mean, color=color, linewidth=1.4, label=label)
    ax.fill_between(x, mean - half, mean + half, color=color, alpha=0.15, linewidth=0)


def _look(number: int) -> dict[str, Any]:
    marker = style.MARKERS[number // len(style.COLOURS) % len(style.MARKERS)]
    return {"color": style.COLOURS[number % len(style.COLOURS)], "marker": marker}
