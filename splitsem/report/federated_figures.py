"""Figures and HTML report of federated runs: one run by round and by bytes, and a sweep with means over seeds."""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from splitsem.report import legends, style
from splitsem.report.columns import Column
from splitsem.report.page import Card, Page, Section, glossary, jobs_failed, jobs_pictures, jobs_table, render, whole
from splitsem.report.results import SCORE_MARGIN
from splitsem.report.units import format_bytes, format_ratio, format_score, format_seconds


def score_by_round(rows: Sequence[Mapping[str, float]], metrics: Mapping[str, Any]) -> Figure:
    """Training loss and validation score by round, side by side.

    Args:
        rows: one a round, as in the run's history.
        metrics: metrics of the run, as in metrics.json.
    """
    figure = style.new_figure(7.2, 2.6, _title(metrics), _about(metrics), num_side_by_side=2)
    figure.data = pd.DataFrame(list(rows))
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
    figure.data = pd.DataFrame({"sent_bytes": sent, "val_score": scores})
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


def half_ci95(values: pd.Series) -> float:
    """Half the 95 % confidence interval of the mean, ``t·s/√n`` (Student's t); 0 for a single value.

    >>> round(half_ci95(pd.Series([1.0, 2.0, 3.0])), 3)
    2.484
    """
    if len(values) < 2:
        return 0.0
    from scipy import special

    return float(special.stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / len(values) ** 0.5)


def over_trainings(group: pd.DataFrame, column: str = "score") -> pd.Series:
    """The values behind an interval: for each ``training_seed``, the mean of ``column`` over the channel's seeds.

    Runs of one training share its luck: they are no independent samples of what another training would give. With
    only one training, or without a ``training_seed``, the values are those of the runs themselves.
    """
    if "training_seed" not in group or group["training_seed"].nunique() < 2:
        return group[column]
    return group.groupby("training_seed")[column].mean()


POINTS = 100.0  # in a score of 1


def over_seeds(done: pd.DataFrame) -> pd.DataFrame:
    """One row for each ``label``; the runs with one label differ in their seed only.

    Args:
        done: one row a run: ``label``, ``score`` and the metrics of a federated run; ``codec`` and, where seeds were
            swept, ``seed``.

    Returns:
        ``label``, ``num_runs``, ``score`` with ``score_ci95`` (half the 95 % interval, Student's t), means of the bytes
        and seconds, and, where runs with ``codec=identity`` have the same seeds (and nothing else was swept),
        ``points_below_identity`` with its interval, from differences of runs with equal seeds, which share their luck.
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
        means: the result of ``over_seeds``.
    """
    has_bars = bool((means["num_runs"] > 1).any())
    about = "mean of the runs and its 95 % interval" if has_bars else "a point a run"
    figure = style.new_figure(7.2, 3.6, "Score against bytes of an update", about)
    figure.data = means
    ax = figure.add_subplot()
    style.style_axes(ax, "Sent by a client in a round", "Score on the test split")
    handles: list[Any] = []
    for number, row in enumerate(means.to_dict("records")):
        x, y = row["uplink_bytes"], row["score"]
        half = style.interval_bars([y], [row["score_ci95"]]) if row["score_ci95"] else None
        handles.append(ax.errorbar(x, y, half, **_look(number), linestyle="none", capsize=2.5, label=row["label"]))
    if has_bars:
        handles.append(Line2D([], [], color=style.MUTED, label="bars: 95 % interval\nof the mean over runs"))
    dots: dict[str, Any] = {"color": style.MUTED, "linestyle": (0, (1, 2)), "linewidth": 1.3}
    for raw_bytes in means["uplink_raw_bytes"].unique():
        ax.axvline(raw_bytes, **dots)
    handles.append(Line2D([], [], label="the network as it is", **dots))
    style.unit_axis(ax, "B", [*means["uplink_bytes"], *means["uplink_raw_bytes"]])
    style.score_axis(ax, [*(means["score"] - means["score_ci95"]), *(means["score"] + means["score_ci95"])])
    legends.outside(ax, handles)
    return figure


def score_over_rounds(history: pd.DataFrame) -> Figure:
    """Validation score by round, and by a client's bytes so far; a thin line a run, a thick line a setting's mean.

    Args:
        history: a row for each round of each run: ``label``, ``run``, ``round/number``, ``round/val_score`` and
            ``round/uplink_bytes``.
    """
    figure = style.new_figure(9.6, 3.6, "How the score rises", "validation score of each setting", num_side_by_side=2)
    axes = figure.subplots(1, 2, sharey=True)
    style.style_axes(axes[0], "Round", "Validation score")
    style.style_axes(axes[1], "Sent by a client so far", "")
    history = history.assign(sent_bytes=history.groupby("run")["round/uplink_bytes"].cumsum())
    figure.data = history[["label", "run", "round/number", "sent_bytes", "round/val_score"]]
    shown = []
    for number, (_, runs) in enumerate(history.groupby("label", sort=False)):
        means = runs.groupby("round/number").mean(numeric_only=True).reset_index()
        for ax, x in zip(axes, ("round/number", "sent_bytes"), strict=True):
            for _, run in runs.groupby("run"):
                _curve(ax, run[x], run["round/val_score"], number, linewidth=0.5, alpha=0.35)
            _curve(ax, means[x], means["round/val_score"], number, linewidth=1.6)
        settled = runs[runs["round/number"] > runs["round/number"].max() / 4]
        shown += settled["round/val_score"].tolist()  # the first rounds, which rise from chance, would flatten the rest
    axes[0].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    style.unit_axis(axes[1], "B", history["sent_bytes"].tolist())
    style.score_axis(axes[0], shown)
    labels = history["label"].unique()
    looks = [Line2D([], [], **_line(number), label=str(label)) for number, label in enumerate(labels)]
    if history.groupby("label")["run"].nunique().max() > 1:
        looks.append(Line2D([], [], color=style.MUTED, linewidth=1.6, label="mean of the runs"))
        looks.append(Line2D([], [], color=style.MUTED, linewidth=0.5, label="a run"))
    legends.outside(axes[1], looks)
    return figure


