"""What the solver finds for a network with branches: the fastest one, and the fastest one that keeps ε."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig
from tqdm import tqdm

from splitsem.models.branches import whole_gamma
from splitsem.models.repvgg import HyperRepVgg
from splitsem.optimise.choices import function_equivalent, fused_gammas, only, parallel_gammas
from splitsem.optimise.damage import DamageTable, ablation
from splitsem.optimise.deployed import DeployedSplit
from splitsem.optimise.paired import paired_margin
from splitsem.optimise.problem import Mask
from splitsem.optimise.solution import Solution, Solver
from splitsem.optimise.validated import Scored, Validation
from splitsem.workflows.joint.gap import optimality_gap
from splitsem.workflows.joint.store import Document, solution_object, unit_objects

if TYPE_CHECKING:
    from splitsem.workflows.joint.branches import JointBranches


def fastest(joint: JointBranches) -> Document:
    """Whatever the accuracy: of all γ, of those with the same function, and of the two baselines."""
    problem, solver = joint.problem, joint.solver
    began = time.perf_counter()
    any_branches = solver.throughput(problem)
    solver_s = time.perf_counter() - began
    solutions = {
        "any_branches": any_branches,
        "function_equivalent": solver.throughput(problem, function_equivalent(fused_gammas(problem))),
        "all_parallel": solver.throughput(problem, only(parallel_gammas(problem))),
        "all_fused": solver.throughput(problem, only(fused_gammas(problem))),
    }
    return {
        "schema": "splitsem.throughput/1",
        "unit": "s",
        "model": joint.model,
        "units": unit_objects(problem),
        "solver_s": solver_s,
        "solutions": {name: solution_object(found, problem.units) for name, found in solutions.items()},
    }


def fastest_within_epsilon(joint: JointBranches) -> Document:
    """The solver's best, validated on true scores of the validation split; with the front and all that was scored."""
    problem, allowed, epsilon = joint.problem, joint.allowed(), joint.settings.epsilon
    score_ref = joint.score(fused_gammas(problem), "val", joint.hyper)
    folded = _folded(joint.kept)
    began = time.perf_counter()
    damage = _ablation(joint, folded, allowed, score_ref)
    ablation_s = time.perf_counter() - began
    began = time.perf_counter()
    first = joint.solver.joint(problem, damage, epsilon, allowed)
    solver_s = time.perf_counter() - began
    found = validation(joint.settings, joint.solver).run(
        problem,
        damage,
        epsilon,
        lambda one: joint.score(one.gammas, "val"),
        score_ref,
        allowed,
        _paired_margin(joint) if joint.settings.margin is None else None,
        joint.solver.throughput(problem, only(folded)),
    )
    rival = instantiate(joint.settings.rival) if joint.settings.get("rival") else None
    gap = optimality_gap(joint.solver, rival, first, problem, damage, allowed)

    def scored_object(one: Scored) -> Document:
        return solution_object(one.solution, problem.units) | {"accuracy_val": one.score, "slack_val": one.slack}

    return {
        "schema": "splitsem.joint/1",
        "unit": "s",
        "model": joint.model,
        "domain": joint.domain,
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
    """As ``workflow`` has it; without a fixed margin each solution gets one of its own. Raises as Validation does."""
    return Validation(solver, settings.num_best, settings.max_rounds, settings.margin or 0.0)


def _folded(network: HyperRepVgg) -> tuple[int, ...]:
    """The γ with all branches that are left, folded."""
    return tuple(whole_gamma(fact.gammas, folded=True) for fact in network.facts())


def _ablation(joint: JointBranches, folded: tuple[int, ...], allowed: Mask, score_ref: float) -> DamageTable:
    with tqdm(desc="Scoring each unit with fewer branches", unit="network") as bar:

        def scored(gammas: tuple[int, ...]) -> float:
            bar.update()
            return joint.score(gammas, "val")

        return ablation(joint.problem, folded, scored, score_ref, allowed)


def _paired_margin(joint: JointBranches) -> Callable[[Solution], float]:
    """What a solution's loss against the reference may be off by, from the samples on which the two differ."""
    device, val = joint.trained.device, joint.batches("val")
    right_ref = DeployedSplit(joint.hyper, fused_gammas(joint.problem), 0, device).right(val)

    def margin_of(solution: Solution) -> float:
        right = DeployedSplit(joint.kept, solution.gammas, 0, device).right(val)
        return paired_margin(right, right_ref, joint.settings.confidence)

    return margin_of
