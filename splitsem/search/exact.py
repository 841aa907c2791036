"""Exact is the solver that finds the optimum over all cuts λ and branch configurations γ.

The objective never falls when a stage takes longer. So the head and the tail of an unbeaten solution are unbeaten in
time and damage, and only unbeaten heads and tails need to be paired at each cut.
"""

from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from splitsem.search.damage import DamageTable
from splitsem.search.fronts import TierFront, choose, fastest, gammas_of, staircase, tier_fronts
from splitsem.search.objective import Objective
from splitsem.search.problem import Floats, Mask, Problem
from splitsem.search.solution import ROUNDING, Front, JointResult, Solution, check_epsilon

BLOCK = 32  # neighbours on a front that are ruled out together
PAIRS_AT_ONCE = 1 << 19


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs of a head and a tail: value, damage, cut, and the points on the fronts; unbeaten pairs by rising value."""

    value: Floats
    damage: Floats
    split_index: NDArray[np.intp]
    head: NDArray[np.intp]
    tail: NDArray[np.intp]

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "_Pairs":
        return _Pairs(
            self.value[index], self.damage[index], self.split_index[index], self.head[index], self.tail[index]
        )

    def unbeaten_with(self, *others: "_Pairs") -> "_Pairs":
        everyone = (self, *others)
        names = ("value", "damage", "split_index", "head", "tail")
        merged = _Pairs(*(np.concatenate([getattr(pairs, name) for pairs in everyone]) for name in names))
        return merged.take(staircase(merged.value, merged.damage))

    def beats(self, value: Floats, damage: Floats) -> NDArray[np.bool_]:
        """Whether one of these pairs is no worse in both value and damage."""
        place = np.searchsorted(self.value, value, side="right") - 1
        least = np.concatenate([self.damage, [np.inf]])  # index -1, no pair as good, finds inf
        return least[place] <= damage


def joint_front(
    problem: Problem, objective: Objective, edge_s: Floats, server_s: Floats, damage: Floats, limit: float
) -> Front:
    """All solutions that no other one beats in both value and damage, up to ``limit``; one of equal solutions.

    Args:
        problem: gives bytes and link times by cut.
        objective: gives the value.
        edge_s: seconds on the edge by unit and γ, inf where not allowed, ``(U, 14)``.
        server_s: seconds on the server by unit and γ, inf where not allowed, ``(U, 14)``.
        damage: by unit and γ, inf for a γ that is never chosen, ``(U, 14)``.
        limit: the largest damage of interest; inf for the whole front.
    """
    can_run = np.isfinite(edge_s) | np.isfinite(server_s)
    least = np.where(can_run, damage, np.inf).min(axis=1)  # least damage of each unit
    upto = np.concatenate([[0.0], np.cumsum(least)])
    spare = limit + 2 * ROUNDING
    heads = tier_fronts(edge_s, damage, spare - (upto[-1] - upto))
    tails = tier_fronts(server_s[::-1], damage[::-1], spare - upto[::-1])
    pairs = _merged(problem, objective, heads, tails, limit + ROUNDING)
    return _front(problem, pairs, heads, tails)


def _merged(
    problem: Problem, objective: Objective, heads: list[TierFront], tails: list[TierFront], limit: float
) -> _Pairs:
    """The unbeaten pairs of all cuts. A coarse front comes first and rules out most blocks of pairs unseen."""
    num_units = problem.num_units
    cuts = [cut for cut in range(num_units + 1) if len(heads[cut].time_s) and len(tails[num_units - cut].time_s)]

    def paired(cut: int, head: NDArray[np.intp], tail: NDArray[np.intp]) -> _Pairs:
        one, other = heads[cut], tails[num_units - cut]
        value = problem.value(objective, cut, one.time_s[head], other.time_s[tail])
        return _Pairs(value, one.damage[head] + other.damage[tail], np.full(len(head), cut), head, tail)

    none = np.empty(0, np.intp)
    found = _Pairs(np.empty(0), np.empty(0), none, none, none)
    for cut in cuts:  # coarse: the ends of the blocks are solutions too
        grid = np.meshgrid(_ends(heads[cut]), _ends(tails[num_units - cut]), indexing="ij")
        coarse = paired(cut, grid[0].ravel(), grid[1].ravel())
        found = found.unbeaten_with(coarse.take(coarse.damage <= limit))
    for cut in cuts:
        one, other = heads[cut], tails[num_units - cut]
        (fast_1, mild_1), (fast_2, mild_2) = _corners(one), _corners(other)
        value = problem.value(objective, cut, fast_1[:, None], fast_2[None, :])
        mildest = mild_1[:, None] + mild_2[None, :]  # bounds all pairs of two blocks
        blocks = np.argwhere((mildest <= limit) & ~found.beats(value, mildest))
        for start in range(0, len(blocks), PAIRS_AT_ONCE // BLOCK**2):
            some = blocks[start : start + PAIRS_AT_ONCE // BLOCK**2]
            head, tail = _within(some, len(one.time_s), len(other.time_s))
            pairs = paired(cut, head, tail)
            found = found.unbeaten_with(pairs.take((pairs.damage <= limit) & ~found.beats(pairs.value, pairs.damage)))
    return found


def _ends(front: TierFront) -> NDArray[np.intp]:
    """The first point of each block, and the last point of the front."""
    last = len(front.time_s) - 1
    return np.append(np.arange(0, last, BLOCK), last)


def _corners(front: TierFront) -> tuple[Floats, Floats]:
    """The least time and the least damage of each block: the first point's time and the last point's damage."""
    first = np.arange(0, len(front.time_s), BLOCK)
    last = np.minimum(first + BLOCK, len(front.time_s)) - 1
    return front.time_s[first], front.damage[last]


def _within(blocks: NDArray[np.intp], num_heads: int, num_tails: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All pairs of points in the given pairs of blocks."""
    head = (blocks[:, :1] * BLOCK + np.arange(BLOCK))[:, :, None]
    tail = (blocks[:, 1:] * BLOCK + np.arange(BLOCK))[:, None, :]
    head, tail = (values.ravel() for values in np.broadcast_arrays(head, tail))
    exists = (head < num_heads) & (tail < num_tails)
    return head[exists], tail[exists]


