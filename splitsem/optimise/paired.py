"""How far two networks' accuracies on some samples may be from those on others, where both saw the same samples."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike


def paired_margin(right: ArrayLike, right_ref: ArrayLike, confidence: float = 0.99) -> float:
    """``z · sd(d) / √n`` of the differences d = right_ref − right, sample by sample; z is the confidence's quantile.

    A network that loses at most ε less this margin here loses at most ε elsewhere with that confidence (one-sided,
    normal approximation). Networks that mostly err on the same samples differ by little chance, and one that computes
    the same function by none, so its margin is 0; the standard error of one accuracy knows nothing of that.

    >>> paired_margin([1, 1, 0, 1], [1, 1, 0, 1])
    0.0
    >>> round(paired_margin([1, 0, 1, 1] * 100, [1, 1, 1, 1] * 100, 0.95), 4)
    0.0357

    Args:
        right: of each sample, whether the network is right, ``(n,)``.
        right_ref: the same of the reference.
        confidence: 0.5…1, both excluded.

    Raises:
        ValueError: the two are not of the same samples, there are fewer than two, or the confidence cannot be.
    """
    z = quantile(confidence)
    own, reference = np.asarray(right, dtype=float), np.asarray(right_ref, dtype=float)
    if own.ndim != 1 or own.shape != reference.shape or len(own) < 2:
        raise ValueError(
            f"right and right_ref must be of the same samples, two or more, got {own.shape} and {reference.shape}"
        )
    return float(z * (reference - own).std(ddof=1) / len(own) ** 0.5)


def quantile(confidence: float) -> float:
    """How many standard errors a one-sided bound of that confidence is away (normal approximation).

    Args:
        confidence: 0.5…1, both excluded.

    Raises:
        ValueError: it is not within these.
    """
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence must be above 0.5 and below 1, got {confidence}")
    return NormalDist().inv_cdf(confidence)
