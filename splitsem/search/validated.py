"""Validated: joint optima are scored as deployed networks, and damages corrected, until the constraint truly holds."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import numpy as np

from splitsem.search.damage import DamageTable, recalibrated
from splitsem.search.problem import Mask, Problem
from splitsem.search.solution import JointResult, Solution, Solver, check_epsilon, smallest_slack


@dataclass(frozen=True)
class Scored:
    """A solution and its true score on the validation split.

    Attributes:
        solution: its ``damage`` is what was predicted when it was chosen.
        score: of the deployed network.
        slack: ξ, how far the score is below A_ref − ε + margin; 0 where it is not.
        margin: the distance that was asked of it.
    """

    solution: Solution
    score: float
    slack: float
    margin: float = 0.0

    @property
    def rank(self) -> tuple[float, float, float]:
        """Least slack, then least value, then highest score."""
        return self.slack, self.solution.value, -self.score


@dataclass(frozen=True)
class Round:
    """One round: what was scored in it, and the best of all that had been scored by its end."""

    scored: tuple[Scored, ...]
    best: Scored


@dataclass(frozen=True, eq=False)
class Validated:
    """What the rounds found.

    Attributes:
        best: of all that were scored: least true slack, then least value, then highest score.
        converged: whether corrected predictions hold nothing better that was not scored; False: out of rounds.
        rounds: what happened, in order.
        damage: the table as corrected last.
        last: the solver's result with it.
    """

    best: Scored
    converged: bool
    rounds: tuple[Round, ...]
    damage: DamageTable
    last: JointResult

    @property
    def feasible(self) -> bool:
        """Whether the best truly keeps ε."""
        return self.best.slack == 0.0

    @property
    def num_scored(self) -> int:
        """How many solutions were scored."""
        return sum(len(entry.scored) for entry in self.rounds)


@dataclass(frozen=True)
class Validation:
    """Solve, score the best few, correct the damages by what they scored, and again.

    The solution of least predicted damage (and the network with all branches, where it is given) is scored first, so
    that something to fall back on is known; then, in each round, the ``num_best`` of least value that were not scored
    yet, keep ε by prediction and would beat the best true one. It ends when there are none. The last round's solution
    is never preferred to a better one.

    Attributes:
        solver: chooses by predicted damage; an exact one with ``largest_damage`` saves the part of the front not used.
        num_best: K, how many a round are scored.
        max_rounds: at most so many rounds.
        margin: the validation score must keep this distance from A_ref − ε, for a test split that may score lower.

    Raises:
        ValueError: a number is too small.
    """

    solver: Solver
    num_best: int = 4
    max_rounds: int = 20
    margin: float = 0.0

    def __post_init__(self) -> None:
        for name in ("num_best", "max_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (isfinite(self.margin) and self.margin >= 0):
            raise ValueError(f"margin must be finite and not negative, got {self.margin}")

    def run(
        self,
        problem: Problem,
        damage: DamageTable,
        epsilon: float,
        score: Callable[[Solution], float],
        score_ref: float,
        allowed: Mask | None = None,
        margin_of: Callable[[Solution], float] | None = None,
        whole: Solution | None = None,
    ) -> Validated:
        """The best solution whose true score keeps ε, or that with the least true slack when none of those scored does.

        Args:
            problem: times and bytes.
            damage: first prediction, such as ``damage.ablation`` makes.
            epsilon: ε, the score that may be lost against ``score_ref``, 0…1.
            score: the true score, on the validation split, of the network that a solution deploys. Solutions with the
                same γ are the same network, which is scored once.
            score_ref: A_ref.
            allowed: ``(U, 14)``, which γ may be chosen.
            margin_of: the distance from A_ref − ε to ask of a solution that was scored, in place of the same for all.
                Corrected damages then hold it, since what is sought keeps ε with it.
            whole: the fastest with all branches, scored in any case: it keeps ε whatever is predicted, and damages that
                are measured on few samples may say that others do no more.

        Raises:
            ValueError: an argument does not fit, or ``score`` returned no finite number.
        """
        check_epsilon(epsilon)
        known: dict[tuple[int, ...], float] = {}
        margins: dict[tuple[int, ...], float] = {}

        def judged(solution: Solution) -> Scored:
            if solution.gammas not in known:
                known[solution.gammas] = float(score(solution))
            true = known[solution.gammas]
            if not isfinite(true):
                raise ValueError(f"score must return a finite number, got {true} for γ {list(solution.gammas)}")
            if solution.gammas not in margins:
                margins[solution.gammas] = 0.0 if margin_of is None else margin_of(solution)
            margin = margins[solution.gammas] if margin_of is not None else self.margin
            return Scored(solution, true, smallest_slack(score_ref - true, epsilon - margin), margin)

        budget = epsilon - (self.margin if margin_of is None else 0.0)
        result = self.solver.joint(problem, damage, max(budget, 0.0), allowed)
        first = judged(result.front[len(result.front) - 1])
        scored: tuple[Scored, ...] = (first,) if whole is None else (first, judged(whole))
        seen = {(one.solution.split_index, one.solution.gammas) for one in scored}
        rounds, table = [Round(scored, min(scored, key=lambda one: one.rank))], damage
        while chosen := self._chosen(result, rounds[-1].best, seen, budget):
            if len(rounds) > self.max_rounds:
                break
            scored = tuple(judged(solution) for solution in chosen)
            seen.update((solution.split_index, solution.gammas) for solution in chosen)
            rounds.append(Round(scored, min((rounds[-1].best, *scored), key=lambda one: one.rank)))
            lost = score_ref - np.array(list(known.values())) + np.array([margins[gammas] for gammas in known])
            table = recalibrated(damage, np.array(list(known), np.int8), lost)
            result = self.solver.joint(problem, table, max(budget, 0.0), allowed)
        return Validated(rounds[-1].best, not chosen, tuple(rounds), table, result)

    def _chosen(
        self, result: JointResult, best: Scored, seen: set[tuple[int, tuple[int, ...]]], budget: float
    ) -> list[Solution]:
        """The next to be scored: not seen, within the budget by prediction, and better than the best if that is true.

        While nothing true is known, what is predicted to do the least damage counts as within the budget.
        """
        if best.slack > 0:
            budget = max(budget, float(result.front.damage.min()))
        chosen: list[Solution] = []
        for solution in result.front.within(budget):
            if len(chosen) == self.num_best or (best.slack == 0 and solution.value >= best.solution.value):
                break
            if (solution.split_index, solution.gammas) not in seen:
                chosen.append(solution)
        return chosen
