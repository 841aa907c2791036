"""Which γ a solver may choose: all, those that compute the same function, or one given γ a unit."""

from collections.abc import Sequence

import numpy as np

from splitsem.models.branches import GAMMAS, whole_gamma
from splitsem.optimise.problem import NUM_GAMMAS, Mask, Problem


def parallel_gammas(problem: Problem) -> tuple[int, ...]:
    """Of each unit the γ with all its branches beside each other: the usual baseline."""
    return _whole(problem, folded=False)


def fused_gammas(problem: Problem) -> tuple[int, ...]:
    """Of each unit the γ with all its branches folded into one: the stronger baseline."""
    return _whole(problem, folded=True)


def only(gammas: Sequence[int]) -> Mask:
    """A mask, ``(U, 14)``, that allows each unit its given γ alone; the cut is still free.

    Raises:
        ValueError: a γ is not 0…13.
    """
    return np.arange(NUM_GAMMAS) == _column(gammas)


def function_equivalent(gammas: Sequence[int]) -> Mask:
    """A mask, ``(U, 14)``, that allows each unit those γ that compute the same function as the given one.

    Raises:
        ValueError: a γ is not 0…13.
    """
    same = np.array([[a.branches == b.branches for b in GAMMAS] for a in GAMMAS])
    return same[_column(gammas)[:, 0]]


def _whole(problem: Problem, folded: bool) -> tuple[int, ...]:
    return tuple(whole_gamma(np.flatnonzero(row).tolist(), folded) for row in problem.offered)


def _column(gammas: Sequence[int]) -> np.ndarray:
    values = np.asarray(gammas, dtype=int).reshape(-1, 1)
    if not ((values >= 0) & (values < NUM_GAMMAS)).all():
        raise ValueError(f"each γ must be 0…{NUM_GAMMAS - 1}, got {list(gammas)}")
    return values
