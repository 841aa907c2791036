"""What a sweep of federated runs leaves beside results.csv: a table of means over seeds, and two figures."""

import math
from pathlib import Path

import pandas as pd

from splitsem.files import write_csv
from splitsem.report.federated_figures import federated_report, over_seeds, score_by_update, score_over_rounds
from splitsem.report.results import is_override
from splitsem.report.style import save
from splitsem.report.terminal import grid_of
from splitsem.report.units import format_bytes, format_seconds
from splitsem.workflows.summary import Sweep

ROUNDS = "rounds.csv"  # in a job's folder: its history
_NAMED = ("task", "model", "codec", "strategy", "split_point", "partition", "privacy", "downlink_codec", "head_codec")


def summarise(sweep: Sweep) -> None:
    """Leave means over seeds, two figures and ``report.html``; print the means."""
    folder, console, done = sweep.folder, sweep.console, sweep.done.copy()
    if "uplink_compression_ratio" not in done:  # no job succeeded
        sweep.print_list()
        return
    if len(done) < len(sweep.results):
        console.print(f"{len(sweep.results) - len(done)} jobs failed: see results.csv", highlight=False)
    done["label"] = _labels(done)
    means = over_seeds(done)
    write_csv(means, folder / "means.csv")
    save(score_by_update(means), folder / "score_by_update")
    if len(history := _history(folder, done)):
        save(score_over_rounds(history), folder / "score_over_rounds")
    first = means.sort_values("score", ascending=False).iloc[0]
    best = {"best_score": float(first["score"]), "best_score_uplink_bytes": float(first["uplink_bytes"])}
    sweep.write_best(best | {"winner_score": str(first["label"])})
    _print(means.sort_values("score", ascending=False), sweep)
    labels = done["label"].tolist()
    jobs = dict(zip(labels, done["job"], strict=True))
    pictures = sweep.pictures(("score_by_update", "score_over_rounds"), jobs, ("score_by_round",))
    sweep.write_page(federated_report(sweep.results, labels, pictures, *sweep.origin))


def _print(means: pd.DataFrame, sweep: Sweep) -> None:
    table = grid_of("", (("round", "codec"), ("left out",), ("down",)), "means.csv")
    for heading in ("run", "seeds", "score", "below identity", "up", "ratio", "down", "round", "codec", "left out"):
        table.add_column(heading, justify="left" if heading == "run" else "right", no_wrap=heading != "run")
    for row in means.to_dict("records"):
        has_interval = row["num_runs"] > 1
        below = row.get("points_below_identity", math.nan)
        table.add_row(
            row["label"],
            str(row["num_runs"]),
            f"{row['score']:.4f}" + (f" ± {row['score_ci95']:.4f}" if has_interval else ""),
            "" if math.isnan(below) else f"{below:.2f}" + (f" ± {row['points_ci95']:.2f}" if has_interval else ""),
            format_bytes(row["uplink_bytes"]),
            f"{row['uplink_compression_ratio']:.1f}",
            format_bytes(row["downlink_bytes"]),
            format_seconds(row["round_s"]),
            "" if math.isnan(row["codec_share"]) else f"{100 * row['codec_share']:.1f} %",
            str(row["failed_clients"]),
        )
    sweep.print_table(table)
    sweep.console.print(_legend(means), highlight=False)


def _legend(means: pd.DataFrame) -> str:
    """What the table's columns say, of those that it has."""
    has_seeds, has_identity = (
        (means["num_runs"] > 1).any(),
        means.get("points_below_identity", pd.Series()).notna().any(),
    )
    says = {
        "±: 95 % interval of the mean over seeds": has_seeds,
        f"below identity: in points{', seed by seed' if has_seeds else ''}": has_identity,
        "up, down: a client and round · ratio: to the same without a codec": True,
        "codec: its share of the round": means["codec_share"].notna().any(),
    }
    return " · ".join(text for text, is_there in says.items() if is_there)


def _history(folder: Path, done: pd.DataFrame) -> pd.DataFrame:
    """All rounds that the runs recorded, under the labels of the table."""
    tables = []
    for run, label in zip(done["job"], done["label"], strict=True):
        if (path := folder / f"{run:.0f}" / ROUNDS).exists():
            tables.append(pd.read_csv(path).assign(run=run, label=label))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _labels(done: pd.DataFrame) -> pd.Series:
    """A label for each run, of what differs between the runs: names of choices, and swept settings."""
    swept = [column for column in map(str, done) if "." in column and "@" not in column and is_override(column)]
    differing = [c for c in (*_NAMED, *swept) if c in done and done[c].dropna().astype(str).nunique() > 1]
    if not differing:
        return done["codec"].astype(str)
    prefixes = {c: "" if c in _NAMED else f"{c.rpartition('.')[2]}=" for c in differing}
    prefixes |= {"head_codec": "heads "} if "head_codec" in differing else {}
    texts = [(prefix + done[c].astype(str)).where(done[c].notna(), "") for c, prefix in prefixes.items()]
    labels = [" · ".join(filter(None, row)) for row in zip(*texts, strict=True)]
    return pd.Series(labels, index=done.index)
