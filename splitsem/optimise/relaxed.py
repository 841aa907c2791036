"""Relaxed: the gradient solver, a softmax over γ and a sigmoid over λ that are annealed and re-evaluated as choices."""

from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from splitsem.optimise.damage import DamageTable
from splitsem.optimise.goals import choose
from splitsem.optimise.objective import Objective
from splitsem.optimise.problem import Floats, Mask, Problem
from splitsem.optimise.relaxation import Choices, Relaxation, Soft, roofline_term
from splitsem.optimise.solution import Front, JointResult, Solution, check_epsilon

CLAMP = 8.0  # of all logits, so that a choice never loses its gradient for good


@dataclass(frozen=True)
class Relaxed:
    """Adam on ``value / scale + κ·ξ + μ·damage + w·roofline`` from several starts (arXiv 2411.00838, Eq. 7 and 14).

    γ is a softmax a unit and λ a sigmoid, which keeps its gradient in the link's time. Logits are clamped, temperatures
    fall geometrically. After every step the choices are read off and evaluated as such: the best of all that were
    visited is returned, never the last. ξ is the expected damage above ε; ``scale`` makes the value a plain number, so
    that κ and μ mean the same for every network.

    Attributes:
        objective: what is minimised.
        steps: of Adam.
        learning_rate: of Adam, on logits.
        starts: λ begins at so many places between the two ends.
        first_temperature: of both relaxations, at the first step.
        last_temperature: at the last step.
        gamma_first: steps on γ alone at the beginning, so that a machine is not left for branches that it need not run.
        alternate_every: so many steps on γ, then as many on λ, in turns, as published; 0: both in every step.
        kappa: κ, weight of the slack.
        mu: μ, weight of the damage.
        roofline_weight: w; the times contain the effect already, so 0 unless it is seen to help.
        rho: ρ of the roofline term.
        seed: of the first logits.

    Raises:
        ValueError: an argument cannot be.
    """

    objective: Objective
    steps: int = 300
    learning_rate: float = 0.1
    starts: int = 8
    first_temperature: float = 1.0
    last_temperature: float = 0.05
    gamma_first: int = 40
    alternate_every: int = 0
    kappa: float = 100.0
    mu: float = 1.0
    roofline_weight: float = 0.0
    rho: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("starts", 1), ("gamma_first", 0), ("alternate_every", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("learning_rate", "first_temperature", "last_temperature"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("kappa", "mu", "roofline_weight", "rho"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")

    def throughput(self, problem: Problem, allowed: Mask | None = None) -> Solution:
        """The best choice visited, by value; arguments as ``Exact.throughput``."""
        visited = self._visited(problem, *problem.tiers(allowed), np.zeros(problem.edge_s.shape), np.inf)
        return visited[int(np.argmin(visited.value))]

    def joint(self, problem: Problem, damage: DamageTable, epsilon: float, allowed: Mask | None = None) -> JointResult:
        """The best choice visited, by slack, then value, then damage, and the front of all visited; see ``Exact``."""
        check_epsilon(epsilon)
        if len(damage.values) != problem.num_units:
            raise ValueError(f"damage has {len(damage.values)} units, the problem {problem.num_units}")
        by_gamma = damage.by_gamma
        allowed = np.isfinite(by_gamma) & (problem.offered if allowed is None else allowed)
        visited = self._visited(problem, *problem.tiers(allowed), by_gamma, epsilon)
        chosen = choose(visited.value, visited.damage, epsilon)
        return JointResult(visited[chosen.best], visited.take(chosen.front), epsilon, chosen.slack)

    def _visited(self, problem: Problem, edge_s: Floats, server_s: Floats, damage: Floats, epsilon: float) -> Front:
        """Every choice that the descent passed by, once each and evaluated."""
        if self.roofline_weight and (problem.edge_work is None or problem.server_work is None):
            raise ValueError("roofline_weight needs the problem's edge_work and server_work")
        choices = Choices(problem, edge_s, server_s)
        relaxation = Relaxation.of(problem, edge_s, server_s, damage)
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.starts, *edge_s.shape)
        gamma_SUG = (0.01 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
        places_S = (torch.arange(self.starts, dtype=torch.float64) + 0.5) / self.starts
        cut_S = torch.logit(places_S).requires_grad_()
        adams = [torch.optim.Adam([values], lr=self.learning_rate) for values in (gamma_SUG, cut_S)]
        cooling = (self.last_temperature / self.first_temperature) ** (1 / max(self.steps - 1, 1))
        for step in range(self.steps):
            soft = relaxation.soften(gamma_SUG, cut_S, self.first_temperature * cooling**step)
            choices.note(soft)
            loss = self._loss(problem, relaxation, soft, epsilon).sum()
            gamma_SUG.grad = cut_S.grad = None
            loss.backward()
            for adam in self._turn(step, *adams):
                adam.step()
            with torch.no_grad():
                gamma_SUG.clamp_(-CLAMP, CLAMP)
                cut_S.clamp_(-CLAMP, CLAMP)
        choices.note(relaxation.soften(gamma_SUG.detach(), cut_S.detach(), self.last_temperature))
        return choices.evaluated(self.objective, damage)

    def _turn(self, step: int, gamma: torch.optim.Adam, cut: torch.optim.Adam) -> tuple[torch.optim.Adam, ...]:
        if step < self.gamma_first:
            return (gamma,)
        if not self.alternate_every:
            return gamma, cut
        return (cut, gamma)[(step - self.gamma_first) // self.alternate_every % 2 :][:1]

    def _loss(self, problem: Problem, relaxation: Relaxation, soft: Soft, epsilon: float) -> Tensor:
        loss_S = relaxation.value(self.objective, soft) / relaxation.scale(self.objective)
        if np.isfinite(epsilon):
            damage_S = (soft.gamma * relaxation.damage).sum((1, 2))
            loss_S = loss_S + self.kappa * torch.relu(damage_S - epsilon) + self.mu * damage_S
        if self.roofline_weight and problem.edge_work is not None and problem.server_work is not None:
            tiers = ((problem.edge_work, soft.on_edge), (problem.server_work, 1 - soft.on_edge))
            terms = (roofline_term(work, soft.gamma * on_tier[:, :, None], self.rho) for work, on_tier in tiers)
            loss_S = loss_S + self.roofline_weight * sum(terms)
        return loss_S
