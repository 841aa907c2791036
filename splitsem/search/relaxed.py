"""Relaxed is the solver by gradients: an annealed softmax over γ and sigmoid over λ, evaluated as discrete choices.

Letters: S starts side by side, U units, G = 14 γ, L = U + 1 cuts.
"""

from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitsem.search.damage import DamageTable
from splitsem.search.fronts import choose
from splitsem.search.objective import Objective, Stages, TierWork
from splitsem.search.problem import Floats, Mask, Problem, can_cut
from splitsem.search.solution import Front, JointResult, Solution, check_epsilon


@dataclass(frozen=True, eq=False)
class Soft:
    """Choices as probabilities.

    Attributes:
        gamma: probability of each unit's γ, SUG.
        on_edge: probability of each unit being on the edge, SU.
        cut: probability of each cut, SL.
    """

    gamma: Tensor
    on_edge: Tensor
    cut: Tensor


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The problem as tensors.

    Attributes:
        edge_s: seconds on the edge, UG; a γ that only the server offers is slower than every other γ.
        server_s: seconds on the server, UG; a γ that only the edge offers is slower than every other γ.
        beside_units: seconds that a sample takes beside its units, L each.
        link_bytes: bytes that cross, L.
        damage: UG.
        masked: whether neither machine offers the γ, UG.
    """

    edge_s: Tensor
    server_s: Tensor
    beside_units: Stages
    link_bytes: Tensor
    damage: Tensor
    masked: Tensor

    @classmethod
    def of(cls, problem: Problem, edge_s: Floats, server_s: Floats, damage: Floats) -> "Relaxation":
        """The tensors of a problem; times and damage are inf for a γ that may not be chosen."""
        offered = np.isfinite(edge_s) | np.isfinite(server_s)
        finite = np.concatenate([times[np.isfinite(times)] for times in (edge_s, server_s)])
        beyond = 2 * finite.sum() + problem.beside_units.link_busy_s.max()

        def tensor(values: Floats) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        return cls(
            edge_s=tensor(np.where(offered, np.minimum(edge_s, beyond), 0.0)),
            server_s=tensor(np.where(offered, np.minimum(server_s, beyond), 0.0)),
            beside_units=Stages(**{name: tensor(seconds) for name, seconds in vars(problem.beside_units).items()}),
            link_bytes=tensor(problem.link_bytes),
            damage=tensor(np.where(offered, damage, 0.0)),
            masked=torch.from_numpy(~offered),
        )

    def soften(self, gamma_SUG: Tensor, cut_S: Tensor, temperature: float) -> Soft:
        """Probabilities; unit u is on the edge with ``sigmoid((λ − u − ½) / temperature)``."""
        num_units = len(self.edge_s)
        probabilities = torch.softmax((gamma_SUG / temperature).masked_fill(self.masked, -torch.inf), dim=2)
        units = torch.arange(num_units, dtype=torch.float64)
        cut = (num_units + 1) * torch.sigmoid(cut_S)[:, None] - 0.5  # λ; both ends are as wide as any cut
        on_edge = torch.sigmoid((cut - units - 0.5) / temperature)
        ones, zeros = torch.ones_like(cut), torch.zeros_like(cut)
        cut_SL = torch.cat([ones, on_edge], 1) - torch.cat([on_edge, zeros], 1)
        return Soft(probabilities, on_edge, cut_SL)

    def value(self, objective: Objective, soft: Soft) -> Tensor:
        """The objective of the expected times, for each start."""
        edge_s = ((soft.gamma * self.edge_s).sum(2) * soft.on_edge).sum(1)
        server_s = ((soft.gamma * self.server_s).sum(2) * (1 - soft.on_edge)).sum(1)
        beside = Stages(**{name: soft.cut @ seconds for name, seconds in vars(self.beside_units).items()})
        stages = replace(beside, edge_s=beside.edge_s + edge_s, server_s=beside.server_s + server_s)
        return objective(stages, soft.cut @ self.link_bytes, torch.maximum)

    def scale(self, objective: Objective) -> float:
        """A typical value, with the sum of all units' least times on each machine; 1 where this value is 0."""
        both_UG = torch.minimum(self.edge_s, self.server_s).masked_fill(self.masked, torch.inf)
        units_s, link_busy_s = both_UG.amin(1).sum(), self.beside_units.link_busy_s.min()
        stages = Stages(edge_s=units_s, link_busy_s=link_busy_s, link_delay_s=0.0, server_s=units_s)
        return float(objective(stages, self.link_bytes.min(), torch.maximum)) or 1.0


def roofline_term(work: TierWork, share_SUG: Tensor, rho: float) -> Tensor:
    """Eq. 14 of a tier's expected FLOPs and bytes, for each start; ``share_SUG``: probability of γ on the tier."""
    arrays = (np.where(np.isfinite(values), values, 0.0) for values in (work.flops, work.moved_bytes))
    flops, moved_bytes = ((share_SUG * torch.from_numpy(values)).sum((1, 2)) for values in arrays)
    return work.term(flops, moved_bytes, rho)


