"""Validation: what is returned truly keeps ε, however wrong the first prediction was, and nothing better is lost."""

from functools import partial

import numpy as np
import pytest

from splitsem.search.damage import DamageTable, recalibrated
from splitsem.search.exact import Exact
from splitsem.search.objective import t_eff
from splitsem.search.problem import LinkCost, Problem, only
from splitsem.search.progressive import Progressive
from splitsem.search.relaxed import Relaxed
from splitsem.search.solution import Solution
from splitsem.search.validated import Validated, Validation

SCORE_REF, EPSILON, UNITS = 0.9, 0.02, 6
WAYS = (0, 1, 4, 13)
EXACT = Exact(t_eff())


class Truth:
    """A network whose damages reinforce each other: ``strength`` times the sum, and more when neighbours suffer."""

    def __init__(self, seed: int, strength: float) -> None:
        rng = np.random.default_rng(seed)
        times_s = np.full((UNITS, 14), np.inf)
        times_s[:, WAYS] = np.sort(rng.uniform(1e-3, 5e-3, (UNITS, len(WAYS))), axis=1)[:, [1, 0, 2, 3]]
        sent = np.linspace(1e5, 1e3, UNITS + 1)
        self.problem = Problem(tuple("abcdef"), times_s, times_s / 4, sent, LinkCost(1e-3, 5e-8))
        values = np.full((UNITS, 7), np.inf)
        values[:, [6, 3, 0, 1]] = np.sort(rng.exponential(0.01, (UNITS, 4)), axis=1)
        values[:, 6] = 0.0
        self.damage = DamageTable(values)
        self.strength = strength
        self.asked: list[tuple[int, ...]] = []

    def true_damage(self, gammas: np.ndarray) -> np.ndarray:
        """Of networks, ``(n, U)``."""
        each = self.damage.by_gamma[np.arange(UNITS), gammas]
        return self.strength * each.sum(axis=1) + 20 * (each[:, 1:] * each[:, :-1]).sum(axis=1)

    def score(self, solution: Solution) -> float:
        self.asked.append(solution.gammas)
        return SCORE_REF - float(self.true_damage(np.array([solution.gammas]))[0])

    def best_value(self) -> float:
        """Of everything that truly keeps ε."""
        combos = np.array(np.meshgrid(*[WAYS] * UNITS)).reshape(UNITS, -1).T
        combos = combos[self.true_damage(combos) <= EPSILON + 1e-12]
        units = np.arange(UNITS)
        edge_s, server_s = self.problem.edge_s[units, combos], self.problem.server_s[units, combos]
        sums = ((cut, edge_s[:, :cut].sum(1), server_s[:, cut:].sum(1)) for cut in range(UNITS + 1))
        return min(self.problem.value(t_eff(), *one).min() for one in sums)

    def validated(self, validation: Validation) -> Validated:
        return validation.run(self.problem, self.damage, EPSILON, self.score, SCORE_REF)


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_the_solution_truly_keeps_epsilon_and_is_close_to_the_true_optimum(strength):
    for seed in range(4):
        truth = Truth(seed, strength)
        found = truth.validated(Validation(EXACT, num_best=4, max_rounds=30))
        assert found.feasible
        assert found.converged
        assert found.best.score >= SCORE_REF - EPSILON - 1e-12
        assert truth.best_value() <= found.best.solution.value * (1 + 1e-12) <= truth.best_value() * 1.03
        assert len(truth.asked) == len(set(truth.asked)) <= 80  # of 4,096 networks; none twice


def test_the_network_with_all_branches_saves_epsilon_where_damages_seem_zero():
    truth = Truth(0, 1.0)
    blind = DamageTable(np.where(np.isfinite(truth.damage.values), 0.0, np.inf))
    whole = EXACT.throughput(truth.problem, only((13,) * UNITS))  # no damage, in truth too
    run = partial(Validation(EXACT, max_rounds=1).run, truth.problem, blind, EPSILON, truth.score, SCORE_REF)
    assert not run().feasible
    found = run(whole=whole)
    assert found.feasible
    assert found.best.solution == whole


