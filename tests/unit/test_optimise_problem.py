"""A problem refuses what cannot be, in one line; objectives never fall when a stage takes longer."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitsem.cost.end_to_end import Cost, StageTimes
from splitsem.cost.machines import Local
from splitsem.search.damage import SUBSETS, DamageTable, ablation
from splitsem.search.exact import Exact
from splitsem.search.objective import Objective, Stages, TierWork, cycle, energy, latency, t_eff
from splitsem.search.problem import LinkCost, Problem, function_equivalent, fused_gammas, only, parallel_gammas
from splitsem.search.solution import Solution

INF = np.inf


def times(*rows: dict[int, float]) -> np.ndarray:
    """Seconds of the given γ, inf for all others."""
    table = np.full((len(rows), 14), INF)
    for row, offered in zip(table, rows, strict=True):
        row[list(offered)] = list(offered.values())
    return table


def problem(edge_s: np.ndarray, server_s: np.ndarray, link_bytes: list[float]) -> Problem:
    return Problem(tuple(f"unit{i}" for i in range(len(edge_s))), edge_s, server_s, link_bytes, LinkCost(0.001, 1e-6))


def busy(stages: Stages) -> tuple[float, float, float]:
    return stages.edge_s, stages.link_busy_s, stages.server_s


def made(stages: Sequence[float]) -> Stages:
    return Stages(**dict(zip((field.name for field in fields(Stages)), stages, strict=False)))  # no transport


STEM, BLOCK = {0: 0.004}, {3: 0.009, 4: 0.006, 0: 0.005, 1: 0.002}
WHOLE = {g: 0.001 * (g + 1) for g in range(14)}


def test_times_are_those_of_the_units_on_each_side_and_a_cut_that_sends_nothing_takes_no_time():
    two = problem(times(STEM, BLOCK), times(STEM, BLOCK) / 2, [1000, 500, 0])
    assert busy(two.times(1, (0, 4))) == pytest.approx((0.004, 0.0015, 0.003))
    assert busy(two.times(0, (0, 1))) == pytest.approx((0.0, 0.002, 0.003))
    assert busy(two.times(2, (0, 3))) == pytest.approx((0.013, 0.0, 0.0))


def test_work_at_the_ends_counts_in_the_pace_and_a_delay_only_in_the_latency():
    link = LinkCost(0.0, 1e-6, delay_s=0.0005, free_bytes=300)
    both = times(STEM, BLOCK)
    two = Problem(("a", "b"), both, both / 2, [1000, 200, 0], link, edge_base_s=0.01, server_base_s=0.002)
    assert busy(two.times(1, (0, 4))) == pytest.approx((0.014, 0.0002, 0.005))
    assert busy(two.times(2, (0, 4))) == pytest.approx((0.01, 0.0, 0.0))  # nothing crosses: no work of sending
    assert two.beside_units.link_delay_s == pytest.approx([0.0002, 0.0003, 0.0])
    found = Solution.of(two, t_eff(), 0, (0, 4))
    assert found.cycle_s == pytest.approx(0.01)
    assert found.latency_s == pytest.approx(0.01 + 0.001 + 0.007 + 0.0002)
    assert found.value == pytest.approx((found.latency_s + found.cycle_s) / 2)
    with pytest.raises(ValueError, match="edge_base_s must be finite and not negative"):
        Problem(("a", "b"), both, both, [1, 1, 1], link, edge_base_s=-1.0)


def test_a_unit_that_only_the_server_runs_keeps_the_cut_before_it():
    two = problem(times(STEM, {}), times(STEM, BLOCK), [1, 1, 1])
    assert two.cuts().tolist() == [0, 1]
    with pytest.raises(ValueError, match="unit 'unit1' is not offered in γ 4 on the edge"):
        two.times(2, (0, 4))


@pytest.mark.parametrize(
    ("edge_s", "server_s", "link_bytes", "message"),
    [
        (times(STEM)[:, :13], times(STEM), [1, 1], r"edge_s must have shape \(1, 14\), got \(1, 13\)"),
        (times(STEM), times({0: -1.0}), [1, 1], "server_s of unit 'unit0', γ 0, must be a time of 0 s or more.*-1.0"),
        (times({0: np.nan}), times(STEM), [1, 1], "edge_s of unit 'unit0', γ 0.*nan"),
        (times({}), times({}), [1, 1], "no γ is offered for 'unit0'"),
        (times({}, STEM), times(STEM, {}), [1, 1, 1], "the edge cannot run 'unit0', the server cannot run 'unit1'"),
        (times(STEM), times(STEM), [1], r"link_bytes must have shape \(2,\)"),
        (times(STEM), times(STEM), [1, -1], "link_bytes must be finite and not negative"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(edge_s, server_s, link_bytes, message):
    with pytest.raises(ValueError, match=message) as caught:
        problem(edge_s, server_s, link_bytes)
    assert "\n" not in str(caught.value)


def test_a_mask_must_leave_every_unit_a_way_to_run():
    two = problem(times(STEM, BLOCK), times(STEM, BLOCK), [1, 1, 1])
    with pytest.raises(ValueError, match="no γ that is offered is allowed for 'unit1'"):
        two.tiers(only([0, 13]))
    with pytest.raises(ValueError, match="allowed must have shape"):
        two.tiers(np.ones((1, 14), bool))


def test_baselines_have_all_branches_beside_each_other_or_folded():
    three = problem(times(STEM, BLOCK, WHOLE), times(STEM, BLOCK, WHOLE), [1, 1, 1, 1])
    assert parallel_gammas(three) == (0, 3, 9)
    assert fused_gammas(three) == (0, 4, 13)
    allowed = [np.flatnonzero(row).tolist() for row in function_equivalent(fused_gammas(three))]
    assert allowed == [[0], [3, 4], [9, 10, 11, 12, 13]]


def test_a_link_cannot_be_faster_than_nothing():
    with pytest.raises(ValueError, match=r"fixed_busy_s must be finite and not negative, got -0\.1"):
        LinkCost(-0.1, 1e-6)


seconds = st.floats(0, 1e3)


@given(st.tuples(*[seconds] * 6), st.integers(0, 5), seconds, st.floats(0, 1), st.floats(0, 5))
def test_no_objective_falls_when_a_stage_takes_longer(stages, stage, more, omega, idle_w):
    longer = [value + more * (place == stage) for place, value in enumerate(stages)]
    for objective in (t_eff(omega), latency(), cycle(), energy(5.0, idle_w), energy(5.0, idle_w, pipelined=False)):
        assert objective(made(longer), 100) >= objective(made(stages), 100)


@given(st.tuples(st.floats(1e-6, 10), *[seconds] * 5), st.booleans())
def test_latency_cycle_and_energy_are_those_of_the_cost_model(given, pipelined):
    stages = made(given)
    times = StageTimes(
        head_s=stages.edge_s,
        link_s=stages.link_s,
        link_busy_s=stages.link_busy_s,
        tail_s=stages.server_s,
        answer_s=stages.answer_s,
        answer_busy_s=stages.answer_busy_s,
    )
    cost = Cost.of(Local(5.0, 2.0), times, 300 * 1e-6, pipelined)
    assert energy(5.0, 2.0, 1e-6, pipelined)(stages, 300) == pytest.approx(cost.energy_j)
    assert t_eff(0.25)(stages, 300) == pytest.approx(0.25 * times.latency_s + 0.75 * times.cycle_s)


def test_a_delay_of_a_second_and_a_tiny_payload_do_not_bound_the_pace():
    """λ = 1: 4 ms, 2 ms on the link and 1 s under way, 3 ms; 1 ms for the answer, 0.5 s under way."""
    both, link = times(STEM, BLOCK), LinkCost(0.0, 1e-6, delay_s=1.0)
    two = Problem(("a", "b"), both, both / 2, [9000, 2000, 0], link, answer_s=0.501, answer_busy_s=0.001)
    found = Solution.of(two, t_eff(), 1, (0, 4))
    assert found.latency_s == pytest.approx(0.004 + 0.002 + 1.0 + 0.003 + 0.501)
    assert found.cycle_s == pytest.approx(0.004)
    assert found.throughput_hz == pytest.approx(250.0)
    assert found.value == pytest.approx((1.51 + 0.004) / 2)
    at_once = Exact(cycle()).throughput(two)
    assert (at_once.split_index, at_once.cycle_s) == (1, pytest.approx(0.004))
    alone = two.times(2, (0, 4))
    assert (alone.answer_s, alone.link_s, alone.latency_s) == (0.0, 0.0, pytest.approx(0.01))


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (t_eff(0.25), "T_eff = 0.25·latency + 0.75·cycle"),
        (latency(), "latency"),
        (cycle(), "cycle"),
        (energy(5.0, 2.0), "energy of the edge"),
        (Objective(edge=2.0, byte=0.5), "2·edge + 0.5·bytes"),
    ],
)
def test_an_objective_says_what_it_is(objective, words):
    assert objective.words == words


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: t_eff(1.5), "omega must be 0…1, got 1.5"),
        (lambda: energy(1.0, 2.0), "need 0 <= idle_w <= active_w"),
        (lambda: energy(2.0, 1.0, -1.0), "j_per_byte must be finite and not negative"),
        (lambda: Objective(), "must be above 0"),
        (lambda: Objective(cycle=-1.0), "cycle must be finite and not negative, got -1.0"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_ablation_scores_each_subset_of_each_unit_once_and_alone():
    two = problem(times(STEM, WHOLE), times(STEM, WHOLE), [1, 1, 1])
    asked: list[tuple[int, ...]] = []

    def score(gammas: tuple[int, ...]) -> float:
        asked.append(gammas)
        return 0.9 - 0.01 * gammas[1]

    table = ablation(two, (0, 13), score, score_ref=0.9)
    assert sorted(asked) == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 5), (0, 7)]
    np.testing.assert_allclose(table.values[1], [0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.0], atol=1e-12)
    np.testing.assert_array_equal(table.values[0], [0.0] + [INF] * 6)
    assert table.total((0, 4)) == pytest.approx(0.03)


def test_damage_must_be_a_number_or_inf():
    values = np.zeros((2, len(SUBSETS)))
    values[1, 3] = np.nan
    with pytest.raises(ValueError, match=r"damage of unit 1, branches D\+K, must be a number.*got nan"):
        DamageTable(values)


def test_the_roofline_term_grows_below_the_knee_and_an_empty_tier_has_none():
    work = TierWork(np.zeros((1, 14)), np.zeros((1, 14)), peak_flops_per_s=100.0, memory_bytes_per_s=10.0)
    assert work.knee == 10
    assert work.term(0.0, 0.0) == 0
    assert work.term(100.0, 50.0, rho=0.0) == pytest.approx(8.0)
    assert work.term(1000.0, 50.0, rho=0.0) == 0
    assert work.term(1000.0, 50.0, rho=0.1) == pytest.approx(1.5)