class Choices:
    """Reads choices off the probabilities and keeps the choices."""

    def __init__(self, problem: Problem, edge_s: Floats, server_s: Floats) -> None:
        self.problem, self.edge_s, self.server_s = problem, edge_s, server_s
        self.can_cut = can_cut(edge_s, server_s)
        self.rows: list[NDArray[np.int16]] = []

    def note(self, soft: Soft) -> None:
        """Keep the most likely cut with, for each unit, the most likely γ that its side of the cut offers."""
        gamma_SUG, cut_SL = soft.gamma.detach().numpy(), soft.cut.detach().numpy()
        cut_S = np.where(self.can_cut, cut_SL, -np.inf).argmax(axis=1)
        on_edge_SU1 = (np.arange(self.problem.num_units) < cut_S[:, None])[:, :, None]
        can_run_SUG = np.isfinite(np.where(on_edge_SU1, self.edge_s, self.server_s))
        gammas_SU = np.where(can_run_SUG, gamma_SUG, -1.0).argmax(axis=2)
        self.rows.append(np.column_stack([cut_S, gammas_SU]).astype(np.int16))

    def evaluated(self, objective: Objective, damage: Floats) -> Front:
        """All kept choices, as solutions."""
        rows = np.unique(np.concatenate(self.rows), axis=0)
        cuts, gammas = rows[:, 0].astype(np.intp), rows[:, 1:].astype(np.int8)
        units = np.arange(self.problem.num_units)
        on_edge = units < cuts[:, None]
        problem = self.problem
        edge_s = np.where(on_edge, self.edge_s[units, gammas], 0.0).sum(axis=1)
        server_s = np.where(on_edge, 0.0, self.server_s[units, gammas]).sum(axis=1)
        value = problem.value(objective, cuts, edge_s, server_s)
        hurt = damage[units, gammas].sum(axis=1)
        return Front(value, hurt, cuts, gammas, problem.stages(cuts, edge_s, server_s))


CLAMP = 8.0  # of all logits, so that a choice never loses its gradient for good


@dataclass(frozen=True)
class Relaxed:
    """Adam on ``value / scale + κ·ξ + μ·damage + w·roofline`` from several starts (arXiv 2411.00838, Eq. 7 and 14).

    γ is a softmax per unit and λ a sigmoid, which keeps its gradient in the link's time. Logits are clamped, and
    temperatures fall geometrically. After every step the solver reads off the discrete choices and evaluates them; it
    returns the best visited choice, not the last. ξ is the expected damage above ε; ``scale`` makes the value a plain
    number, so that κ and μ mean the same for every network.

    Attributes:
        objective: what is minimised.
        steps: number of steps of Adam.
        learning_rate: of Adam, on logits.
        starts: number of values between 0 and U at which λ begins.
        first_temperature: of both relaxations, at the first step.
        last_temperature: of both relaxations, at the last step.
        gamma_first: first steps, on γ alone, so that no unit leaves a machine for branches that it need not run.
        alternate_every: alternate so many steps on γ with as many on λ, as published; 0: γ and λ in every step.
        kappa: κ, weight of the slack.
        mu: μ, weight of the damage.
        roofline_weight: w; 0 by default, since the measured times contain the effect already.
        rho: ρ of the roofline term.
        seed: of the first logits.

    Raises:
        ValueError: an argument is out of its range.
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
        """The visited choice of least value; arguments as for ``Exact.throughput``."""
        visited = self._visited(problem, *problem.tiers(allowed), np.zeros(problem.edge_s.shape), np.inf)
        return visited[int(np.argmin(visited.value))]

    def joint(self, problem: Problem, damage: DamageTable, epsilon: float, allowed: Mask | None = None) -> JointResult:
        """The visited choice of least slack, then value, then damage, and the front of all visited; see ``Exact``."""
        check_epsilon(epsilon)
        if len(damage.values) != problem.num_units:
            raise ValueError(f"damage has {len(damage.values)} units, the problem {problem.num_units}")
        by_gamma = damage.by_gamma
        allowed = np.isfinite(by_gamma) & (problem.offered if allowed is None else allowed)
        visited = self._visited(problem, *problem.tiers(allowed), by_gamma, epsilon)
        chosen = choose(visited.value, visited.damage, epsilon)
        return JointResult(visited[chosen.best], visited.take(chosen.front), epsilon, chosen.slack)

    def _visited(self, problem: Problem, edge_s: Floats, server_s: Floats, damage: Floats, epsilon: float) -> Front:
        """Every choice that the descent visited, without repeats, as solutions."""
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
