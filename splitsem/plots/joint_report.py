"""The HTML report of a sweep of joint optimisations: what each job chose, beside its baselines."""

from collections.abc import Mapping, Sequence

import pandas as pd

from splitsem.plots.columns import Column
from splitsem.plots.jobs_table import glossary, jobs_failed, jobs_pictures, jobs_table, percent, span, whole
from splitsem.plots.page import Card, Page, Section, render
from splitsem.plots.units import format_score


def _yes(value: float) -> str:
    return "yes" if value else "no"


COLUMNS: Mapping[str, Column | str] = {
    "accuracy": Column("accuracy", "", "Of the chosen network, on the test split.", 1, format_score),
    "accuracy_ref": Column(
        "A_ref", "", "Of the network with all branches, or unsplit, on the test split.", 1, format_score
    ),
    "feasible": Column("ε kept", "", "Whether accuracy is at least A_ref − ε on the test split.", 1, _yes),
    "slack": Column("ξ", "points", "By how much ε is missed on the test split; 0 where it is kept.", 100),
    "throughput_hz": Column("throughput", "Hz", "Samples a second, 1 / cycle: the three stages overlap."),
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
    "edge_s": Column("edge", "ms", "Time of the head.", 1e3),
    "link_s": Column("link", "ms", "Time on the link.", 1e3),
    "server_s": Column("server", "ms", "Time of the tail.", 1e3),
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
    "domains": "Above, accuracy on the test split against that of all branches; below, throughput gained over both "
    "baselines, each at the cut that is best for it.",
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
        labels: of each job that chose something, what tells it from the others.
        pictures: PNG files by label (empty for the whole sweep's) and name.
        title: heading of the page.
        command: the command line that made the results.
        details: date, versions, machine; shown as they are.

    Returns:
        A complete HTML page; every value in it is escaped.
    """
    done = results[(results["status"] == "ok") & results["accuracy"].notna()]
    kept = done["feasible"].astype(bool)
    table = jobs_table(done, labels, COLUMNS, kept.tolist(), "Coloured: ε is kept on the test split.")
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
            cards=_cards(done, kept) if len(done) else [],
            pictures=jobs_pictures(pictures, _CAPTIONS),
            sections=[Section("Joint optima", [table], instead="No job chose anything.")],
            failures=jobs_failed(results),
            facts=facts,
            words=_WORDS,
            glossary=glossary(COLUMNS, done),
        )
    )


def _cards(done: pd.DataFrame, kept: pd.Series) -> list[Card]:
    epsilon = ", ".join(f"{value:g}" for value in done["epsilon"].unique())
    missed = f"missed by at most ξ = {done['slack'].max():.4f}" if not kept.all() else "no slack is needed"
    cards = [
        Card(
            "The accuracy constraint holds on the test split",
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
    """What is gained over what, in words, as far as these jobs have it."""
    with_branches = done["gammas"].notna() if "gammas" in done else pd.Series(False, done.index)
    kinds = {True: "all branches in parallel", False: "float32"}
    words = {"gain_over_baseline": " or ".join(over for kind, over in kinds.items() if (with_branches == kind).any())}
    words |= {"gain_over_fused": "all branches folded", "gain_over_unsplit": "one machine alone"}
    return {name: over for name, over in words.items() if name in done and done[name].notna().any()}