def _front(problem: Problem, pairs: _Pairs, heads: list[TierFront], tails: list[TierFront]) -> Front:
    """The pairs as solutions, with the γ found by walking back through the fronts."""
    num_units = problem.num_units
    gammas = np.empty((len(pairs.value), num_units), np.int8)
    edge_units_s, server_units_s = np.empty(len(pairs.value)), np.empty(len(pairs.value))
    for cut in np.unique(pairs.split_index):
        rows = np.flatnonzero(pairs.split_index == cut)
        head, tail = pairs.head[rows], pairs.tail[rows]
        gammas[rows, :cut] = gammas_of(heads, cut, head)
        gammas[rows, cut:] = gammas_of(tails, num_units - cut, tail)[:, ::-1]
        edge_units_s[rows] = heads[cut].time_s[head]
        server_units_s[rows] = tails[num_units - cut].time_s[tail]
    stages = problem.stages(pairs.split_index, edge_units_s, server_units_s)
    return Front(pairs.value, pairs.damage, pairs.split_index, gammas, stages)


class Exact:
    """Finds the optimum, within milliseconds.

    * Throughput: at a given cut the units are independent within a tier and the objective never falls when a stage
      takes longer, so the fastest allowed γ of each unit is optimal; all cuts are tried, by prefix and suffix sums.
    * Joint: damage adds up over units; Pareto fronts of (time, damage) for every head and tail are merged at each cut.

    Args:
        objective: what is minimised.
        damage_step: round damages **up** to multiples of this share of the score, so that fronts stay small and no
            predicted damage is taken for less than it is; 0 does not round.
        largest_damage: largest damage on the front, or ε + ξ where ε + ξ is more; None: the whole front.

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
        """The least value over all cuts and allowed γ; ties go to the least latency, then to the smallest λ and γ.

        Args:
            problem: times and bytes.
            allowed: ``(U, 14)``: any γ (dropping branches) by default; ``problem.function_equivalent`` keeps the
                function.

        Raises:
            ValueError: nothing that is allowed can run.
        """
        edge_s, server_s = problem.tiers(allowed)
        cuts = problem.cuts(allowed)
        heads = np.concatenate([[0.0], np.cumsum(edge_s.min(axis=1))])[cuts]
        tails = np.concatenate([[0.0], np.cumsum(server_s.min(axis=1)[::-1])])[::-1][cuts]
        value = problem.value(self.objective, cuts, heads, tails)
        cut = int(cuts[fastest(value, problem.stages(cuts, heads, tails).latency_s)])
        gammas = (*edge_s[:cut].argmin(axis=1), *server_s[cut:].argmin(axis=1))
        return Solution.of(problem, self.objective, cut, tuple(map(int, gammas)))

    def joint(self, problem: Problem, damage: DamageTable, epsilon: float, allowed: Mask | None = None) -> JointResult:
        """The solution of least slack ξ in ``damage ≤ ε + ξ``, then least value, then least damage; and the front.

        Args:
            problem: times and bytes.
            damage: ΔA by unit and branch subset.
            epsilon: ε, the score that may be lost against A_ref, 0…1.
            allowed: ``(U, 14)``, as for ``throughput``.

        Raises:
            ValueError: nothing that is allowed can run or has a finite damage, or ε is not in 0…1.
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
    """Damages rounded up to whole steps."""
    steps = np.round(damage / step)
    return steps + (steps * step < damage)


def _as_given(front: Front, by_gamma: Floats) -> Front:
    """The front of rounded damages, with the given damages in place of the rounded ones."""
    damage = by_gamma[np.arange(len(by_gamma)), front.gammas].sum(axis=1)
    return replace(front, damage=damage).take(staircase(front.value, damage))
