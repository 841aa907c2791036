"""Pareto fronts of time and damage, built unit by unit for each tier, and the choice of a best point.

Letters: n points on a front, U units. A front's times rise and its damages fall. A tier is the edge or the server.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem.search.damage import SUBSET_OF, SUBSETS
from splitsem.search.problem import Floats
from splitsem.search.solution import ROUNDING, smallest_slack

WAYS = [np.flatnonzero([subset == of for of in SUBSET_OF]) for subset in range(len(SUBSETS))]
"""The γ of each subset."""
MOST_POINTS = 100_000
"""Most points on a front. Measured tables give a few thousand; the time to merge grows with the square."""


@dataclass(frozen=True, eq=False)
class TierFront:
    """The front of the first (or last) units of a network on one machine.

    Attributes:
        time_s: seconds, strictly rising, ``(n,)``.
        damage: strictly falling, ``(n,)``.
        gamma: the γ of the unit that was added last, ``(n,)``.
        parent: index of the point, on the front with one unit less, that this unit was added to, ``(n,)``.
    """

    time_s: Floats
    damage: Floats
    gamma: NDArray[np.int8]
    parent: NDArray[np.intp]

    def grown(self, time_s: Floats, damage: Floats, limit: float) -> "TierFront":
        """The front with one unit more: the unbeaten sums of a point and one of the unit's γ.

        A beaten sum stays beaten whatever is added to it and to the sum that beats it, so no optimum is lost.

        Args:
            time_s: of the unit by γ, inf where γ may not be chosen, ``(14,)``.
            damage: of the unit by γ, ``(14,)``.
            limit: sums with more damage are dropped.

        Raises:
            ValueError: the front has more than ``MOST_POINTS``.
        """
        gammas = _unbeaten(time_s, damage)
        times = (time_s[gammas, None] + self.time_s).ravel()
        damages = (damage[gammas, None] + self.damage).ravel()
        order = np.flatnonzero(damages <= limit)
        order = order[staircase(times[order], damages[order])]
        if len(order) > MOST_POINTS:
            raise ValueError(
                f"the front of time and damage has more than {MOST_POINTS} points: give the exact solver a damage_step "
                "(1e-4 rounds damages up to a hundredth of a point) or a largest_damage"
            )
        gamma, parent = np.divmod(order, max(len(self.time_s), 1))
        return TierFront(times[order], damages[order], gammas[gamma].astype(np.int8), parent)


def tier_fronts(time_s: Floats, damage: Floats, limits: Floats) -> list[TierFront]:
    """The fronts of the first 0, 1, … U units; for a suffix, give the units in reverse.

    Args:
        time_s: by unit and γ, inf where γ may not be chosen, ``(U, 14)``.
        damage: by unit and γ, ``(U, 14)``.
        limits: the largest damage of interest for the first 0, 1, … U units, ``(U + 1,)``.
    """
    none = np.zeros(1)
    fronts = [TierFront(none, none, none.astype(np.int8), none.astype(np.intp))]
    for unit, limit in enumerate(limits[1:]):
        fronts.append(fronts[-1].grown(time_s[unit], damage[unit], float(limit)))
    return fronts


def gammas_of(fronts: list[TierFront], num_units: int, points: NDArray[np.intp]) -> NDArray[np.int8]:
    """The γ of ``points`` on the front of the first ``num_units`` units, ``(len(points), num_units)``."""
    gammas = np.empty((len(points), num_units), np.int8)
    for unit in range(num_units, 0, -1):
        gammas[:, unit - 1] = fronts[unit].gamma[points]
        points = fronts[unit].parent[points]
    return gammas


def staircase(cost: Floats, damage: Floats) -> NDArray[np.intp]:
    """Indices of the points that no other point beats, by rising cost; the first index of equal points."""
    order = np.lexsort((damage, cost))
    sorted_damage = damage[order]
    keep = np.ones(len(order), dtype=bool)
    keep[1:] = sorted_damage[1:] < np.minimum.accumulate(sorted_damage)[:-1]
    return order[keep]


def _unbeaten(time_s: Floats, damage: Floats) -> NDArray[np.intp]:
    """The γ worth considering: the fastest of each subset, unless another subset is no slower and no worse."""
    gammas = np.array([ways[np.argmin(time_s[ways])] for ways in WAYS])
    gammas = gammas[np.isfinite(time_s[gammas]) & np.isfinite(damage[gammas])]
    return gammas[staircase(time_s[gammas], damage[gammas])]


class Choice(NamedTuple):
    """A choice among configurations, as indices into arrays of the configurations.

    Attributes:
        best: least slack, then least value, then least damage (the lexicographic goals of arXiv 2411.00838, Eq. 7).
        front: the configurations that no other one beats in value and damage, by rising value, ``(n,)``.
        slack: the smallest ξ ≥ 0 with which some damage is at most ε + ξ.
    """

    best: int
    front: NDArray[np.intp]
    slack: float


def choose(value: Floats, damage: Floats, epsilon: float) -> Choice:
    """The best configuration and the front; the first of equal configurations.

    >>> choose(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.09, 0.01, 0.02, 0.0]), epsilon=0.015)
    Choice(best=1, front=array([0, 1, 3]), slack=0.0)
    >>> choose(np.array([1.0, 2.0]), np.array([0.75, 0.5]), epsilon=0.25)
    Choice(best=1, front=array([0, 1]), slack=0.25)

    Args:
        value: of the objective, ``(n,)``, at least one.
        damage: score lost against A_ref, ``(n,)``.
        epsilon: ε, the score that may be lost; negative where a margin leaves no room.
    """
    front = staircase(value, damage)
    slack = smallest_slack(float(damage[front].min()), epsilon)
    allowed = front[damage[front] <= epsilon + slack + ROUNDING]
    return Choice(int(allowed[0]), front, slack)


def fastest(value: Floats, latency_s: Floats) -> int:
    """The index of the least value, whatever the damage; ties go to the least latency, then to the first index."""
    return int(np.lexsort((latency_s, value))[0])
