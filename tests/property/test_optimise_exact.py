"""The exact solver equals trying everything, on a thousand small problems."""

import numpy as np
import pytest

from splitsem.report.pareto import pareto_front
from splitsem.search.damage import DamageTable
from splitsem.search.exact import Exact
from splitsem.search.problem import function_equivalent, fused_gammas
from splitsem.search.solution import Solution
from tests.optimise_instances import Instance, everything, instance

CLOSE = 1e-12


def evaluated(case: Instance, solution: Solution) -> Solution:
    return Solution.of(case.problem, case.objective, solution.split_index, solution.gammas)


def test_throughput_joint_optimum_and_front_equal_brute_force_on_a_thousand_problems():
    for seed in range(1000):
        case = instance(seed)
        exact = Exact(case.objective)
        value, damage, latency = everything(case)

        fastest = exact.throughput(case.problem)
        assert fastest.value == pytest.approx(value.min(), rel=CLOSE), seed
        assert fastest.latency_s == pytest.approx(latency[value <= value.min() * (1 + CLOSE)].min(), rel=CLOSE), seed
        assert evaluated(case, fastest) == fastest, seed

        joint = exact.joint(case.problem, case.damage, case.epsilon)
        slack = max(0.0, damage.min() - case.epsilon)
        assert joint.slack == pytest.approx(slack, abs=CLOSE), seed
        allowed = damage <= case.epsilon + slack + CLOSE
        least = value[allowed].min()
        assert joint.best.value == pytest.approx(least, rel=CLOSE), seed
        assert joint.best.damage == damage[allowed & (value <= least * (1 + CLOSE))].min(), seed

        # Of values, sums in another order differ in the last bit, which must not make two points of one.
        points = np.unique(np.stack([np.round(value, 13), damage], 1), axis=0)
        points = points[pareto_front(points, maximise=[False, False])]
        np.testing.assert_allclose(np.stack([joint.front.value, joint.front.damage], 1), points, rtol=0, atol=1e-13)
        assert case.damage.total(joint.best.gammas) == joint.best.damage, seed
        assert evaluated(case, joint.best).value == pytest.approx(joint.best.value, rel=CLOSE), seed


def test_every_solution_on_a_front_is_what_it_says():
    for seed in range(40):
        case = instance(seed)
        for solution in Exact(case.objective).joint(case.problem, case.damage, case.epsilon).front:
            again = evaluated(case, solution)
            for name, seconds in vars(case.problem.times(solution.split_index, solution.gammas)).items():
                assert getattr(solution, name) == pytest.approx(seconds, rel=CLOSE, abs=1e-15)
            assert again.value == pytest.approx(solution.value, rel=CLOSE)
            assert case.damage.total(solution.gammas) == solution.damage


def test_a_front_that_ends_early_is_the_beginning_of_the_whole_one():
    for seed in range(50):
        case = instance(seed)
        whole = Exact(case.objective).joint(case.problem, case.damage, case.epsilon)
        short = Exact(case.objective, largest_damage=0.03).joint(case.problem, case.damage, case.epsilon)
        end = max(0.03, case.epsilon + whole.slack)
        assert short.best == whole.best, seed
        np.testing.assert_array_equal(short.front.value, whole.front.within(end).value)


def test_rounding_damages_up_loses_no_more_than_a_step_a_unit_and_reports_true_damages():
    step = 0.004
    for seed in range(50):
        case = instance(seed)
        rounded = Exact(case.objective, damage_step=step).joint(case.problem, case.damage, 0.06)
        strict = Exact(case.objective).joint(case.problem, case.damage, 0.06 - step * case.problem.num_units)
        free = Exact(case.objective).joint(case.problem, case.damage, 0.06)
        assert rounded.damage_step == step
        assert rounded.best.damage == pytest.approx(case.damage.total(rounded.best.gammas), abs=CLOSE)
        assert rounded.best.damage <= 0.06 + rounded.slack + CLOSE
        if free.slack == 0 and strict.slack == 0:
            assert free.best.value * (1 - CLOSE) <= rounded.best.value <= strict.best.value * (1 + CLOSE), seed


def test_without_damage_the_joint_optimum_is_the_throughput_optimum():
    for seed in range(50):
        case = instance(seed)
        none = DamageTable(np.zeros(case.damage.values.shape))
        joint = Exact(case.objective).joint(case.problem, none, 0.0)
        assert joint.best.value == pytest.approx(Exact(case.objective).throughput(case.problem).value, rel=CLOSE)


def test_more_freedom_is_never_worse():
    for seed in range(50):
        case = instance(seed)
        exact = Exact(case.objective)
        same = function_equivalent(fused_gammas(case.problem))
        try:
            kept = exact.throughput(case.problem, same)
        except ValueError:  # a unit's full set of branches is offered on the other machine alone
            continue
        assert exact.throughput(case.problem).value <= kept.value
        values = [exact.joint(case.problem, case.damage, epsilon).best.value for epsilon in (0.1, 0.2, 0.4)]
        assert values == sorted(values, reverse=True)
