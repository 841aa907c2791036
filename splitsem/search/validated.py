"""Validation scores joint optima as deployed networks and corrects the damages until true scores keep ε."""

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
        solution: with the ``damage`` that was predicted at the time of the choice.
        score: of the deployed network.
        slack: ξ = max(0, A_ref − ε + margin − score).
        margin: the distance from A_ref − ε that the score must keep.
    """

    solution: Solution
    score: float
    slack: float
    margin: float = 0.0

    @property
    def rank(self) -> tuple[float, float, float]:
        """Sort key: least slack, then least value, then highest score."""
        return self.slack, self.solution.value, -self.score


@dataclass(frozen=True)
class Round:
    """One round: the solutions scored in this round, and the best of all scored by its end."""

    scored: tuple[Scored, ...]
    best: Scored


@dataclass(frozen=True, eq=False)
class Validated:
    """What the rounds found.

    Attributes:
        best: the scored solution of least true slack, then least value, then highest score.
        converged: True: every solution that the predictions call better was scored; False: out of rounds.
        rounds: the rounds, in order.
        damage: the damage table after the last correction.
        last: the solver's result with ``damage``.
    """

    best: Scored
    converged: bool
    rounds: tuple[Round, ...]
    damage: DamageTable
    last: JointResult

    @property
    def feasible(self) -> bool:
        """Whether the true score of the best solution keeps ε."""
        return self.best.slack == 0.0

    @property
    def num_scored(self) -> int:
        """How many solutions were scored."""
        return sum(len(entry.scored) for entry in self.rounds)


@dataclass(frozen=True)
class Validation:
    """Solves, scores the best few solutions, corrects the damages by the true scores, and repeats.

    The solution of least predicted damage (and the network with all branches, if given) is scored first, so that there
    is something to fall back on. Each round then scores the ``num_best`` solutions of least value that are unscored,
    keep ε by prediction and would beat the best scored solution. The rounds end when there are no such solutions. The
    result is the best solution of all rounds, not that of the last round.

    Attributes:
        solver: chooses by predicted damage; ``Exact`` with ``largest_damage`` skips the unused part of the front.
        num_best: K, the number of solutions scored in a round.
        max_rounds: the most rounds.
        margin: distance that the validation score must keep from A_ref − ε, since a test split may score lower.

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
        """The best solution whose true score keeps ε, or the solution of least true slack when no scored one does.

        Args:
            problem: times and bytes.
            damage: first prediction, such as ``damage.ablation`` makes.
            epsilon: ε, the score that may be lost against ``score_ref``, 0…1.
            score: the true score, on the validation split, of the network that a solution deploys. Solutions with the
                same γ are the same network and are scored one time.
            score_ref: A_ref.
            allowed: ``(U, 14)``, which γ may be chosen.
            margin_of: the margin of a scored solution, in place of ``margin`` for all. Corrected damages then include
                the margins, so that a solution must keep ε with its margin.
            whole: the fastest solution with all branches, always scored: it keeps ε whatever the predictions, and
                damages measured on few samples may prefer a worse solution.

        Raises:
            ValueError: an argument does not fit, or ``score`` returned a number that is not finite.
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
        """The next solutions to score: unseen, within the budget by prediction, and then better than the best.

        As long as no scored solution truly keeps ε, the budget is at least the least predicted damage.
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
