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


def ci95(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % confidence interval of the mean (Student's t); None for a single value.

    >>> ci95([1.0, 1.0, 1.0])
    0.0
    """
    if len(values) < 2:
        return None
    with extras.needed("training", "an interval over seeds"):
        from scipy import special

    return float(special.stdtrit(len(values) - 1, 0.975)) * stdev(values) / len(values) ** 0.5
