"""Progressive is a greedy solver to compare with: it removes branches step by step, the cheapest gain first.

Letters: C removals that are weighed, U units, G = 14 γ, S = 7 branch subsets, L = U + 1 cuts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from splitsem.search.damage import SUBSET_OF, SUBSETS, DamageTable
from splitsem.search.exact import Exact
from splitsem.search.fronts import WAYS, staircase
from splitsem.search.objective import Objective, Stages
from splitsem.search.problem import Floats, Mask, Problem
from splitsem.search.solution import ROUNDING, Front, JointResult, Solution, check_epsilon, smallest_slack

LEAVES = np.array([[smaller < larger for smaller in SUBSETS] for larger in SUBSETS])
"""``[s, t]``: whether removing branches of subset s can leave subset t."""
SIZES = np.array([len(subset) for subset in SUBSETS])
_Subsets = NDArray[np.intp]


@dataclass(frozen=True)
class Progressive:
    """Progressive pruning (arXiv 2411.00838): round by round, one unit loses one branch or two.

    The path starts at the network with all branches. A round weighs every removal that keeps ``damage ≤ ε``, at the cut
    and γ that are best after the removal. The round takes the removal with the least damage per gain in the objective;
    ties go to the largest gain, then to the first unit. Removals without a gain at the best cut rank last, by their
    mean gain over all cuts: a cut bound by the link stays the best until the machines are fast enough for another cut.
    The path ends when no removal keeps ε; the solver returns the best visited solution, not the last.

    The publication orders removals by |α| / GFLOPs and looks at the ten least: |α| guesses the damage and GFLOPs the
    time, and this solver knows both. Nothing is tuned between rounds, so that all solvers use one table and true scores
    decide in ``Validation``.

    If all branches miss ε, or cannot run at any cut, the path starts at the subsets of least damage. So the solver
    keeps ε, or misses ε by the smallest ξ, exactly as ``Exact`` does.

    Attributes:
        objective: what is minimised.
    """

    objective: Objective

    def throughput(self, problem: Problem, allowed: Mask | None = None) -> Solution:
        """The best visited solution when no removal does damage; arguments as for ``Exact.throughput``."""
        return self.joint(problem, DamageTable(np.zeros((problem.num_units, len(SUBSETS)))), 0.0, allowed).best

    def joint(self, problem: Problem, damage: DamageTable, epsilon: float, allowed: Mask | None = None) -> JointResult:
        """The visited solution of least slack ξ, then least value, then least damage; and the path's front.

        Arguments and errors as for ``Exact.joint``.
        """
        check_epsilon(epsilon)
        if len(damage.values) != problem.num_units:
            raise ValueError(f"damage has {len(damage.values)} units, the problem {problem.num_units}")
        by_gamma = damage.by_gamma
        allowed = np.isfinite(by_gamma) & (problem.offered if allowed is None else allowed)
        pruning = _Pruning(problem, self.objective, damage.values, allowed)
        state = pruning.start(epsilon)
        slack = smallest_slack(pruning.total(state), epsilon)
        visited = [pruning.solution(state)]
        while (smaller := pruning.next(state, epsilon + slack)) is not None:
            state = smaller
            visited.append(pruning.solution(state))
        front = _front(visited)
        return JointResult(front.within(epsilon + slack)[0], front, epsilon, slack)


class _Pruning:
    """The possible removals and the value after each removal; a state is the subset of each unit, ``(U,)``."""

    def __init__(self, problem: Problem, objective: Objective, damage_US: Floats, allowed: Mask) -> None:
        self.problem, self.allowed, self.damage_US = problem, allowed, damage_US
        self.exact = Exact(objective)
        edge_s, server_s = problem.tiers(allowed)
        self.edge_US, self.server_US = (
            np.stack([times[:, ways].min(axis=1) for ways in WAYS], axis=1) for times in (edge_s, server_s)
        )
        self.cuts, self.units = problem.cuts(allowed), np.arange(problem.num_units)

    def start(self, epsilon: float) -> _Subsets:
        """All branches; if these cannot run or miss ε, the fastest of the states with the least damage."""
        is_offered_US = np.isfinite(self.edge_US) | np.isfinite(self.server_US)
        fewer_US = np.broadcast_to(-SIZES, self.edge_US.shape)
        whole = np.lexsort((self.damage_US, fewer_US, ~is_offered_US), axis=1)[:, 0]
        if np.isfinite(self._values(whole[None])).any() and self.total(whole) <= epsilon + ROUNDING:
            return whole
        mildest = np.array([self._mildest(cut) for cut in self.cuts])
        totals = self.damage_US[self.units, mildest].sum(axis=1)
        mildest = mildest[totals == totals.min()]
        return mildest[self._values(mildest).min(axis=1).argmin()]

    def next(self, state: _Subsets, budget: float) -> _Subsets | None:
        """The state after the best removal that stays within the budget; None where no removal does."""
        unit_C, subset_C = np.nonzero(LEAVES[state] & np.isfinite(self.damage_US))
        added_C = self.damage_US[unit_C, subset_C] - self.damage_US[unit_C, state[unit_C]]
        within = self.total(state) + added_C <= budget + ROUNDING
        unit_C, subset_C, added_C = unit_C[within], subset_C[within], added_C[within]
        states_CU = np.repeat(state[None], len(unit_C), axis=0)
        states_CU[np.arange(len(unit_C)), unit_C] = subset_C
        before_L, after_CL = self._values(state[None])[0], self._values(states_CU)
        if not np.isfinite(after_CL).any():
            return None
        can_run_CL = np.isfinite(before_L) & np.isfinite(after_CL)
        elsewhere_C = np.where(can_run_CL, before_L - np.where(can_run_CL, after_CL, 0.0), 0.0).mean(axis=1)
        gained_C = before_L.min() - after_CL.min(axis=1)
        rounding = ROUNDING * before_L.min()
        gains_elsewhere = (gained_C >= -rounding) & (elsewhere_C > rounding)
        level_C = np.where(gained_C > rounding, 0, np.where(gains_elsewhere, 1, 2))
        gained_C = np.where(level_C == 1, elsewhere_C, gained_C)
        cost_C = added_C / np.where(level_C < 2, gained_C, 1.0)
        cannot_run_C = np.isinf(after_CL).all(axis=1)
        return states_CU[np.lexsort((subset_C, unit_C, -gained_C, cost_C, level_C, cannot_run_C))[0]]

    def solution(self, state: _Subsets) -> Solution:
        """The solution of the best cut and γ for the state."""
        found = self.exact.throughput(self.problem, self.allowed & (state[:, None] == SUBSET_OF))
        return replace(found, damage=self.total(state))

    def total(self, state: _Subsets) -> float:
        """The state's damage."""
        return float(self.damage_US[self.units, state].sum())

    def _values(self, states_CU: NDArray[np.intp]) -> Floats:
        """The value at each cut, CL; inf where a unit cannot run on its side of the cut."""
        edge_CU, server_CU = self.edge_US[self.units, states_CU], self.server_US[self.units, states_CU]
        none_C1 = np.zeros((len(states_CU), 1))
        head_CL = np.hstack([none_C1, edge_CU.cumsum(axis=1)])
        tail_CL = np.hstack([server_CU[:, ::-1].cumsum(axis=1)[:, ::-1], none_C1])
        can_run = np.isfinite(head_CL) & np.isfinite(tail_CL)
        head_CL, tail_CL = np.where(can_run, head_CL, 0.0), np.where(can_run, tail_CL, 0.0)
        problem = self.problem
        every_cut = np.arange(problem.num_units + 1)
        value_CL = problem.value(self.exact.objective, every_cut, head_CL, tail_CL)
        return np.where(can_run, value_CL, np.inf)

    def _mildest(self, cut: int) -> _Subsets:
        """The least damaging subset of each unit that can run on its side of the cut; ties go to the fastest."""
        times_US = np.where((self.units < cut)[:, None], self.edge_US, self.server_US)
        damage_US = np.where(np.isfinite(times_US), self.damage_US, np.inf)
        least_U1 = damage_US.min(axis=1, keepdims=True)
        return np.where(damage_US == least_U1, times_US, np.inf).argmin(axis=1)


def _front(visited: Sequence[Solution]) -> Front:
    value, damage = (np.array([getattr(one, name) for one in visited]) for name in ("value", "damage"))
    front = Front(
        value,
        damage,
        np.array([one.split_index for one in visited], np.intp),
        np.array([one.gammas for one in visited], np.int8),
        Stages(**{field.name: np.array([getattr(one, field.name) for one in visited]) for field in fields(Stages)}),
    )
    return front.take(staircase(value, damage))