def _curve(ax: Axes, x: pd.Series, y: pd.Series, number: int, **look: Any) -> None:
    ax.plot(x, y, **_line(number), **look)


def _line(number: int) -> dict[str, Any]:
    return {"color": _look(number)["color"], "linestyle": style.DASHES[number % len(style.DASHES)]}


def _look(number: int) -> dict[str, Any]:
    marker = style.MARKERS[number // len(style.COLOURS) % len(style.MARKERS)]
    return {"color": style.COLOURS[number % len(style.COLOURS)], "marker": marker}


COLUMNS: Mapping[str, Column | str] = {
    "score": Column("score", "", "Of the global network on the test split.", 1, format_score),
    "uplink_bytes": Column("up", "kB", "What a client sends in a round, header included, mean.", 1e-3),
    "uplink_compression_ratio": Column(
        "ratio", "", "The network's tensors as they are, against what was sent up.", 1, format_ratio
    ),
    "downlink_bytes": Column("down", "kB", "What the server sends a client in a round, mean.", 1e-3),
    "rounds": Column("rounds", "", "How many there were.", 1, whole),
    "num_clients": Column("clients", "", "How many there are.", 1, whole),
    "round_s": Column("round", "s", "Wall time of a round here, median."),
    "train_s": Column("training", "s", "A client's training in a round, mean."),
    "codec_s": Column("coding", "ms", "Encoding and decoding of an update at both ends, mean.", 1e3),
    "failed_clients": Column("left out", "", "Replies that no round could use.", 1, whole),
    "strategy": "strategy",
    "partition": "partition",
    "codec": "codec up",
    "downlink_codec": "codec down",
}
_CAPTIONS = {
    "score_by_update": "Up and to the left is better. Dotted: an update without a codec.",
    "score_over_rounds": "Validation score by round, and by the bytes that a client has sent; thin lines: each run.",
    "score_by_round": "training loss of the clients and validation score, round by round.",
}
_FACTS = ("task", "model", "strategy", "partition", "codec", "downlink_codec")


def federated_report(
    results: pd.DataFrame,
    labels: Sequence[str],
    pictures: Mapping[tuple[str, str], bytes],
    title: str,
    command: str,
    details: Mapping[str, str],
) -> str:
    """Write the report; arguments and result are those of ``joint_report``."""
    done = results[results["status"] == "ok"].assign(label=list(labels))
    done = done.sort_values("score", ascending=False, kind="stable")
    chosen = _smallest(done) if len(done) else None
    marked = [chosen is not None and job == chosen["job"] for job in done["job"]]
    note = f"Coloured: fewest bytes up within {100 * SCORE_MARGIN:g} point of the best score."
    same = {name: str(done[name].iloc[0]) for name in _FACTS if name in done and done[name].nunique() == 1}
    columns = {name: column for name, column in COLUMNS.items() if name not in same}  # the page's facts have `same`
    table = jobs_table(done, done["label"].tolist(), columns, marked, note)
    return render(
        Page(
            title=title,
            subtitle=" · ".join(same.values()),
            summary=f"{len(done)} federated run{'' if len(done) == 1 else 's'}",
            command=command,
            cards=[] if chosen is None else _cards(done.iloc[0], chosen),
            pictures=jobs_pictures(pictures, _CAPTIONS),
            sections=[Section("Runs", [table], instead="No run ended.")],
            failures=jobs_failed(results),
            facts=[*details.items(), *((name.replace("_", " "), value) for name, value in same.items())],
            glossary=glossary(COLUMNS, done),
        )
    )


def _smallest(done: pd.DataFrame) -> pd.Series:
    """The run that sends least up, among the runs that are as good as the best run."""
    good = done[done["score"] >= done["score"].max() - SCORE_MARGIN - 1e-9]
    return good.iloc[int(good["uplink_bytes"].argmin())]


def _cards(best: pd.Series, small: pd.Series) -> list[Card]:
    up, down = (format_bytes(best[name]) for name in ("uplink_bytes", "downlink_bytes"))
    return [
        Card(
            "Highest score",
            format_score(best["score"]),
            str(best["label"]),
            f"{up} up and {down} down, a client and round.",
        ),
        Card(
            f"Fewest bytes within {100 * SCORE_MARGIN:g} point of it",
            format_bytes(small["uplink_bytes"]),
            str(small["label"]),
            f"Score {format_score(small['score'])}; {format_ratio(small['uplink_compression_ratio'])} fewer bytes up "
            "than the network's tensors as they are.",
        ),
    ]
