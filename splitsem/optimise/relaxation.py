"""The relaxed problem: choices as probabilities, what they cost, and the choices read off them again.

Letters: S starts side by side, U units, G = 14 γ, L = U + 1 cuts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitsem.optimise.objective import Objective
from splitsem.optimise.problem import Floats, Problem, can_cut
from splitsem.optimise.roofline import TierWork
from splitsem.optimise.solution import Front


@dataclass(frozen=True, eq=False)
class Soft:
    """Choices as probabilities.

    Attributes:
        gamma: of each unit's γ, SUG.
        on_edge: of each unit being on the edge, SU.
        cut: of each cut, SL.
    """

    gamma: Tensor
    on_edge: Tensor
    cut: Tensor


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The problem as tensors.

    Attributes:
        edge_s: UG; what only the server offers is slower than everything else.
        server_s: UG, likewise.
        link_s: L.
        link_bytes: L.
        damage: UG.
        bases_s: of edge and server, for any sample.
        delay_s: of the latency alone, L.
        masked: what neither machine offers, UG.
    """

    edge_s: Tensor
    server_s: Tensor
    link_s: Tensor
    link_bytes: Tensor
    damage: Tensor
    bases_s: tuple[float, float]
    delay_s: Tensor
    masked: Tensor

    @classmethod
    def of(cls, problem: Problem, edge_s: Floats, server_s: Floats, damage: Floats) -> "Relaxation":
        """The tensors of a problem; times are inf, as is damage, for what may not be chosen."""
        offered = np.isfinite(edge_s) | np.isfinite(server_s)
        finite = np.concatenate([times[np.isfinite(times)] for times in (edge_s, server_s)])
        beyond = 2 * finite.sum() + problem.link_s.max()

        def tensor(values: Floats) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        return cls(
            edge_s=tensor(np.where(offered, np.minimum(edge_s, beyond), 0.0)),
            server_s=tensor(np.where(offered, np.minimum(server_s, beyond), 0.0)),
            link_s=tensor(problem.link_s),
            link_bytes=tensor(problem.link_bytes),
            damage=tensor(np.where(offered, damage, 0.0)),
            bases_s=(problem.edge_base_s, problem.server_base_s),
            delay_s=tensor(problem.delay_s),
            masked=torch.from_numpy(~offered),
        )

    def soften(self, gamma_SUG: Tensor, cut_S: Tensor, temperature: float) -> Soft:
        """Unit u is on the edge with ``sigmoid((λ − u − ½) / temperature)``, where λ is U · sigmoid."""
        num_units = len(self.edge_s)
        probabilities = torch.softmax((gamma_SUG / temperature).masked_fill(self.masked, -torch.inf), dim=2)
        units = torch.arange(num_units, dtype=torch.float64)
        cut = (num_units + 1) * torch.sigmoid(cut_S)[:, None] - 0.5  # both ends are as wide as any other cut
        on_edge = torch.sigmoid((cut - units - 0.5) / temperature)
        ones, zeros = torch.ones_like(cut), torch.zeros_like(cut)
        cut_SL = torch.cat([ones, on_edge], 1) - torch.cat([on_edge, zeros], 1)
        return Soft(probabilities, on_edge, cut_SL)

    def value(self, objective: Objective, soft: Soft) -> Tensor:
        """The objective of the expected times, for each start."""
        edge_s = ((soft.gamma * self.edge_s).sum(2) * soft.on_edge).sum(1)
        server_s = ((soft.gamma * self.server_s).sum(2) * (1 - soft.on_edge)).sum(1)
        link_s, link_bytes = soft.cut @ self.link_s, soft.cut @ self.link_bytes
        edge_s, server_s = edge_s + self.bases_s[0], server_s + self.bases_s[1]
        delay_s = soft.cut @ self.delay_s
        return objective(edge_s, link_s, server_s, link_bytes, torch.maximum) + objective.latency * delay_s

    def scale(self, objective: Objective) -> float:
        """The size of a value: every unit in its faster machine's fastest γ, on both machines; 1 where that is 0."""
        both_UG = torch.minimum(self.edge_s, self.server_s).masked_fill(self.masked, torch.inf)
        units_s, link_s, link_bytes = both_UG.amin(1).sum(), self.link_s.min(), self.link_bytes.min()
        return float(objective(units_s, link_s, units_s, link_bytes, torch.maximum)) or 1.0


def roofline_term(work: TierWork, share_SUG: Tensor, rho: float) -> Tensor:
    """Eq. 14 of a tier, of expected FLOPs and bytes, for each start; ``share_SUG``: how far each γ runs on it."""
    arrays = (np.where(np.isfinite(values), values, 0.0) for values in (work.flops, work.moved_bytes))
    flops, moved_bytes = ((share_SUG * torch.from_numpy(values)).sum((1, 2)) for values in arrays)
    return work.term(flops, moved_bytes, rho)


class Choices:
    """Reads choices off the probabilities and keeps them."""

    def __init__(self, problem: Problem, edge_s: Floats, server_s: Floats) -> None:
        self.problem, self.edge_s, self.server_s = problem, edge_s, server_s
        self.can_cut = can_cut(edge_s, server_s)
        self.rows: list[NDArray[np.int16]] = []

    def note(self, soft: Soft) -> None:
        """Take the most likely cut and, of the γ offered on that side of it, the most likely one."""
        gamma_SUG, cut_SL = soft.gamma.detach().numpy(), soft.cut.detach().numpy()
        cut_S = np.where(self.can_cut, cut_SL, -np.inf).argmax(axis=1)
        on_edge_SU1 = (np.arange(self.problem.num_units) < cut_S[:, None])[:, :, None]
        can_run_SUG = np.isfinite(np.where(on_edge_SU1, self.edge_s, self.server_s))
        gammas_SU = np.where(can_run_SUG, gamma_SUG, -1.0).argmax(axis=2)
        self.rows.append(np.column_stack([cut_S, gammas_SU]).astype(np.int16))

    def evaluated(self, objective: Objective, damage: Floats) -> Front:
        """All choices that were kept, as solutions."""
        rows = np.unique(np.concatenate(self.rows), axis=0)
        cuts, gammas = rows[:, 0].astype(np.intp), rows[:, 1:].astype(np.int8)
        units = np.arange(self.problem.num_units)
        on_edge = units < cuts[:, None]
        problem = self.problem
        edge_s = problem.edge_base_s + np.where(on_edge, self.edge_s[units, gammas], 0.0).sum(axis=1)
        server_s = problem.server_base_s + np.where(on_edge, 0.0, self.server_s[units, gammas]).sum(axis=1)
        value = problem.value(objective, cuts, edge_s, server_s)
        times_s = np.column_stack([edge_s, problem.link_s[cuts], server_s])
        hurt = damage[units, gammas].sum(axis=1)
        return Front(value, hurt, cuts, gammas, times_s, problem.delay_s[cuts])
