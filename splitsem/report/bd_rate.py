"""Bjøntegaard delta rate: how many more bytes one codec takes than another at equal score."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from splitsem.report import results as rs
from splitsem.report.pareto import pareto_front
from splitsem.report.units import MISSING

NUM_POINTS_NEEDED = 3  # Bjøntegaard's report has four; three points make a curve more than a straight line


class Curve(NamedTuple):
    """What a codec's scores cost in bytes: the codec's own best points, with rising score and rate.

    Attributes:
        score: strictly rising, ``(n,)``.
        log_rate: natural logarithm of the bytes, rising, ``(n,)``.
    """

    score: NDArray[np.float64]
    log_rate: NDArray[np.float64]

    @classmethod
    def of(cls, rate_bytes: ArrayLike, score: ArrayLike) -> "Curve":
        """The curve through one codec's points, in any order, without points that cost more for no more score.

        Raises:
            ValueError: the lengths differ, or a value is not finite, or a rate is not above zero.
        """
        rate, quality = np.asarray(rate_bytes, float), np.asarray(score, float)
        if rate.shape != quality.shape or rate.ndim != 1:
            raise ValueError(f"rate_bytes and score must be lists of one length, got {rate.shape} and {quality.shape}")
        if not (np.isfinite(rate).all() and np.isfinite(quality).all() and (rate > 0).all()):
            raise ValueError("every rate must be above 0 bytes, and every score finite")
        points = np.unique(np.stack([quality, np.log(rate)], 1), axis=0)
        front = points[pareto_front(points, maximise=[True, False])]
        return cls(front[:, 0], front[:, 1])

    def log_rate_at(self, score: float) -> float | None:
        """Logarithm of the bytes that ``score`` costs, between the curve's ends; None outside them."""
        if not len(self.score) or not self.score[0] <= score <= self.score[-1]:
            return None
        return float(np.interp(score, self.score, self.log_rate))


def bd_rate(curve: Curve, reference: Curve) -> float:
    """``exp(mean over the common scores of ln rate − ln reference's rate) − 1``: 0.25 is 25 % more bytes.

    The logarithm of the rate is interpolated over the score by monotone cubic pieces (PCHIP), where the publication
    has one cubic polynomial, which overshoots.

    Bjøntegaard, "Calculation of average PSNR differences between RD-curves", ITU-T VCEG-M33, 2001.

    Args:
        curve: curve of the codec in question.
        reference: curve of the codec that ``curve`` is compared with.

    Raises:
        ValueError: a curve has fewer than three points, or the two curves share no score.

    >>> cheap, dear = (Curve.of([k * 10, k * 20, k * 40], [0.5, 0.7, 0.8]) for k in (1, 1.25))
    >>> round(bd_rate(dear, cheap), 6)
    0.25
    """
    fewest = min(len(curve.score), len(reference.score))
    if fewest < NUM_POINTS_NEEDED:
        raise ValueError(f"needs {NUM_POINTS_NEEDED} points of rising rate and score, got {fewest}: sweep more rates")
    low, high = max(curve.score[0], reference.score[0]), min(curve.score[-1], reference.score[-1])
    if low >= high:
        raise ValueError(
            f"no common scores: {curve.score[0]:.4f}…{curve.score[-1]:.4f} against "
            f"{reference.score[0]:.4f}…{reference.score[-1]:.4f}"
        )
    from scipy.interpolate import PchipInterpolator  # takes longer to import than the page to make

    areas = [float(PchipInterpolator(c.score, c.log_rate).integrate(low, high)) for c in (curve, reference)]
    return float(np.expm1((areas[0] - areas[1]) / (high - low)))


class DeltaRate(NamedTuple):
    """The BD-rate of one codec against another codec.

    Attributes:
        codec: family and split point of the codec.
        reference: name of what the codec is compared with.
        bd_rate: mean excess of bytes at equal score, 0.25 being 25 % more; None where it cannot be told.
        trouble: why ``bd_rate`` is None; else empty.
    """

    codec: str
    reference: str
    bd_rate: float | None
    trouble: str = ""

    @property
    def text(self) -> str:
        """The BD-rate as text for a table.

        >>> DeltaRate("a", "b", -0.123).text
        '−12.3 %'
        """
        return MISSING if self.bd_rate is None else f"{100 * self.bd_rate:+.1f} %".replace("-", "−")


def equal_score(frame: pd.DataFrame) -> pd.DataFrame:
    """How many times smaller a configuration's payload is than the raw features, the sample or a picture.

    Args:
        frame: the result of ``results.prepare``.

    Returns:
        For each row that ran, sends something and is no reference: ``series, split_point, score, payload_bytes``, then
        the ratios ``float32`` (all crossing tensors), ``uint8`` (the sample as it is), and for each kind of picture,
        e.g. ``JPEG``, the picture's bytes at the same score ÷ the payload; NaN where no picture reached the score.
    """
    split = rs.splits(frame)
    split = split[split["payload_bytes"] > 0]
    table = split[["series", "split_point", "score", "payload_bytes"]].copy()
    table["float32"] = split["raw_bytes"] / split["payload_bytes"]
    table["uint8"] = split["input_bytes"] / split["payload_bytes"]
    sent = rs.references(frame)
    pictures = {index: rs.references_for(frame, split.loc[[index]]) for index in split.index}
    for name in sent.loc[sent["payload_bytes"] > 0, "family"].unique():
        table[name] = [
            _picture_ratio(pictures[index][pictures[index]["family"] == name], row) for index, row in split.iterrows()
        ]
    return table


def delta_rates(frame: pd.DataFrame) -> list[DeltaRate]:
    """The BD-rate of each curve against JPEG and WebP where they have enough points, else against the first curve.

    A curve is a family of settings at one split point; families with fewer points than a BD-rate needs are left out.

    Args:
        frame: the result of ``results.prepare``.
    """
    split = rs.splits(frame)
    split = split[split["payload_bytes"] > 0]
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


def _picture_ratio(pictures: pd.DataFrame, row: pd.Series) -> float:
    """Bytes of a kind of pictures at the row's score, divided by the row's payload."""
    log_rate = _curve(pictures).log_rate_at(float(row["score"]))
    return float("nan") if log_rate is None else float(np.exp(log_rate) / row["payload_bytes"])


def _curve(rows: pd.DataFrame) -> Curve:
    whole = rows[np.isfinite(rows["payload_bytes"]) & (rows["payload_bytes"] > 0)]
    return Curve.of(whole["payload_bytes"].to_numpy(), whole["score"].to_numpy())
