"""Rates at equal score: configurations against float32, uint8 and the picture itself, and BD-rates between codecs."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from splitsem.bd_rate import NUM_POINTS_NEEDED, Curve, bd_rate
from splitsem.plots import results as rs
from splitsem.plots.units import MISSING


class DeltaRate(NamedTuple):
    """One codec against another.

    Attributes:
        codec: family and split point.
        reference: what it is compared with.
        bd_rate: mean excess of bytes at equal score, 0.25 being 25 % more; None where there is none.
        trouble: why there is none; else empty.
    """

    codec: str
    reference: str
    bd_rate: float | None
    trouble: str = ""

    @property
    def text(self) -> str:
        """For a table.

        >>> DeltaRate("a", "b", -0.123).text
        '−12.3 %'
        """
        return MISSING if self.bd_rate is None else f"{100 * self.bd_rate:+.1f} %".replace("-", "−")


def equal_score(frame: pd.DataFrame) -> pd.DataFrame:
    """How many times smaller each configuration's payload is than what else could be sent.

    Args:
        frame: of ``results.prepare``.

    Returns:
        For each row that ran and is no reference: ``series, split_point, score, payload_bytes``, then the ratios
        ``float32`` (all crossing tensors), ``uint8`` (the sample as it is), and for each kind of picture, e.g.
        ``JPEG``, its bytes at the same score divided by the payload; NaN where it was not sent at such a score.
    """
    split = rs.splits(frame)
    table = split[["series", "split_point", "score", "payload_bytes"]].copy()
    table["float32"] = split["raw_bytes"] / split["payload_bytes"]
    table["uint8"] = split["input_bytes"] / split["payload_bytes"]
    for name in rs.references(frame)["family"].unique():
        table[name] = [_picture_ratio(frame, split.loc[[index]], name) for index in split.index]
    return table


def delta_rates(frame: pd.DataFrame) -> list[DeltaRate]:
    """The BD-rate of each codec's curve against JPEG and WebP where these have enough points, else the first curve.

    A curve is a family of settings at one split point; families with fewer points than a BD-rate needs are left out.

    Args:
        frame: of ``results.prepare``.
    """
    split = rs.splits(frame)
    own = {
        f"{family} · {point}" if split["split_point"].nunique() > 1 else str(family): rows
        for (family, point), rows in split.groupby(["family", "split_point"], sort=False)
        if rows["payload_bytes"].nunique() >= NUM_POINTS_NEEDED
    }
    found = []
    for name, rows in own.items():
        pictures = rs.references_for(frame, rows)
        against = {str(f): r for f, r in pictures.groupby("family", sort=False) if len(r) >= NUM_POINTS_NEEDED}
        first = next(iter(own))
        if not against and name != first:
            against = {first: own[first]}
        found += [_delta(name, rows, reference, others) for reference, others in against.items()]
    return found


def _delta(name: str, rows: pd.DataFrame, reference: str, others: pd.DataFrame) -> DeltaRate:
    try:
        return DeltaRate(name, reference, bd_rate(_curve(rows), _curve(others)))
    except ValueError as exc:
        return DeltaRate(name, reference, None, str(exc))


def _picture_ratio(frame: pd.DataFrame, row: pd.DataFrame, picture: str) -> float:
    """Bytes of the picture at the row's score, divided by the row's payload."""
    pictures = rs.references_for(frame, row)
    log_rate = _curve(pictures[pictures["family"] == picture]).log_rate_at(float(row["score"].iloc[0]))
    return float("nan") if log_rate is None else float(np.exp(log_rate) / row["payload_bytes"].iloc[0])


def _curve(rows: pd.DataFrame) -> Curve:
    whole = rows[np.isfinite(rows["payload_bytes"]) & (rows["payload_bytes"] > 0)]
    return Curve.of(whole["payload_bytes"].to_numpy(), whole["score"].to_numpy())
