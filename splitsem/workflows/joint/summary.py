"""The end of a sweep of joint optimisations: the domains (or whatever was swept) in one table and figure."""

import re

import pandas as pd
from rich.table import Table

from splitsem.files import write_csv
from splitsem.report.joint_report import domain_gains, joint_report, score_word
from splitsem.report.results import is_override
from splitsem.report.style import save
from splitsem.report.terminal import grid_of, plain
from splitsem.report.units import format_hz, format_score, format_seconds
from splitsem.workflows.summary import Sweep

TABLE = "domains.csv"
_LEAST = (("λ",), ("A_ref",), ("latency",), ("rate",))  # the first to go on a narrow terminal
_PICTURES = ("accuracy_throughput", "gamma_map")  # of a job
_COLUMNS = [
    "label",
    "accuracy",
    "accuracy_ci95",
    "accuracy_ref",
    "accuracy_delta",
    "accuracy_delta_ci95",
    "num_samples",
    "epsilon",
    "slack",
    "feasible",
    "objective",
    "objective_value",
    "latency_s",
    "throughput_hz",
    "baseline_throughput_hz",
    "fused_throughput_hz",
    "gain_over_baseline",
    "gain_over_fused",
    "gain_over_edge_only",
    "gain_over_server_only",
    "gain_over_stronger",
    "predicted_t_eff_s",
    "baseline_t_eff_s",
    "fused_t_eff_s",
    "lambda",
    "split_point",
    "codec",
    "payload_bytes",
    "gammas",
    "accuracy_val",
    "accuracy_ref_val",
    "num_scored",
]
_MEASURED = [  # of mode=real
    "measured_t_eff_s",
    "t_eff_prediction_error",
    "relative_t_eff_prediction_error",
    "measured_throughput_hz",
    "measured_baseline_throughput_hz",
    "measured_fused_throughput_hz",
    "measured_gain_over_baseline",
    "measured_gain_over_fused",
    "wire_accuracy",
]
_GROUPS = ("domain", "model", "transport", "optimise")


def summarise(sweep: Sweep) -> None:
    """Leave ``domains.csv``, ``domains.png`` and ``report.html`` of what the jobs chose, and print the table."""
    results = sweep.results
    if not {"accuracy_ref", "gain_over_baseline"} <= set(results):  # no job chose and scored
        sweep.print_list()
        return
    table = domain_table(results)
    write_csv(table, sweep.folder / TABLE)
    subtitle = " · ".join(str(results[g].dropna().iloc[0]) for g in ("task", *_GROUPS[1:]) if results[g].nunique() == 1)
    weaker, stronger = _baselines(table)
    word = score_word(results)
    shown = _as_measured(table)
    if shown is not table:
        subtitle += " · measured on the wire"
    swept = "domain" if results["domain"].nunique() > 1 else "setting"
    save(domain_gains(shown, subtitle, weaker, stronger, word, swept), sweep.folder / "domains")
    sweep.print_table(_terminal(shown, subtitle, swept, weaker, stronger, word))
    kept = int(table["feasible"].sum())
    sweep.write_best(_best(shown))
    sweep.console.print(
        f"• The {word} constraint holds on the test split in {kept} of {len(table)}; throughput "
        f"{_span(shown['gain_over_baseline'])} over {weaker}, {_span(shown['gain_over_stronger'])} over {stronger}, "
        "each at its best cut.",
        highlight=False,
    )
    least = ", ".join(table["objective"].unique())
    sweep.console.print(f"• Each has the least {least}, which need not be the highest throughput.", highlight=False)
    if table["accuracy_delta_ci95"].notna().any():
        num_tied = int((table["accuracy_delta"].abs() <= table["accuracy_delta_ci95"]).sum())
        sweep.console.print(
            f"• In {num_tied} of {len(table)} {word} and A_ref cannot be told apart (95 %, paired over samples).",
            highlight=False,
        )
    if shown is not table:
        worst = table["t_eff_prediction_error"].max()
        sweep.console.print(f"• These were measured; T_eff was predicted to within {worst:.1%} of it.", highlight=False)
    sweep.console.print(f"\n{plain((sweep.folder / 'domains.png').absolute())}", highlight=False, soft_wrap=True)
    labels = table["label"].astype(str).tolist()
    jobs = sweep.done.loc[sweep.done["accuracy"].notna(), "job"]
    pictures = sweep.pictures(("domains",), dict(zip(labels, jobs, strict=True)), _PICTURES)
    sweep.write_page(joint_report(results, labels, pictures, *sweep.origin))


