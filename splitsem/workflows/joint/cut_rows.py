"""Rows of the table of cuts and codecs: as what a choice looks at, and as JSON."""

from dataclasses import fields

import numpy as np
import pandas as pd

from splitsem.search.fronts import Choice
from splitsem.search.objective import Objective, Stages
from splitsem.search.rate_table import Rate, RateTable
from splitsem.search.solution import ROUNDING
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


def with_one_answer(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with the same seconds for coding and reading the answer: their median over the rows that have an answer.

    The answer is the network's output whatever crosses before it, so that what rows differ by is the machine's noise.
    """
    times = rows[["answer_encode_s", "answer_decode_s"]].astype(float)
    return rows.assign(**times.mask(times > 0, times[times > 0].median(), axis=1))


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


def choose(table: RateTable, epsilon: float, least: str) -> Choice:
    """The row of least value that keeps ε, or with ``least="damage"`` that of least loss, margins included."""
    if least == "damage":
        epsilon = max(0.0, min(lost + rate.margin for lost, rate in zip(table.damage, table.rates, strict=True)))
    return table.choose(epsilon)


def keeping(rows: pd.DataFrame, table: RateTable, joint: Document, least: str) -> pd.DataFrame:
    """The rows whose damage and margin, by the table of these rows, keep what the choice had to keep.

    That is ε and the choice's slack; with ``least="damage"`` the choice's own damage and margin.
    """
    best = joint["best"]
    is_value = least == "value"
    most_damage = joint["epsilon"] + best["slack_val"] if is_value else max(0.0, best["damage"] + joint["margin"])
    margins = np.array([rate.margin for rate in table.rates])
    return rows[table.damage + margins <= most_damage + ROUNDING]


def screened_out(rows: pd.DataFrame) -> dict[str, list[str]]:
    """The codecs that were not scored by the bytes of all samples, by split point."""
    out = rows[rows["screened_out"]]
    return {str(name): list(some["codec"]) for name, some in out.groupby("split_point", sort=False)}
