"""How far a heuristic solver is above the exact optimum, on the same problem and damages."""

from dataclasses import replace

from splitsem.optimise.damage import DamageTable
from splitsem.optimise.exact import Exact
from splitsem.optimise.problem import Mask, Problem
from splitsem.optimise.progressive import Progressive
from splitsem.optimise.relaxed import Relaxed
from splitsem.optimise.solution import ROUNDING, JointResult, Solver
from splitsem.optimise.solution import optimality_gap as gap_of


def optimality_gap(
    solver: Solver,
    rival: Relaxed | Progressive | None,
    found: JointResult,
    problem: Problem,
    damage: DamageTable,
    allowed: Mask,
) -> float | None:
    """``heuristic / exact − 1`` of the objective's value; None where only one of the two solvers is there.

    Args:
        solver: the one that is used.
        rival: the gradient solver, or progressive pruning, to compare an exact one with, in the same objective.
        found: by ``solver``, for the same arguments.
        problem: times and bytes.
        damage: by unit and branch subset.
        allowed: which γ may be chosen.
    """
    if not isinstance(solver, Exact):
        exact = Exact(solver.objective).joint(problem, damage, found.epsilon, allowed)
        return _gap(found, exact)
    if rival is None:
        return None
    return _gap(replace(rival, objective=solver.objective).joint(problem, damage, found.epsilon, allowed), found)


def _gap(heuristic: JointResult, exact: JointResult) -> float | None:
    """None where the heuristic one needs more slack: then it has not solved the same problem."""
    if heuristic.slack > exact.slack:
        return None
    gap = gap_of(heuristic.best.value, exact.best.value)
    return 0.0 if abs(gap) < ROUNDING else gap
