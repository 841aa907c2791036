"""Small random problems, and their optima by trying everything."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from splitsem.models.branches import GAMMAS
from splitsem.search.damage import SUBSETS, DamageTable
from splitsem.search.objective import Objective, cycle, energy, latency, t_eff
from splitsem.search.problem import LinkCost, Problem

KINDS = ("mix", "latency", "cycle", "energy")
SECOND = 2.0**-10  # sums of multiples are exact, so that ties are ties


@dataclass(frozen=True)
class Instance:
    """A problem, which objective, damages, and how much of them may be."""

    problem: Problem
    kind: str
    objective: Objective
    damage: DamageTable
    epsilon: float


def instance(seed: int) -> Instance:
    """Up to four units; every other one on a grid, which makes ties common; every third with damages of both signs."""
    rng = np.random.default_rng(seed)
    num_units, on_grid = int(rng.integers(1, 5)), seed % 2 == 0

    def drawn(scale: float, shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(0, 8, shape) * SECOND if on_grid else rng.uniform(0, scale, shape)

    edge_s, server_s = drawn(0.02, (num_units, 14)), drawn(0.01, (num_units, 14))
    cut = int(rng.integers(0, num_units + 1))  # one at which everything can run
    for unit in range(num_units):
        for times, has_to in ((edge_s, unit < cut), (server_s, unit >= cut)):
            num_offered = int(rng.integers(1 if has_to else 0, 5))
            times[unit, rng.permutation(14)[num_offered:]] = np.inf
    link_bytes = rng.integers(0, 9, num_units + 1)
    names = tuple(f"u{i}" for i in range(num_units))
    if seed % 5 == 1:  # as frames between two processes: work at the ends, a delay, a bucket
        link = LinkCost(0.0, SECOND, delay_s=-SECOND, free_bytes=3)
        bases = {"edge_base_s": 3 * SECOND, "server_base_s": 2 * SECOND}
    else:
        link, bases = LinkCost(2 * SECOND, SECOND, delay_s=6 * SECOND), {}
    if seed % 3 == 1:
        bases |= {"answer_s": 5 * SECOND, "answer_busy_s": 4 * SECOND}
    problem = Problem(names, edge_s, server_s, link_bytes, link, **bases)
    damage = drawn(0.05, (num_units, 7)) - (0.01 if seed % 3 == 0 and not on_grid else 0.0)
    kind = KINDS[seed // 2 % 4]
    objective = {"mix": t_eff(0.5), "latency": latency(), "cycle": cycle(), "energy": energy(5.0, 2.0, SECOND)}[kind]
    return Instance(problem, kind, objective, DamageTable(damage), float(rng.choice([0.0, 16 * SECOND, 0.06])))


def everything(case: Instance) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, damage and latency of every configuration that can run, by the definitions."""
    problem = case.problem
    options = [[g for g in range(14) if problem.offered[u, g]] for u in range(problem.num_units)]
    combos = np.array(list(product(*options)))
    units = np.arange(problem.num_units)
    edge, server = problem.edge_s[units, combos], problem.server_s[units, combos]
    subset = np.array([SUBSETS.index(GAMMAS[g].branches) for g in range(14)])
    hurt = case.damage.values[units, subset[combos]].sum(axis=1)
    rows = []
    for cut in range(problem.num_units + 1):
        t_e, t_s = edge[:, :cut].sum(axis=1), server[:, cut:].sum(axis=1)
        sent = problem.link_bytes[cut]
        if problem.edge_base_s:
            t_e, t_s = (t_e + 3 * SECOND, t_s + 2 * SECOND) if sent else (t_e, t_s)
            t_l, more = np.full(len(combos), SECOND * sent), 0.0 if sent == 0 else -SECOND - SECOND * min(sent, 3)
        else:
            t_l, more = np.full(len(combos), (2 * SECOND + SECOND * sent) * (sent > 0)), 6 * SECOND * (sent > 0)
        comes_back = problem.answer_s > 0 and cut < problem.num_units
        t_a, a_busy = (5 * SECOND if comes_back else 0.0), np.full(len(combos), 4 * SECOND if comes_back else 0.0)
        lat, cyc = t_e + t_s + t_l + more + t_a, np.max([t_e, t_s, t_l, a_busy], axis=0)
        with np.errstate(invalid="ignore"):  # inf - inf, of what cannot run
            value = {
                "mix": 0.5 * lat + 0.5 * cyc,
                "latency": lat,
                "cycle": cyc,
                "energy": 5.0 * t_e + 2.0 * (cyc - t_e) + SECOND * sent,
            }[case.kind]
        rows.append(np.stack([value, hurt, lat])[:, np.isfinite(lat)])
    value, damage, lat = np.concatenate(rows, axis=1)
    return value, damage, lat
