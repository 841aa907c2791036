"""The HTML report of a sweep of federated runs: score against what the clients sent."""

from collections.abc import Mapping, Sequence

import pandas as pd

from splitsem.plots.columns import Column
from splitsem.plots.jobs_table import glossary, jobs_failed, jobs_pictures, jobs_table, whole
from splitsem.plots.page import Card, Page, Section, render
from splitsem.plots.results import SCORE_MARGIN
from splitsem.plots.units import format_bytes, format_ratio, format_score

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
    """Write the report; arguments and result as those of ``joint_report``."""
    done = results[results["status"] == "ok"].assign(label=list(labels))
    done = done.sort_values("score", ascending=False, kind="stable")
    chosen = _smallest(done) if len(done) else None
    marked = [chosen is not None and job == chosen["job"] for job in done["job"]]
    note = f"Coloured: fewest bytes up within {100 * SCORE_MARGIN:g} point of the best score."
    same = {name: str(done[name].iloc[0]) for name in _FACTS if name in done and done[name].nunique() == 1}
    columns = {name: column for name, column in COLUMNS.items() if name not in same}  # which the facts have
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
    """The run that sends least up among those that are as good as the best."""
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
