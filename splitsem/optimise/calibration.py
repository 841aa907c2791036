"""Calibration: damages corrected by the true scores of whole networks."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitsem.optimise.damage import SUBSET_OF, DamageTable
from splitsem.optimise.problem import Floats

SHIFT, SCALE, ENTRY, FLOOR, NOISE = 0.002, 0.5, 0.5, 0.0005, 1e-5
"""Expected errors (standard deviations, as scores): of a constant; a factor; an entry of the table, as a share of it
and at least; and what no table can explain."""


def recalibrated(damage: DamageTable, gammas: NDArray[np.int8], observed: ArrayLike) -> DamageTable:
    """``c + s·d + δ`` in place of d, the likeliest that explain what was observed (ridge regression, all at once).

    Interactions between units make the true damage of a network larger or smaller than the sum of its units'. A
    constant c and a factor s carry over to networks that were not scored; δ, an entry of the table each, mostly makes
    the scored ones come out as they were.

    Args:
        damage: the table as measured, never one that was corrected before; c is added to the first unit's row.
        gammas: of the networks that were scored, ``(n, U)``.
        observed: true A_ref − A of each, ``(n,)``.

    Raises:
        ValueError: the shapes do not fit, or an observation is not finite.
    """
    values = damage.values
    observed = np.asarray(observed, dtype=float)
    if gammas.ndim != 2 or gammas.shape != (len(observed), len(values)):
        raise ValueError(f"gammas must have shape {(len(observed), len(values))}, got {gammas.shape}")
    if not np.isfinite(observed).all():
        raise ValueError("every observed damage must be finite")
    if not len(observed):
        return damage
    chosen = _incidence(values, SUBSET_OF[gammas])
    finite = np.where(np.isfinite(values), values, 0.0).ravel()
    predicted = chosen @ finite
    spread = (ENTRY * np.abs(finite) + FLOOR) ** 2
    covariance = SHIFT**2 + SCALE**2 * np.outer(predicted, predicted) + (chosen * spread) @ chosen.T
    weights = np.linalg.solve(covariance + NOISE**2 * np.eye(len(observed)), observed - predicted)
    factor = 1 + SCALE**2 * float(predicted @ weights)
    corrected = factor * finite + spread * (chosen.T @ weights)
    corrected = np.maximum(corrected, np.minimum(finite, 0.0)).reshape(values.shape)
    corrected[0] += SHIFT**2 * weights.sum()
    return DamageTable(np.where(np.isfinite(values), corrected, np.inf))


def _incidence(values: Floats, subsets: NDArray[np.intp]) -> Floats:
    """Which entries of the table each network adds up, ``(n, U · 7)``."""
    chosen = np.zeros((len(subsets), *values.shape))
    chosen[np.arange(len(subsets))[:, None], np.arange(len(values)), subsets] = 1.0
    return chosen.reshape(len(subsets), -1)
