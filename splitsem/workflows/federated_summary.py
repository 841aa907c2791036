"""What a sweep of federated runs leaves beside results.csv: a table, and score against the bytes of an update."""

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from splitsem.plots.federated import score_by_update
from splitsem.plots.units import format_bytes, format_seconds

_NAMED = ("task", "model", "codec", "strategy", "split_point", "partition", "privacy", "downlink_codec", "head_codec")


def is_federated(results: pd.DataFrame) -> bool:
    """Whether a sweep's jobs were federated runs."""
    return "uplink_compression_ratio" in results


def summarise_federated(folder: Path, results: pd.DataFrame, console: Console) -> list[str]:
    """Draw and print; returns the label of each job that succeeded."""
    done = results[results["status"] == "ok"].copy()
    if len(done) < len(results):
        console.print(f"{len(results) - len(done)} jobs failed: see results.csv", highlight=False)
    done["label"] = _labels(done)
    score_by_update(done).savefig(folder / "score_by_update.png")
    table = Table(box=None, header_style="bold")
    for heading in ("run", "score", "up", "ratio", "down", "round", "left out"):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for row in done.sort_values("score", ascending=False).to_dict("records"):
        table.add_row(
            row["label"],
            f"{row['score']:.4f}",
            format_bytes(row["uplink_bytes"]),
            f"{row['uplink_compression_ratio']:.1f}",
            format_bytes(row["downlink_bytes"]),
            format_seconds(row["round_s"]),
            str(int(row["failed_clients"])),
        )
    console.print(table)
    console.print("up, down: a client and round · ratio: to the same without a codec", highlight=False)
    return done["label"].tolist()


def _labels(done: pd.DataFrame) -> pd.Series:
    """Each run by what differs between them: names of choices, and swept settings."""
    swept = [column for column in map(str, done) if "." in column and "@" not in column]
    differing = [c for c in (*_NAMED, *swept) if c in done and done[c].dropna().astype(str).nunique() > 1]
    if not differing:
        return done["codec"].astype(str)
    prefixes = {c: "" if c in _NAMED else f"{c.rpartition('.')[2]}=" for c in differing}
    prefixes |= {"head_codec": "heads "} if "head_codec" in differing else {}
    texts = [(prefix + done[c].astype(str)).where(done[c].notna(), "") for c, prefix in prefixes.items()]
    labels = [" · ".join(filter(None, row)) for row in zip(*texts, strict=True)]
    return pd.Series(labels, index=done.index)
