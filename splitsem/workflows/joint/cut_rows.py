"""Rows of the table of cuts and codecs: as what a choice looks at, and as JSON."""

from dataclasses import fields

import pandas as pd

from splitsem.search.objective import Objective, Stages
from splitsem.search.rate_table import Rate, RateTable
from splitsem.workflows.joint.base import Document

DERIVED = ("latency_s", "cycle_s", "throughput_hz")
_STAGES = tuple(field.name for field in fields(Stages))
_TIMES = (*_STAGES, "link_s", *DERIVED)


def rate_table(rows: pd.DataFrame, objective: Objective, score_ref: float, margin: float | None, z: float) -> RateTable:
    """The rows to choose from.

    Args:
        rows: with times, bytes and scores.
        objective: what is minimised.
        score_ref: of the unsplit network.
        margin: kept from the constraint; None: ``z`` standard errors of each row's loss.
        z: how many.
    """
    rates = [
        Rate(
            split_index=int(row["lambda"]),
            split_point=row["split_point"],
            codec=row["codec"],
            **{name: row[name] for name in ("payload_bytes", "score", *_STAGES)},
            margin=z * row["damage_error"] if margin is None else margin,
        )
        for row in rows.to_dict("records")
    ]
    return RateTable(rates, objective, score_ref)


def row_object(row: pd.Series) -> Document:
    """A row of the table as JSON."""
    names = ("split_point", "codec", "overrides")
    sizes, coding = ("raw_bytes", "payload_bytes", "answer_bytes"), ("encode_s", "decode_s")
    numbers = (*sizes, *coding, *_TIMES, "value", "value_spread", "damage", "damage_ci95")
    return {
        "lambda": int(row["lambda"]),
        **{name: str(row[name]) for name in names},
        **{name: float(row[name]) for name in numbers},
        "accuracy_val": float(row["score"]),
    }
