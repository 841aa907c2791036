"""The HTML report of a sweep of joint optimisations, and its figure of the gains over the baselines."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from splitsem.report import legends, style
from splitsem.report.columns import Column
from splitsem.report.page import (
    Card,
    Page,
    Section,
    glossary,
    jobs_failed,
    jobs_pictures,
    jobs_table,
    percent,
    render,
    span,
    whole,
)
from splitsem.report.units import format_score


def _yes(value: float) -> str:
    return "yes" if value else "no"


COLUMNS: Mapping[str, Column | str] = {
    "accuracy": Column("accuracy", "", "Of the chosen network, on the test split.", 1, format_score),
    "accuracy_ci95": Column("±", "", "Half the 95 % interval of the accuracy, over the test samples.", 1, format_score),
    "accuracy_ref": Column(
        "A_ref", "", "Of the network with all branches, or unsplit, on the test split.", 1, format_score
    ),
    "accuracy_delta": Column("Δ", "", "Accuracy less A_ref, on the test split.", 1, format_score),
    "accuracy_delta_ci95": Column(
        "Δ ±", "", "Half the 95 % interval of the difference, paired over the test samples.", 1, format_score
    ),
    "feasible": Column("ε kept", "", "Whether accuracy is at least A_ref − ε on the test split.", 1, _yes),
    "slack": Column("ξ", "points", "By how much ε is missed on the test split; 0 where it is kept.", 100),
    "throughput_hz": Column("throughput", "Hz", "Samples a second, 1 / cycle; T_eff, not this, was minimised."),
    "gain_over_baseline": Column(
        "over baseline",
        "%",
        "Throughput gained over all branches in parallel (without branches: over float32), at their best cut.",
        1,
        percent,
    ),
    "gain_over_fused": Column(
        "over fused", "%", "Throughput gained over all branches folded, at their best cut.", 1, percent
    ),
    "gain_over_unsplit": Column(
        "over one machine", "%", "Throughput gained over the faster of both machines alone.", 1, percent
    ),
    "lambda": Column("λ", "", "Units on the edge.", 1, whole),
    "split_point": "split point",
    "predicted_t_eff_s": Column("T_eff", "ms", "Half latency, half cycle time, from the tables.", 1e3),
    "baseline_t_eff_s": Column("T_eff baseline", "ms", "The same of the baseline.", 1e3),
    "fused_t_eff_s": Column("T_eff fused", "ms", "The same of all branches folded.", 1e3),
    "measured_throughput_hz": Column("measured", "Hz", "Throughput on the wire, in two processes."),
    "measured_gain_over_baseline": Column(
        "over baseline, measured", "%", "Throughput gained, both measured on the wire.", 1, percent
    ),
    "measured_gain_over_fused": Column(
        "over fused, measured", "%", "Throughput gained, both measured on the wire.", 1, percent
    ),
    "measured_t_eff_s": Column("T_eff measured", "ms", "Half latency, half 1 / throughput, on the wire.", 1e3),
    "wire_accuracy": Column("accuracy, wire", "", "Test accuracy of what came over the link.", 1, format_score),
    "edge_s": Column("edge", "ms", "Work of the edge: head and coding.", 1e3),
    "link_busy_s": Column("link busy", "ms", "How long a payload keeps the link from the next one.", 1e3),
    "link_s": Column("link", "ms", "A payload on its way, delay included.", 1e3),
    "server_s": Column("server", "ms", "Work of the server: coding and tail.", 1e3),
    "answer_s": Column("back", "ms", "The answer on its way back to the edge.", 1e3),
    "latency_s": Column("latency", "ms", "From the sensor to the result.", 1e3),
    "objective": "minimised",
    "payload_bytes": Column("payload", "kB", "Bytes sent for one sample, header included.", 1e-3),
    "codec": "codec",
    "optimality_gap": Column(
        "gap", "%", "How far the heuristic solver ends above the exact optimum of predicted damages.", 100
    ),
    "num_scored": Column("scored", "", "Networks scored on the validation split before the choice.", 1, whole),
    "accuracy_val": Column("accuracy, val", "", "On the validation split, which chose.", 1, format_score),
    "accuracy_ref_val": Column("A_ref, val", "", "Of all branches on the validation split.", 1, format_score),
    "gammas": "γ of each unit",
}
_WORDS = {
    "γ": "How a block runs: which of its branches take part, and which of these are folded into one convolution.",
    "λ": "The cut: so many units run on the edge, the others on the server.",
    "all branches": "The network as it trained, in parallel (each branch a convolution) or folded (one a block).",
    "ε, ξ": "What accuracy may be lost against A_ref, and by how much that is missed.",
}
_CAPTIONS = {
    "domains": "Above, accuracy on the test split against that of the whole network; below, throughput gained over "
    "both baselines, each at the cut that is best for it.",
    "accuracy_throughput": "the predicted front, the networks that were scored on the validation split, and the chosen "
    "one.",
    "gamma_map": "which branches of each block run, what is folded, and where the network is cut.",
}
_FACTS = ("task", "model", "transport", "optimise", "epsilon", "margin", "edge_timing", "server_timing")


def joint_report(
    results: pd.DataFrame,
    labels: Sequence[str],
    pictures: Mapping[tuple[str, str], bytes],
    title: str,
    command: str,
    details: Mapping[str, str],
) -> str:
    """Write the report.

    Args:
        results: one row a job, as in results.csv.
        labels: for each job that chose something, what tells the job from the other jobs.
        pictures: PNG files by label (empty for the whole sweep) and name.
        title: heading of the page.
        command: the command line that made the results.
        details: date, versions, machine; shown unchanged.

    Returns:
        A complete HTML page; every value in it is escaped.
    """
    done = results[(results["status"] == "ok") & results["accuracy"].notna()]
    kept, word = done["feasible"].astype(bool), score_word(done)
    columns = {name: _in_word(column, word) for name, column in COLUMNS.items()}
    table = jobs_table(done, labels, columns, kept.tolist(), "Coloured: ε is kept on the test split.")
    facts = [(name, str(value)) for name, value in details.items()]
    for name in _FACTS:
        values = dict.fromkeys(map(str, done[name].dropna())) if name in done else {}
        if values:
            facts.append((name.replace("_", " "), ", ".join(values)))
    return render(
        Page(
            title=title,
            subtitle=" · ".join(str(done[n].iloc[0]) for n in _FACTS[:4] if n in done and done[n].nunique() == 1),
            summary=f"{len(done)} joint optim{'um' if len(done) == 1 else 'a'}",
            command=command,
            cards=_cards(done, kept, word) if len(done) else [],
            pictures=jobs_pictures(pictures, {name: _said(text, word) for name, text in _CAPTIONS.items()}),
            sections=[Section("Joint optima", [table], instead="No job chose anything.")],
            failures=jobs_failed(results),
            facts=facts,
            words={term: _said(meaning, word) for term, meaning in _WORDS.items()},
            glossary=glossary(columns, done),
        )
    )


def score_word(results: pd.DataFrame) -> str:
    """What the jobs scored: ``agreement`` with the whole network where there were no labels, else ``accuracy``."""
    words = set(results["score_word"].dropna()) if "score_word" in results else set()
    return str(words.pop()) if len(words) == 1 else "accuracy"


def _said(text: str, word: str) -> str:
    return text.replace("accuracy", word).replace("Accuracy", word.capitalize())


def _in_word(column: Column | str, word: str) -> Column | str:
    if isinstance(column, str):
        return column
    return column._replace(title=_said(column.title, word), meaning=_said(column.meaning, word))


def _cards(done: pd.DataFrame, kept: pd.Series, word: str) -> list[Card]:
    epsilon = ", ".join(f"{value:g}" for value in done["epsilon"].unique())
    missed = f"missed by at most ξ = {done['slack'].max():.4f}" if not kept.all() else "no slack is needed"
    cards = [
        Card(
            f"The {word} constraint holds on the test split",
            f"{kept.sum()} of {len(done)}",
            f"ε = {epsilon}",
            f"{missed[:1].upper()}{missed[1:]}. The validation split chose, the test split judges.",
            bool(kept.all()),
        )
    ]
    is_measured = "measured_gain_over_baseline" in done and done["measured_gain_over_baseline"].notna().all()
    prefix, how = ("measured_", "Measured on the wire") if is_measured else ("", "From the tables of both machines")
    for name, over in _baselines(done).items():
        gains = done[f"{prefix}{name}"].dropna()
        cards.append(
            Card(
                f"Throughput over {over}",
                span(gains),
                f"median {percent(gains.median())} %",
                f"{how}, each at its best cut; the solver minimised T_eff, not cycle time alone.",
                bool(gains.median() > 0),
            )
        )
    return cards


def _baselines(done: pd.DataFrame) -> dict[str, str]:
    """For each gain that these jobs have, what the gain is over, in words."""
    with_branches = done["gammas"].notna() if "gammas" in done else pd.Series(False, done.index)
    kinds = {True: "all branches in parallel", False: "float32"}
    words = {"gain_over_baseline": " or ".join(over for kind, over in kinds.items() if (with_branches == kind).any())}
    words |= {"gain_over_fused": "all branches folded", "gain_over_unsplit": "one machine alone"}
    return {name: over for name, over in words.items() if name in done and done[name].notna().any()}


_KEPT, _MISSED, _STRONGER = style.COLOURS[0], style.COLOURS[1], style.COLOURS[4]


def domain_gains(
    domains: pd.DataFrame,
    subtitle: str = "",
    weaker: str = "all branches in parallel",
    stronger: str = "all fused",
    word: str = "accuracy",
    of: str = "domain",
) -> Figure:
    """Above, accuracy on the test split against A_ref; below, throughput against both baselines.

    Args:
        domains: a row a domain: ``label``, ``accuracy``, ``accuracy_ci95`` (not needed), ``accuracy_ref``,
            ``epsilon``, ``feasible``,
            ``gain_over_baseline`` and ``gain_over_stronger`` (0.2 is 20 % more).
        subtitle: model, link, solver.
        weaker: what ``gain_over_baseline`` is over, in words.
        stronger: what ``gain_over_stronger`` is over, in words.
        word: what was scored, see ``score_word``.
        of: what differs from row to row.
    """
    figure = style.new_figure(max(6.5, 0.62 * len(domains) + 3.4), 4.8, f"Joint optima by {of}", subtitle)
    if domains.empty:
        style.empty(figure.add_subplot())
        return figure
    above, below = figure.subplots(2, 1, sharex=True)
    x = np.arange(len(domains))
    _accuracies(above, x, domains, word)
    _gains(below, x, domains, (weaker, stronger))
    below.set_xticks(x, labels=[str(label) for label in domains["label"]])
    if domains["label"].astype(str).str.len().max() > 6:
        below.tick_params(axis="x", labelrotation=90)
    below.set_xlabel(of.capitalize())
    below.set_xlim(-0.6, len(domains) - 0.4)
    return figure


def _accuracies(ax: Axes, x: np.ndarray, domains: pd.DataFrame, word: str) -> None:
    style.style_axes(ax, "", f"Test {word}", grid="y")
    reference, limit = domains["accuracy_ref"], domains["accuracy_ref"] - domains["epsilon"]
    whole = ax.hlines(reference, x - 0.32, x + 0.32, color=style.INK, linewidth=1.6, label="whole network, A_ref")
    least = ax.hlines(
        limit, x - 0.32, x + 0.32, color=style.MUTED, linestyle=(0, (2, 2)), linewidth=1.2, label="A_ref − ε"
    )
    handles: list[Any] = [whole, least]
    for is_kept, colour, label in ((True, _KEPT, "joint optimum"), (False, _MISSED, "joint optimum, ε missed")):
        rows = domains["feasible"].astype(bool) == is_kept
        if rows.any():
            look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 7, "label": label}
            handles += ax.plot(x[rows], domains["accuracy"][rows], color=colour, gid="accuracy", **look)
    handles += _intervals(ax, x, domains)
    half = domains["accuracy_ci95"].astype(float).fillna(0.0) if "accuracy_ci95" in domains else 0.0
    ends = [*(domains["accuracy"] - half), *(domains["accuracy"] + half)]
    style.score_axis(ax, [*ends, *reference, *limit])
    legends.outside(ax, handles)


def _intervals(ax: Axes, x: np.ndarray, domains: pd.DataFrame) -> list[Any]:
    if "accuracy_ci95" not in domains or domains["accuracy_ci95"].isna().all():
        return []
    half = domains["accuracy_ci95"].astype(float).fillna(0.0)
    below, above = style.interval_bars(domains["accuracy"], half)
    ends = domains["accuracy"] - below, domains["accuracy"] + above
    bars = ax.vlines(x, *ends, color=style.INK, linewidth=1, label="95 % interval over samples")
    bars.set_gid("ci95")
    return [bars]


def _gains(ax: Axes, x: np.ndarray, domains: pd.DataFrame, baselines: tuple[str, str]) -> None:
    style.style_axes(ax, "", "Throughput gained", grid="y")
    wide = 0.36
    labels = [f"over {textwrap.fill(words, 20)}" for words in baselines]
    over_all = ax.bar(x - wide / 2, domains["gain_over_baseline"], wide, color=_KEPT, label=labels[0])
    over_fused = ax.bar(x + wide / 2, domains["gain_over_stronger"], wide, color=_STRONGER, label=labels[1])
    ax.axhline(0, color=style.FAINT, linewidth=0.8)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.0f} %" if value else "0"))
    legends.outside(ax, [over_all, over_fused])
