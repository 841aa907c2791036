"""Progressive pruning is never better than the optimum, keeps ε wherever it can be kept, and is what it says."""

import numpy as np
import pytest

from splitsem.search.damage import SUBSET_OF, SUBSETS, DamageTable
from splitsem.search.exact import Exact
from splitsem.search.objective import cycle, t_eff
from splitsem.search.problem import LinkCost, Problem, fused_gammas, only, parallel_gammas
from splitsem.search.progressive import Progressive
from splitsem.search.solution import ROUNDING, Solution
from tests.optimise_instances import instance

CLOSE = 1e-12


def test_it_is_never_better_than_the_optimum_and_needs_the_same_slack():
    num_optimal = 0
    for seed in range(60):
        case = instance(seed)
        exact, progressive = Exact(case.objective), Progressive(case.objective)
        best = exact.joint(case.problem, case.damage, case.epsilon)
        found = progressive.joint(case.problem, case.damage, case.epsilon)
        assert found.slack == best.slack, seed
        assert found.best.damage == case.damage.total(found.best.gammas) <= case.epsilon + found.slack + ROUNDING
        assert found.best.value >= best.best.value * (1 - CLOSE), seed
        again = Solution.of(case.problem, case.objective, found.best.split_index, found.best.gammas)
        assert found.best.value == pytest.approx(again.value, rel=CLOSE), seed
        assert progressive.throughput(case.problem).value >= exact.throughput(case.problem).value * (1 - CLOSE), seed
        num_optimal += found.best.value <= best.best.value * (1 + CLOSE)
    assert num_optimal > 35  # these are tiny; else the comparison would say nothing


def test_its_front_falls_and_holds_the_best_of_all_that_it_visited():
    for seed in range(40):
        case = instance(seed)
        found = Progressive(case.objective).joint(case.problem, case.damage, case.epsilon)
        assert (np.diff(found.front.value) > 0).all()
        assert (np.diff(found.front.damage) < 0).all()
        assert found.best == found.front.within(case.epsilon + found.slack)[0]


def chain(num_units: int = 8, seed: int = 0) -> tuple[Problem, DamageTable]:
    """All 14 γ a unit, fewer branches faster; all branches do no damage."""
    rng = np.random.default_rng(seed)
    server_s = rng.uniform(0.5e-3, 1e-3, (num_units, 14)) * np.array([len(SUBSETS[s]) for s in SUBSET_OF])
    problem = Problem(
        tuple(f"u{i}" for i in range(num_units)),
        5 * server_s,
        server_s,
        np.linspace(150e3, 4e3, num_units + 1),
        LinkCost(1e-3, 1e-7),
    )
    values = rng.exponential(0.01, (num_units, 7))
    values[:, 6] = 0
    return problem, DamageTable(values)


def test_it_is_the_same_every_time_and_close_to_the_optimum_of_a_chain():
    for seed in range(5):
        problem, damage = chain(seed=seed)
        one, other = (Progressive(t_eff()).joint(problem, damage, 0.03) for _ in range(2))
        assert one.best == other.best
        np.testing.assert_array_equal(one.front.gammas, other.front.gammas)
        assert one.best.value <= 1.1 * Exact(t_eff()).joint(problem, damage, 0.03).best.value


def test_without_a_budget_nothing_is_removed_and_with_a_whole_score_every_block_is_cut_down():
    problem, damage = chain()
    none = Progressive(t_eff()).joint(problem, damage, 0.0).best
    assert {len(SUBSETS[SUBSET_OF[gamma]]) for gamma in none.gammas} == {3}
    everything = Progressive(t_eff()).joint(problem, damage, 1.0).best
    assert {len(SUBSETS[SUBSET_OF[gamma]]) for gamma in everything.gammas} == {1}


def test_given_ways_are_kept_and_only_the_cut_is_chosen():
    problem, damage = chain()
    for gammas in (parallel_gammas(problem), fused_gammas(problem)):
        found = Progressive(t_eff()).joint(problem, damage, 0.02, only(gammas)).best
        assert found.gammas == gammas
        assert found.value == Exact(t_eff()).throughput(problem, only(gammas)).value


def test_a_cut_that_only_many_removals_make_the_best_one_is_found():
    edge_s = np.tile(np.where(SUBSET_OF == 1, 0.01, 0.03), (4, 1))  # K alone is fast
    sent = [1000, 1000, 1000, 1000, 0]  # so as long as the edge takes more than 0.1 s, the link bounds the cycle
    problem = Problem(tuple("abcd"), edge_s, edge_s / 100, sent, LinkCost(0.0, 1e-4))
    assert Progressive(cycle()).throughput(problem).split_index == 4


def test_bad_arguments_are_refused():
    problem, damage = chain(3)
    with pytest.raises(ValueError, match=r"epsilon must be 0…1.*got 2"):
        Progressive(t_eff()).joint(problem, damage, 2)
    with pytest.raises(ValueError, match="damage has 8 units, the problem 3"):
        Progressive(t_eff()).joint(problem, chain(8)[1], 0.02)
    with pytest.raises(ValueError, match="no γ that is offered is allowed for 'u0'"):
        Progressive(t_eff()).joint(problem, DamageTable(np.array([[np.inf] * 7, [0.0] * 7, [0.0] * 7])), 0.02)
