"""The choice from a table of cuts and codecs equals trying every row, by the same goals as the branch solvers'."""

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest

from splitsem.search.damage import DamageTable
from splitsem.search.exact import Exact
from splitsem.search.objective import Objective, Stages, cycle, energy, latency, t_eff
from splitsem.search.problem import LinkCost, Problem
from splitsem.search.rate_table import Rate, RateTable

OBJECTIVES = (t_eff(0.5), latency(), cycle(), energy(5.0, 2.0, 1e-6))
SCORE_REF = 0.9
STAGES = [field.name for field in fields(Stages)]


def rate(cut: int, size: float, score: float, stages: dict[str, float], codec: str = "identity") -> Rate:
    return Rate(split_index=cut, split_point=f"p{cut}", codec=codec, payload_bytes=size, score=score, **stages)


def table(seed: int, objective: Objective) -> RateTable:
    """Few distinct numbers, so that ties in value and in score are common."""
    rng = np.random.default_rng(seed)
    times_s = rng.integers(0, 4, (int(rng.integers(1, 25)), len(STAGES))) * 1e-3
    sizes = rng.choice([100.0, 1000.0, 4000.0], len(times_s))
    scores = rng.choice([0.5, 0.86, 0.88, 0.89, 0.9, 0.91], len(times_s))
    rates = [
        rate(place // 3, float(size), float(score), dict(zip(STAGES, map(float, times), strict=True)), f"c{place % 3}")
        for place, (times, size, score) in enumerate(zip(times_s, sizes, scores, strict=True))
    ]
    return RateTable(rates, objective, SCORE_REF)


def test_choice_front_and_fastest_equal_brute_force():
    for seed, objective in itertools.product(range(150), OBJECTIVES):
        some = table(seed, objective)
        epsilon = float(np.random.default_rng(seed).choice([-0.05, 0.0, 0.02, 0.05]))
        values = [float(objective(r, r.payload_bytes)) for r in some.rates]  # one by one, with no arrays
        damages = [SCORE_REF - r.score for r in some.rates]
        rows = range(len(values))
        slack = max(0.0, min(damages) - epsilon)
        allowed = [row for row in rows if damages[row] <= epsilon + slack + 1e-12]
        best = min(allowed, key=lambda row: (values[row], damages[row], row))
        chosen = some.choose(epsilon)
        assert (chosen.best, chosen.slack) == (best, pytest.approx(slack, abs=1e-12)), (seed, objective)
        unbeaten = {
            (values[row], damages[row])
            for row in rows
            if not any(
                values[o] <= values[row]
                and damages[o] <= damages[row]
                and (values[o], damages[o]) != (values[row], damages[row])
                for o in rows
            )
        }
        assert [(values[row], damages[row]) for row in chosen.front] == sorted(unbeaten), (seed, objective)
        assert some.fastest() == min(rows, key=lambda row: (values[row], some.rates[row].latency_s, row))


def test_a_network_without_branches_is_chosen_as_by_the_branch_solver():
    """One way a unit, one codec: the table's choice and the exact solver's are the same cut with the same slack."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        times_s = np.full((4, 14), np.inf)
        times_s[:, 0] = rng.uniform(1e-3, 5e-3, 4)
        problem = Problem(tuple("abcd"), 4 * times_s, times_s, rng.uniform(1e3, 1e5, 5), LinkCost(1e-3, 1e-7))
        damage = np.full((4, 7), np.inf)
        damage[:, 0] = 0.01
        found = Exact(t_eff()).joint(problem, DamageTable(damage), 0.02)
        rates = []
        for cut in range(5):
            size = float(problem.link_bytes[cut])
            rates.append(rate(cut, size, SCORE_REF - 0.04, vars(problem.times(cut, (0, 0, 0, 0)))))
        chosen = RateTable(rates, t_eff(), SCORE_REF).choose(0.02)
        assert chosen.best == found.best.split_index
        assert chosen.slack == pytest.approx(found.slack, abs=1e-12)
        assert RateTable(rates, t_eff(), SCORE_REF).fastest() == Exact(t_eff()).throughput(problem).split_index


def test_a_margin_is_asked_of_its_row_alone_and_leaves_the_front_as_it_is():
    for seed in range(100):
        some = table(seed, t_eff())
        rng = np.random.default_rng(seed)
        margins = rng.choice([0.0, 0.01, 0.05], len(some.rates))
        careful = RateTable(
            [replace(rate, margin=float(m)) for rate, m in zip(some.rates, margins, strict=True)], t_eff(), SCORE_REF
        )
        chosen, asked = careful.choose(0.02), some.damage + margins
        assert asked[chosen.best] <= 0.02 + chosen.slack + 1e-12
        assert some.value[chosen.best] == some.value[asked <= 0.02 + chosen.slack + 1e-12].min()
        assert chosen.front.tolist() == some.choose(0.02).front.tolist()


@pytest.mark.parametrize("bad", [float("nan"), -1.0, float("inf")])
def test_times_bytes_and_scores_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match="payload_bytes at p0, c, must be finite and not negative"):
        rate(0, bad, 0.5, dict.fromkeys(STAGES, 0.0), "c")
    with pytest.raises(ValueError, match="at least one row"):
        RateTable([], t_eff(), 0.5)