def test_the_best_of_all_rounds_is_returned_not_the_last():
    found = Truth(0, 2.0).validated(Validation(EXACT, num_best=2, max_rounds=6))
    everyone = [one for entry in found.rounds for one in entry.scored]
    assert found.num_scored == len(everyone)
    assert found.best.rank == min(one.rank for one in everyone)
    values = [entry.best.solution.value for entry in found.rounds if entry.best.slack == 0]
    assert values == sorted(values, reverse=True)


def test_when_nothing_truly_keeps_epsilon_the_smallest_true_slack_is_reported():
    truth = Truth(1, 1.0)
    found = Validation(EXACT, num_best=3, max_rounds=4).run(
        truth.problem, truth.damage, EPSILON, lambda s: truth.score(s) - 0.05, SCORE_REF
    )
    everyone = [one for entry in found.rounds for one in entry.scored]
    assert not found.feasible
    assert found.best.slack == min(one.slack for one in everyone)
    assert found.best.slack == pytest.approx(SCORE_REF - EPSILON - found.best.score)
    assert found.best.slack <= 0.03 + 1e-12  # that of the network with all branches


def test_a_margin_is_kept_on_top():
    found = Truth(2, 1.5).validated(Validation(EXACT, margin=0.01))
    assert found.best.score >= SCORE_REF - EPSILON + 0.01 - 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_a_margin_of_each_solution_is_kept_and_nothing_better_is_overlooked(seed):
    truth = Truth(seed, 1.0)

    def margin_of(one: Solution) -> float:
        return 0.003 * sum(gamma != 13 for gamma in one.gammas)

    found = Validation(EXACT).run(truth.problem, truth.damage, EPSILON, truth.score, SCORE_REF, margin_of=margin_of)
    best = found.best
    assert found.feasible
    assert best.margin == margin_of(best.solution)
    assert best.score >= SCORE_REF - EPSILON + best.margin - 1e-12
    unasked = truth.validated(Validation(EXACT)).best.solution.value
    whole = truth.problem.times(best.solution.split_index, (13,) * UNITS)
    assert unasked <= best.solution.value <= t_eff()(whole, 0)


def test_one_round_too_few_is_said():
    assert not Truth(0, 2.0).validated(Validation(EXACT, num_best=1, max_rounds=1)).converged


@pytest.mark.parametrize("solver", [Relaxed(t_eff(), steps=40, starts=2), Progressive(t_eff())])
def test_other_solvers_can_be_validated_too(solver):
    truth = Truth(3, 1.5)
    found = Validation(solver, num_best=2, max_rounds=3).run(
        truth.problem, truth.damage, EPSILON, truth.score, SCORE_REF
    )
    assert found.feasible


def test_recalibrated_damages_explain_what_was_observed_and_carry_over():
    truth = Truth(0, 1.0)
    rng = np.random.default_rng(0)
    gammas = rng.choice(WAYS, (20, UNITS))
    doubled = np.array([2 * truth.damage.total(row) for row in gammas])
    table = recalibrated(truth.damage, gammas[:10], doubled[:10])
    seen = np.array([table.total(row) for row in gammas[:10]])
    unseen = np.array([table.total(row) for row in gammas[10:]])
    np.testing.assert_allclose(seen, doubled[:10], atol=1e-4)
    before = np.abs(doubled[10:] / 2 - doubled[10:])
    assert np.abs(unseen - doubled[10:]).mean() < 0.3 * before.mean()
    assert np.isinf(table.values[np.isinf(truth.damage.values)]).all()


def test_bad_arguments_are_refused():
    truth = Truth(0, 1.0)
    with pytest.raises(ValueError, match="num_best must be at least 1, got 0"):
        Validation(EXACT, num_best=0)
    with pytest.raises(ValueError, match="score must return a finite number, got nan"):
        Validation(EXACT).run(truth.problem, truth.damage, EPSILON, lambda _: float("nan"), SCORE_REF)
    with pytest.raises(ValueError, match="gammas must have shape"):
        recalibrated(truth.damage, np.zeros((1, 2), np.int8), [0.1])
