"""The damage of a unit is the score lost by running a subset of its branches; damages add up over a network's units."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitsem.models.branches import GAMMAS, Branch
from splitsem.search.problem import Floats, Mask, Problem

SUBSETS: tuple[frozenset[Branch], ...] = tuple(dict.fromkeys(gamma.branches for gamma in GAMMAS))
"""The seven sets of branches that a block can run with: D, K, I, D K, D I, K I, D K I."""
SUBSET_OF: NDArray[np.intp] = np.array([SUBSETS.index(gamma.branches) for gamma in GAMMAS])
"""γ → its subset's place in ``SUBSETS``, ``(14,)``."""

GRAIN = 2.0**-44
"""A unit of score: sums of its multiples are exact in any order, so a choice of γ has one damage at every cut."""


@dataclass(frozen=True, eq=False)
class DamageTable:
    """ΔA = A_ref − A of each of U units and branch subset, as a score (0.02 is two points); A_ref is the reference's.

    The damage of a network is the sum over its units. The reference's own subsets have damage 0, a negative damage
    improves the score, and a subset of damage inf is never chosen.

    Attributes:
        values: ``(U, 7)``, columns as in ``SUBSETS``, rounded to multiples of ``GRAIN``.

    Raises:
        ValueError: the shape is not ``(U, 7)``, or a value is NaN or -inf.
    """

    values: Floats

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=float)
        if values.ndim != 2 or values.shape[1] != len(SUBSETS):
            raise ValueError(f"damage must have shape (units, {len(SUBSETS)}), got {values.shape}")
        if np.isnan(values).any() or np.isneginf(values).any():
            unit, subset = np.argwhere(np.isnan(values) | np.isneginf(values))[0]
            raise ValueError(
                f"damage of unit {unit}, branches {_label(subset)}, must be a number, or inf for what is never chosen, "
                f"got {values[unit, subset]}"
            )
        values = np.round(values / GRAIN) * GRAIN
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    @property
    def by_gamma(self) -> Floats:
        """The damage by unit and γ, ``(U, 14)``."""
        return self.values[:, SUBSET_OF]

    def total(self, gammas: Sequence[int]) -> float:
        """Damage of the network whose units run in ``gammas``."""
        return float(self.values[np.arange(len(self.values)), SUBSET_OF[list(gammas)]].sum())


def ablation(
    problem: Problem,
    reference: Sequence[int],
    score: Callable[[tuple[int, ...]], float],
    score_ref: float,
    allowed: Mask | None = None,
) -> DamageTable:
    """Measure the damage of each unit and subset alone, while every other unit stays in its reference γ.

    Args:
        problem: says which γ are offered; subsets that no γ offers get inf.
        reference: the γ of the reference network.
        score: the true score, on the validation split, of the network with the given γ.
        score_ref: the score A_ref of the reference network.
        allowed: ``(U, 14)``, which γ may be chosen; by default all that are offered.

    Raises:
        ValueError: ``reference`` does not have a γ for each unit.
    """
    if len(reference) != problem.num_units:
        raise ValueError(f"reference must have one γ for each of {problem.num_units} units, got {len(reference)}")
    values = np.full((problem.num_units, len(SUBSETS)), np.inf)
    for unit, offered in enumerate(problem.offered if allowed is None else problem.offered & allowed):
        for gamma in np.flatnonzero(offered)[::-1]:  # the first γ of each subset is scored
            values[unit, SUBSET_OF[gamma]] = gamma
        for subset in np.flatnonzero(np.isfinite(values[unit])):
            if subset == SUBSET_OF[reference[unit]]:
                values[unit, subset] = 0.0
                continue
            gammas = (*reference[:unit], int(values[unit, subset]), *reference[unit + 1 :])
            values[unit, subset] = score_ref - score(gammas)
    return DamageTable(values)


def _label(subset: int) -> str:
    return "+".join(branch for branch in Branch if branch in SUBSETS[subset])


SHIFT, SCALE, ENTRY, FLOOR, NOISE = 0.002, 0.5, 0.5, 0.0005, 1e-5
"""Expected errors (standard deviations; as scores where not a share) of the constant c, of the factor s, of a table's
entry as a share of it, of an entry at least, and of what no table can explain."""


def recalibrated(damage: DamageTable, gammas: NDArray[np.int8], observed: ArrayLike) -> DamageTable:
    """The table d corrected to ``c + s·d + δ``; one ridge regression finds the likeliest c, s and δ.

    Interactions between units make the true damage of a network larger or smaller than the sum over its units. The
    constant c and the factor s carry over to networks that were not scored; δ has an entry for each of the table's and
    mostly fits the scored networks.

    Args:
        damage: the table as measured, not a corrected one; c is added to the first unit's row.
        gammas: γ of the scored networks, ``(n, U)``.
        observed: true ΔA of each scored network, ``(n,)``.

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
    """1 where a network's damage sums an entry of the table, else 0, ``(n, U · 7)``."""
    chosen = np.zeros((len(subsets), *values.shape))
    chosen[np.arange(len(subsets))[:, None], np.arange(len(values)), subsets] = 1.0
    return chosen.reshape(len(subsets), -1)
