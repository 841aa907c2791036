"""The search over a network with branches: the fastest configuration, and the fastest configuration within ε."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from tqdm import tqdm

from splitsem.models.branches import whole_gamma
from splitsem.models.repvgg import HyperRepVgg
from splitsem.search.damage import DamageTable, ablation
from splitsem.search.exact import Exact
from splitsem.search.objective import Objective, paired_margin
from splitsem.search.problem import Mask, Problem, function_equivalent, fused_gammas, only, parallel_gammas
from splitsem.search.progressive import Progressive
from splitsem.search.relaxed import Relaxed
from splitsem.search.solution import ROUNDING, JointResult, Solution, Solver
from splitsem.search.solution import optimality_gap as gap_of
from splitsem.search.validated import Scored, Validation
from splitsem.workflows.joint.base import Document, solution_object, unit_objects


class MeasuredTimes(NamedTuple):
    """One problem by three readings of the tables.

    Attributes:
        problem: as it is solved.
        medians: by medians, not calibrated.
        least: by 10th percentiles, not calibrated.
    """

    problem: Problem
    medians: Problem
    least: Problem

    def document(self, found: Solution, objective: Objective) -> Document:
        """A solution as JSON, with the spread of its value: the median's distance from the 10th percentile."""
        cut, gammas = found.split_index, found.gammas
        median, least = (Solution.of(one, objective, cut, gammas).value for one in (self.medians, self.least))
        return solution_object(found, self.problem.units) | {"value_spread": abs(median - least)}


class Candidates(NamedTuple):
    """What a search needs of a network with branches.

    Attributes:
        times: times and bytes.
        hyper: the trained network with all branches: the reference.
        kept: the trained network with the branches that may be chosen.
        allowed: mask of the γ that may be chosen.
        score: the validation score of a network (``kept`` or ``hyper``) deployed with given γ.
        right: for each sample of the validation split, whether that deployed network is right.
        model: name of the network.
        domain: the network's domain, if there is one.
    """

    times: MeasuredTimes
    hyper: HyperRepVgg
    kept: HyperRepVgg
    allowed: Mask
    score: Callable[[tuple[int, ...], HyperRepVgg], float]
    right: Callable[[tuple[int, ...], HyperRepVgg], NDArray[np.bool_]]
    model: str
    domain: int | str | None


def optimality_gap(
    solver: Solver,
    rival: Relaxed | Progressive | None,
    found: JointResult,
    problem: Problem,
    damage: DamageTable,
    allowed: Mask,
) -> float | None:
    """``heuristic / exact − 1`` of the objective's value; None for an exact solver without ``rival``.

    Args:
        solver: the solver in use.
        rival: the gradient solver, or progressive pruning, that an exact ``solver`` is compared with.
        found: what ``solver`` found for these arguments.
        problem: times and bytes.
        damage: damage by unit and branch subset.
        allowed: mask of the γ that may be chosen.
    """
    if not isinstance(solver, Exact):
        exact = Exact(solver.objective).joint(problem, damage, found.epsilon, allowed)
        return _gap(found, exact)
    if rival is None:
        return None
    return _gap(replace(rival, objective=solver.objective).joint(problem, damage, found.epsilon, allowed), found)


def _gap(heuristic: JointResult, exact: JointResult) -> float | None:
    """The gap, or None where the heuristic solution needs more slack, and so solves an easier problem."""
    if heuristic.slack > exact.slack:
        return None
    gap = gap_of(heuristic.best.value, exact.best.value)
    return 0.0 if abs(gap) < ROUNDING else gap


