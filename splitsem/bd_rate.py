"""Bjøntegaard delta rate: how many more bytes one codec takes than another at equal score."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

from splitsem.pareto import pareto_front

NUM_POINTS_NEEDED = 3  # Bjøntegaard's report has four; from three on a curve is more than a straight line


class Curve(NamedTuple):
    """What a codec's scores cost: points that no other of its own beats, with rising score and rate.

    Attributes:
        score: strictly rising, ``(n,)``.
        log_rate: natural logarithm of the bytes, rising, ``(n,)``.
    """

    score: NDArray[np.float64]
    log_rate: NDArray[np.float64]

    @classmethod
    def of(cls, rate_bytes: ArrayLike, score: ArrayLike) -> "Curve":
        """The curve through the points of one codec, in any order; those that cost more for no more score are left out.

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
        curve: of the codec in question.
        reference: what it is compared with.

    Raises:
        ValueError: a curve has fewer than three points, or no score is reached by both.

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
    areas = [float(PchipInterpolator(c.score, c.log_rate).integrate(low, high)) for c in (curve, reference)]
    return float(np.expm1((areas[0] - areas[1]) / (high - low)))
