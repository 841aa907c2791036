"""Exact: the solver that finds the optimum over all cuts λ and branch configurations γ."""

from dataclasses import replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from splitsem.optimise.damage import DamageTable
from splitsem.optimise.goals import choose, fastest
from splitsem.optimise.joint import joint_front
from splitsem.optimise.objective import Objective
from splitsem.optimise.problem import Floats, Mask, Problem
from splitsem.optimise.solution import (
    ROUNDING,
    Front,
    JointResult,
    Solution,
    check_epsilon,
)
from splitsem.optimise.tiers import staircase


class Exact:
    """The optimum, in milliseconds.

    * Throughput: at a given cut the units are independent within a tier and the objective never falls when a stage
      takes longer, so the fastest allowed γ of each unit is optimal; all cuts are tried, by prefix and suffix sums.
    * Joint: damage adds up over units; Pareto fronts of (time, damage) for every head and tail are merged at each cut.

    Args:
        objective: what is minimised.
        damage_step: round damages **up** to multiples of this share of the score, so that fronts stay small and a
            solution's predicted damage is never taken for less than it is; 0 keeps them as they are.
        largest_damage: end the front there, or at ε + ξ where that is more; None: the whole front.

    Raises:
        ValueError: ``damage_step`` or ``largest_damage`` is negative or not finite.
    """

    def __init__(self, objective: Objective, damage_step: float = 0.0, largest_damage: float | None = None) -> None:
        if not (isfinite(damage_step) and damage_step >= 0):
            raise ValueError(f"damage_step must be finite and not negative, got {damage_step}")
        if largest_damage is not None and not (isfinite(largest_damage) and largest_damage >= 0):
            raise ValueError(f"largest_damage must be finite and not negative, or None, got {largest_damage}")
        self.objective = objective
        self.damage_step = damage_step
        self.largest_damage = largest_damage

    def throughput(self, problem: Problem, allowed: Mask | None = None) -> Solution:
        """The least value over all cuts and allowed γ; of equal ones the least latency, then the smallest λ and γ.

        Args:
            problem: times and bytes.
            allowed: ``(U, 14)``: any γ (dropping branches) by default; ``choices.function_equivalent`` keeps the
                function.

        Raises:
            ValueError: nothing that is allowed can run.
        """
        edge_s, server_s = problem.tiers(allowed)
        cuts = problem.cuts(allowed)
        heads = problem.edge_base_s + np.concatenate([[0.0], np.cumsum(edge_s.min(axis=1))])[cuts]
        tails = problem.server_base_s + np.concatenate([[0.0], np.cumsum(server_s.min(axis=1)[::-1])])[::-1][cuts]
        value = problem.value(self.objective, cuts, heads, tails)
        latency_s = heads + problem.link_s[cuts] + tails + problem.delay_s[cuts]
        cut = int(cuts[fastest(value, latency_s)])
        gammas = (*edge_s[:cut].argmin(axis=1), *server_s[cut:].argmin(axis=1))
        return Solution.of(problem, self.objective, cut, tuple(map(int, gammas)))

    def joint(self, problem: Problem, damage: DamageTable, epsilon: float, allowed: Mask | None = None) -> JointResult:
        """Least slack ξ in ``damage ≤ ε + ξ``, then least value, then least damage; with the front and its solutions.

        Args:
            problem: times and bytes.
            damage: ΔA by unit and branch subset.
            epsilon: ε, the score that may be lost against A_ref, 0…1.
            allowed: ``(U, 14)``, as for ``throughput``.

        Raises:
            ValueError: nothing that is allowed can run, or has a damage; or ε is not in 0…1.
        """
        check_epsilon(epsilon)
        if len(damage.values) != problem.num_units:
            raise ValueError(f"damage has {len(damage.values)} units, the problem {problem.num_units}")
        by_gamma = damage.by_gamma
        allowed = np.isfinite(by_gamma) & (problem.offered if allowed is None else allowed)
        edge_s, server_s = problem.tiers(allowed)
        step = self.damage_step or 1.0
        table = _rounded_up(by_gamma, step) if self.damage_step else by_gamma
        limit = np.inf
        if self.largest_damage is not None:
            least = _least_damage(problem.cuts(allowed), edge_s, server_s, table)
            limit = max(least, max(epsilon, self.largest_damage) / step + ROUNDING)
        front = joint_front(problem, self.objective, edge_s, server_s, table, limit)
        if self.damage_step:
            front = _as_given(front, by_gamma)
        chosen = choose(front.value, front.damage, epsilon)
        return JointResult(front[chosen.best], front, epsilon, chosen.slack, self.damage_step)


def _least_damage(cuts: NDArray[np.intp], edge_s: Floats, server_s: Floats, damage: Floats) -> float:
    """The least sum of damages that any cut allows."""
    heads, tails = (np.where(np.isfinite(times), damage, np.inf).min(axis=1) for times in (edge_s, server_s))
    upto = np.concatenate([[0.0], np.cumsum(heads)])
    after = np.concatenate([[0.0], np.cumsum(tails[::-1])])[::-1]
    return float((upto[cuts] + after[cuts]).min())


def _rounded_up(damage: Floats, step: float) -> Floats:
    """Damages in whole steps, never below the damage."""
    steps = np.round(damage / step)
    return steps + (steps * step < damage)


def _as_given(front: Front, by_gamma: Floats) -> Front:
    """A front that was found with rounded damages, with the damages as they were given."""
    damage = by_gamma[np.arange(len(by_gamma)), front.gammas].sum(axis=1)
    return replace(front, damage=damage).take(staircase(front.value, damage))