def domain_table(results: pd.DataFrame) -> pd.DataFrame:
    """The jobs that found something, sorted by domain and named by what they differ in."""
    found = results[(results["status"] == "ok") & results["accuracy"].notna()]
    swept = [c for c in map(str, found) if "." in c and is_override(c) and c != "task.domain"]
    differing = [c for c in (*_GROUPS, *swept) if c in found and found[c].nunique() > 1]
    shown = found[differing].map(_plain) if differing else found[["job"]].map(_plain)
    stronger = [found[name] for name in ("gain_over_fused", "gain_over_unsplit") if name in found]
    found = found.assign(label=shown.agg(" · ".join, axis=1), gain_over_stronger=stronger[0].fillna(stronger[-1]))
    return found[[name for name in (*_COLUMNS, *_MEASURED) if name in found]].reset_index(drop=True)


def _as_measured(table: pd.DataFrame) -> pd.DataFrame:
    """The table with predictions replaced by measurements on the wire; unchanged if a job measured nothing."""
    pairs = {"throughput_hz": "throughput_hz", "gain_over_baseline": "gain_over_baseline"}
    pairs["gain_over_stronger"] = "gain_over_fused"
    if not all(f"measured_{name}" in table and table[f"measured_{name}"].notna().all() for name in pairs.values()):
        return table
    return table.assign(**{name: table[f"measured_{measured}"] for name, measured in pairs.items()})


def _baselines(table: pd.DataFrame) -> tuple[str, str]:
    """The baselines of ``gain_over_baseline`` and ``gain_over_stronger`` in words, which depend on the networks."""
    with_branches = table["gammas"].notna() if "gammas" in table else pd.Series(False, table.index)
    if with_branches.all():
        return "all branches in parallel", "all fused"
    if with_branches.any():
        return "the usual baseline", "the stronger one"
    return "float32 features", "one machine alone"


def _best(shown: pd.DataFrame) -> dict[str, float | str]:
    """Of the optima that keep ε, the fastest; and how many keep it."""
    kept = shown[shown["feasible"].astype(bool)].sort_values("throughput_hz", ascending=False)
    found: dict[str, float | str] = {"num_epsilon_kept": len(kept)}
    if len(kept):
        first = kept.iloc[0]
        found |= {"best_throughput_hz": float(first["throughput_hz"]), "winner_throughput_hz": str(first["label"])}
        found["best_throughput_hz_accuracy"] = float(first["accuracy"])
    return found


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _span(gains: pd.Series) -> str:
    low, high = f"{gains.min():+.1%}", f"{gains.max():+.1%}"
    return low if low == high else f"{low} … {high}"


def _terminal(table: pd.DataFrame, title: str, swept: str, weaker: str, stronger: str, word: str) -> Table:
    drawn = grid_of(title, _LEAST, TABLE)
    has_codecs = "codec" in table
    short = [re.sub(r"^all (branches in )?| features$| alone$", "", text) for text in (weaker, stronger)]
    words = [f"over\n{text}" for text in short]
    names = [
        swept,
        word,
        "A_ref",
        "ε kept",
        "T_eff",
        "latency",
        "rate",
        *words,
        "λ",
        "split point",
        *["codec"] * has_codecs,
    ]
    for name in names:
        if name in (swept, "split point", "codec"):
            drawn.add_column(name, overflow="fold", min_width=8)
        else:
            drawn.add_column(name, justify="right", no_wrap=True)
    for row in table.to_dict("records"):
        drawn.add_row(
            str(row["label"]),
            format_score(row["accuracy"]) + ("" if pd.isna(row["accuracy_ci95"]) else f" ± {row['accuracy_ci95']:.4f}"),
            format_score(row["accuracy_ref"]),
            "yes" if row["feasible"] else f"ξ {row['slack']:.4f}",
            format_seconds(row["predicted_t_eff_s"]),
            format_seconds(row["latency_s"]),
            format_hz(row["throughput_hz"]),
            f"{row['gain_over_baseline']:+.1%}",
            f"{row['gain_over_stronger']:+.1%}",
            f"{row['lambda']:.0f}",
            str(row["split_point"]),
            *([str(row["codec"])] if has_codecs else []),
        )
    return drawn