def fastest(times: MeasuredTimes, solver: Solver, model: str) -> Document:
    """The fastest solutions at any accuracy: of all γ, of γ with an equal function, and of the baselines."""
    problem, began = times.problem, time.perf_counter()
    any_branches = solver.throughput(problem)
    solver_s = time.perf_counter() - began
    solutions = {
        "any_branches": any_branches,
        "function_equivalent": solver.throughput(problem, function_equivalent(fused_gammas(problem))),
        "all_parallel": solver.throughput(problem, only(parallel_gammas(problem))),
        "all_fused": solver.throughput(problem, only(fused_gammas(problem))),
    }
    folded, able = fused_gammas(problem), problem.cuts(only(fused_gammas(problem)))
    for name, cut in (("edge_only", problem.num_units), ("server_only", 0)):
        if cut in able:
            solutions[name] = Solution.of(problem, solver.objective, cut, folded)
    return {
        "schema": "splitsem.throughput/1",
        "unit": "s",
        "model": model,
        "units": unit_objects(problem),
        "solver_s": solver_s,
        "solutions": {name: times.document(found, solver.objective) for name, found in solutions.items()},
    }


def fastest_within_epsilon(network: Candidates, solver: Solver, settings: DictConfig) -> Document:
    """The solver's best within ε, by true scores of the validation split; with the front and all scored networks."""
    problem, allowed, epsilon = network.times.problem, network.allowed, settings.epsilon
    score_ref = network.score(fused_gammas(problem), network.hyper)
    folded = _folded(network.kept)
    began = time.perf_counter()
    damage = _ablation(network, folded, score_ref)
    ablation_s = time.perf_counter() - began
    began = time.perf_counter()
    first = solver.joint(problem, damage, epsilon, allowed)
    solver_s = time.perf_counter() - began
    found = validation(settings, solver).run(
        problem,
        damage,
        epsilon,
        lambda one: network.score(one.gammas, network.kept),
        score_ref,
        allowed,
        _paired_margin(network, settings.confidence) if settings.margin is None else None,
        solver.throughput(problem, only(folded)),
    )
    rival = instantiate(settings.rival) if settings.get("rival") else None
    gap = optimality_gap(solver, rival, first, problem, damage, allowed)

    def scored_object(one: Scored) -> Document:
        return network.times.document(one.solution, solver.objective) | {
            "accuracy_val": one.score,
            "slack_val": one.slack,
        }

    return {
        "schema": "splitsem.joint/1",
        "unit": "s",
        "model": network.model,
        "domain": network.domain,
        "units": unit_objects(problem),
        "epsilon": epsilon,
        "margin": found.best.margin,
        "accuracy_ref_val": score_ref,
        "best": scored_object(found.best),
        "feasible_val": found.feasible,
        "converged": found.converged,
        "num_scored": found.num_scored,
        "solver_s": solver_s,
        "ablation_s": ablation_s,
        "optimality_gap": gap,
        "scored": [scored_object(one) for entry in found.rounds for one in entry.scored],
        "damage": [[None if value == float("inf") else value for value in row] for row in damage.values.tolist()],
        "front": [solution_object(one, problem.units) for one in found.last.front],
    }


def validation(settings: DictConfig, solver: Solver) -> Validation:
    """The configured validation, with a fixed margin or a margin for each solution. Raises as Validation does."""
    return Validation(solver, settings.num_best, settings.max_rounds, settings.margin or 0.0)


def _folded(network: HyperRepVgg) -> tuple[int, ...]:
    """The γ that fold all branches that are left."""
    return tuple(whole_gamma(fact.gammas, folded=True) for fact in network.facts())


def _ablation(network: Candidates, folded: tuple[int, ...], score_ref: float) -> DamageTable:
    with tqdm(desc="Scoring each unit with fewer branches", unit="network", disable=None) as bar:

        def scored(gammas: tuple[int, ...]) -> float:
            bar.update()
            return network.score(gammas, network.kept)

        return ablation(network.times.problem, folded, scored, score_ref, network.allowed)


def _paired_margin(network: Candidates, confidence: float) -> Callable[[Solution], float]:
    """A solution's margin of error in its loss against the reference, from the samples on which the two differ."""
    right_ref = network.right(fused_gammas(network.times.problem), network.hyper)
    return lambda solution: paired_margin(network.right(solution.gammas, network.kept), right_ref, confidence)
