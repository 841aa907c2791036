"""Solution is a cut and a γ for each unit, with times, value and predicted damage; Front and Solver build on it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from splitsem.models.branches import GAMMAS
from splitsem.search.damage import DamageTable
from splitsem.search.objective import Objective, Stages
from splitsem.search.problem import Floats, Mask, Problem

ROUNDING = 1e-12
"""A score: a damage above ε by no more than this counts as rounding, not as a violation."""


@dataclass(frozen=True, kw_only=True)
class Solution(Stages):
    """One configuration, with what it takes; see Stages for the seconds.

    Attributes:
        split_index: λ, the number of units on the edge.
        gammas: the γ of each unit.
        value: of the objective that was minimised, in its unit.
        damage: predicted loss of score against A_ref, as a fraction; 0.0 where no damage was given.
    """

    split_index: int
    gammas: tuple[int, ...]
    value: float
    damage: float = 0.0

    @classmethod
    def of(
        cls, problem: Problem, objective: Objective, split_index: int, gammas: tuple[int, ...], damage: float = 0.0
    ) -> "Solution":
        """Evaluate a configuration. Raises ValueError where the problem does not offer it."""
        stages = problem.times(split_index, gammas)
        value = float(objective(stages, problem.link_bytes[split_index]))
        return cls(split_index=split_index, gammas=gammas, value=value, damage=damage, **vars(stages))

    @property
    def labels(self) -> tuple[str, ...]:
        """The γ of each unit in words: ``(D+K)/I``."""
        return tuple(GAMMAS[gamma].label for gamma in self.gammas)


@dataclass(frozen=True, eq=False)
class Front:
    """Solutions that no other one beats in both value and damage, by rising value (so by falling damage).

    A front is a sequence of solutions; its arrays have one row a solution.

    Attributes:
        value: ``(n,)``.
        damage: ``(n,)``.
        split_index: λ, ``(n,)``.
        gammas: ``(n, U)``.
        stages: their seconds, ``(n,)`` each.
    """

    value: Floats
    damage: Floats
    split_index: NDArray[np.intp]
    gammas: NDArray[np.int8]
    stages: Stages

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: int) -> Solution:
        return Solution(
            split_index=int(self.split_index[index]),
            gammas=tuple(map(int, self.gammas[index])),
            value=float(self.value[index]),
            damage=float(self.damage[index]),
            **{name: float(seconds[index]) for name, seconds in vars(self.stages).items()},
        )

    def __iter__(self) -> Iterator[Solution]:
        return (self[index] for index in range(len(self)))

    def within(self, budget: float) -> "Front":
        """The solutions whose damage is at most ``budget``; the first of them has the least value."""
        return self.take(np.flatnonzero(self.damage <= budget + ROUNDING))

    def take(self, index: NDArray[np.intp]) -> "Front":
        """The solutions at these indices."""
        return Front(
            self.value[index],
            self.damage[index],
            self.split_index[index],
            self.gammas[index],
            Stages(**{name: seconds[index] for name, seconds in vars(self.stages).items()}),
        )


@dataclass(frozen=True, eq=False)
class JointResult:
    """What a joint solver found.

    Attributes:
        best: least slack ξ, then least value, then least damage (lexicographic goals of arXiv 2411.00838, Eq. 7).
        front: the Pareto front of value and damage.
        epsilon: ε, the score that may be lost.
        slack: the smallest ξ ≥ 0 with which A_ref − ε − ξ is met, by predicted damage.
        damage_step: the solver rounded damages up to multiples of this step; 0: no rounding.
    """

    best: Solution
    front: Front
    epsilon: float
    slack: float
    damage_step: float = 0.0

    @property
    def feasible(self) -> bool:
        """Whether the best solution keeps ε without slack."""
        return self.slack == 0.0

    def candidates(self, k: int) -> tuple[Solution, ...]:
        """The ``k`` solutions of least value on the front that need no more than the smallest slack."""
        front = self.front.within(self.epsilon + self.slack)
        return tuple(front[index] for index in range(min(k, len(front))))


class Solver(Protocol):
    """What every solver does."""

    @property
    def objective(self) -> Objective:
        """What the solver minimises."""

    def throughput(self, problem: Problem, allowed: Mask | None = None) -> Solution:
        """The best cut and γ, whatever the score; ``allowed`` (U, 14) restricts γ (masks: module ``problem``)."""

    def joint(self, problem: Problem, damage: DamageTable, epsilon: float, allowed: Mask | None = None) -> JointResult:
        """The solution of least slack against ε, then least value, then least damage; and the front."""


def smallest_slack(least_damage: float, epsilon: float) -> float:
    """``ξ = max(0, damage − ε)``; 0 where the damage exceeds ε by rounding alone."""
    return 0.0 if least_damage <= epsilon + ROUNDING else least_damage - epsilon


def check_epsilon(epsilon: float) -> None:
    """Raise ValueError unless ε is a score in 0…1."""
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon must be 0…1, a fraction of the score (0.02 is two points), got {epsilon}")


def optimality_gap(value: float, optimum: float) -> float:
    """``value / optimum − 1``: 0.1 is ten per cent above the optimum; 0 where value and optimum are 0."""
    return 0.0 if value == optimum else value / optimum - 1 if optimum else float("inf")
