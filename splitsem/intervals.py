"""95 % intervals: of a mean over seeds, and of a score over its samples, by a bootstrap whose draws are paired.

A bootstrap draws the samples again, with replacement (Efron, Annals of Statistics 7(1), 1979). All scores on the same
number of samples are drawn alike, so that the difference of two scores, draw by draw, tells what the samples say of the
difference: much more than two intervals do, since both networks err on the same samples.
"""

import functools
from collections.abc import Sequence
from statistics import stdev

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitsem import extras

NUM_DRAWS = 500
"""How many times the samples are drawn again: the ends of the interval are then known to about 3 % of its width."""

NUM_PARTS = 4
"""In how many parts ``wander`` takes the times of a job."""

_SEED = 0


@functools.lru_cache(maxsize=8)
def resamples(num_samples: int) -> NDArray[np.float32]:
    """How often each draw has each sample, ``(NUM_DRAWS, num_samples)``; the same at every call."""
    draw = np.random.default_rng((_SEED, num_samples))
    share = np.full(num_samples, 1 / num_samples)
    counts = draw.multinomial(num_samples, share, size=NUM_DRAWS).astype(np.float32)
    counts.flags.writeable = False
    return counts


def half_width(draws: ArrayLike) -> float:
    """Half the width of the central 95 % of the draws ``(B,)``: of a score, or of a difference of two scores.

    >>> half_width([0.5] * 100)
    0.0
    """
    low, high = np.percentile(np.asarray(draws, dtype=np.float64), [2.5, 97.5])
    return float(high - low) / 2


def median_half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the median, by order statistics.

    The interval lies between the values of the ranks ``n/2 - 0.98 √n`` and ``1 + n/2 + 0.98 √n`` (Conover, Practical
    Nonparametric Statistics, 3.2), whatever the distribution; of few values, between the least and the largest.

    >>> median_half_width([1.0, 2.0, 4.0]), median_half_width([5.0])
    (1.5, 0.0)
    """
    ordered, room = np.sort(np.asarray(values, dtype=np.float64)), 0.98 * len(values) ** 0.5
    low, high = int(np.floor(len(values) / 2 - room)) - 1, int(np.ceil(len(values) / 2 + room))
    return float(ordered[min(high, len(values) - 1)] - ordered[max(low, 0)]) / 2


def wander(timed_s: Sequence[float]) -> float:
    """How far the median of a quarter of the times lies from the next quarter's: what a machine's pace wanders.

    The standard deviation of the logarithms of the four medians: a share of the time, of ``NUM_PARTS - 1`` degrees of
    freedom. Other programs slow a machine for a while, which times one after the other tell and their spread does not.

    Args:
        timed_s: in the order in which they were taken, at least ``NUM_PARTS``, all above 0.

    >>> round(wander([1.0, 1.0, 1.1, 1.1, 1.0, 1.0, 1.1, 1.1]), 3)
    0.055
    """
    parts = np.array_split(np.asarray(timed_s, dtype=np.float64), NUM_PARTS)
    return float(np.log([np.median(part) for part in parts]).std(ddof=1))


def of_one(deviations: Sequence[float], freedom: int) -> float:
    """How far one value may lie from its mean, 95 %: Student's t times the deviation that is common to all.

    That is told from the median of the variances, which by chance is ``χ²(0.5) / freedom`` of the true one: a few of
    them are far larger, where something else took a processor for a moment, and would make a mean of little use.

    Args:
        deviations: standard deviations that were found; at least one.
        freedom: degrees of freedom of each.

    >>> round(of_one([0.1, 0.1, 0.1, 9.0], 3), 3)
    0.245
    """
    with extras.needed("plots", "an interval of times"):
        from scipy import special

    median_share = 2 * float(special.gammaincinv(freedom / 2, 0.5)) / freedom
    common = float(np.median(np.square(deviations)) / median_share) ** 0.5
    return _student(len(deviations) * freedom) * common


def ci95(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % confidence interval of the mean (Student's t); None for a single value.

    >>> ci95([1.0, 1.0, 1.0])
    0.0
    """
    if len(values) < 2:
        return None
    return _student(len(values) - 1) * stdev(values) / len(values) ** 0.5


def _student(freedom: int) -> float:
    """The 97.5 % point of Student's t."""
    with extras.needed("training", "an interval of few values"):
        from scipy import special

    return float(special.stdtrit(freedom, 0.975))
