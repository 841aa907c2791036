"""Screening: which rows of a rate–accuracy table may be chosen, by the bytes and times of a few samples."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from splitsem.workflows.codec_offers import REFERENCE
from splitsem.workflows.joint.rates import MEANS, MEDIANS, error_of

_ERRORS = 4.0
"""Standard errors that a mean over a few samples may be off by: of 20 samples, one mean of 1,300 is further off."""
_CODING = 0.3
"""Share that a median of coding times may be off by, on a machine that does other work too."""

Valued = Callable[[pd.DataFrame], pd.DataFrame]


def survivors(rows: pd.DataFrame, valued: Valued) -> NDArray[np.bool_]:
    """The rows that may be on the front of value and damage, or the choice, once all samples are coded.

    The damage of a row is known: all samples were scored. Its value lies between that of its bytes and times at their
    least and at their most, since no objective falls where a stage takes longer. A row is out where another one beats
    it in all of these cases: in value, in damage, and in damage with its margin. The rows of the baselines stay.

    Args:
        rows: those that a codec can carry, see ``rates.measure_rates``.
        valued: gives rows their ``value``, ``damage`` and ``margin``, in the order of the rows.
    """
    least, most = valued(_shifted(rows, -1)), valued(_shifted(rows, 1))
    low, high = least["value"].to_numpy(), most["value"].to_numpy()
    damage = least["damage"].to_numpy()
    kept = damage + least["margin"].to_numpy()
    beats = (high[:, None] <= low) & (damage[:, None] <= damage) & (kept[:, None] <= kept)
    np.fill_diagonal(beats, False)
    found: NDArray[np.bool_] = ~beats.any(axis=0) | (rows["codec"] == REFERENCE).to_numpy()
    return found


def _shifted(rows: pd.DataFrame, sign: int) -> pd.DataFrame:
    """The rows with means and medians at the ends of what they may be."""
    shifted = rows.copy()
    for name in MEANS:
        shifted[name] = (rows[name] + sign * _ERRORS * rows[error_of(name)]).astype(float).clip(lower=0)
    for name in MEDIANS:
        shifted[name] = rows[name] * (1 + sign * _CODING)
    return shifted
