"""Goals: least slack ξ ≥ 0 in damage ≤ ε + ξ, then least value, then least damage, whatever there is to choose from."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem.optimise.problem import Floats
from splitsem.optimise.solution import ROUNDING, smallest_slack
from splitsem.optimise.tiers import staircase


class Choice(NamedTuple):
    """What was chosen among configurations, as places in their arrays.

    Attributes:
        best: least slack, then least value, then least damage (the lexicographic goals of arXiv 2411.00838, Eq. 7).
        front: those that no other one beats or equals in both value and damage, by rising value, ``(n,)``.
        slack: the smallest ξ ≥ 0 with which some damage is at most ε + ξ.
    """

    best: int
    front: NDArray[np.intp]
    slack: float


def choose(value: Floats, damage: Floats, epsilon: float) -> Choice:
    """The best configuration and the front; of equals the first.

    >>> choose(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.09, 0.01, 0.02, 0.0]), epsilon=0.015)
    Choice(best=1, front=array([0, 1, 3]), slack=0.0)
    >>> choose(np.array([1.0, 2.0]), np.array([0.75, 0.5]), epsilon=0.25)
    Choice(best=1, front=array([0, 1]), slack=0.25)

    Args:
        value: of the objective, ``(n,)``, at least one.
        damage: score lost against A_ref, ``(n,)``.
        epsilon: ε; less than nothing where a margin leaves no room.
    """
    front = staircase(value, damage)
    slack = smallest_slack(float(damage[front].min()), epsilon)
    allowed = front[damage[front] <= epsilon + slack + ROUNDING]
    return Choice(int(allowed[0]), front, slack)


def fastest(value: Floats, latency_s: Floats) -> int:
    """The place of the least value, whatever the damage; of equal ones the least latency, then the first."""
    return int(np.lexsort((latency_s, value))[0])
