"""The algebra of a split inference, by hand: what latency and pace are made of, and the edge's energy."""

import doctest
import json

import numpy as np
import pytest
import torch

from splitsem.cost.end_to_end import Cost, StageTimes, cycle_s, latency_s
from splitsem.cost.machines import Local
from tests.conftest import ROOT

EDGE = Local(active_w=5.0, idle_w=2.0)
TIMES = StageTimes(
    head_s=0.06,
    encode_s=0.03,
    link_s=0.5,
    link_busy_s=0.3,
    decode_s=0.05,
    tail_s=0.14,
    answer_encode_s=0.01,
    answer_s=0.25,
    answer_busy_s=0.05,
    answer_decode_s=0.01,
)


def test_coding_is_work_of_the_machine_that_does_it() -> None:
    assert TIMES.edge_s == pytest.approx(0.06 + 0.03 + 0.01)
    assert TIMES.server_s == pytest.approx(0.05 + 0.14 + 0.01)


def test_latency_takes_both_ways_and_the_pace_only_what_keeps_a_stage_busy() -> None:
    assert TIMES.latency_s == pytest.approx(0.1 + 0.5 + 0.2 + 0.25)
    assert TIMES.cycle_s == 0.3


def test_a_long_way_does_not_bound_the_pace() -> None:
    near, far = (StageTimes(head_s=0.002, link_s=s, link_busy_s=0.001, answer_s=s) for s in (0.002, 1.0))
    assert near.cycle_s == far.cycle_s == 0.002
    assert far.latency_s > 2


def test_an_answer_that_keeps_the_way_back_busy_bounds_the_pace() -> None:
    assert StageTimes(head_s=0.002, answer_s=0.02, answer_busy_s=0.01).cycle_s == 0.01


def test_the_algebra_takes_arrays_and_tensors() -> None:
    edge, link, server = np.array([1.0, 2.0]), np.array([3.0, 1.0]), 1.5
    assert cycle_s(edge, link, server).tolist() == [3.0, 2.0]
    assert cycle_s(edge, link, server, np.array([5.0, 0.0])).tolist() == [5.0, 2.0]
    assert latency_s(edge, link, server, 0.5).tolist() == [6.0, 5.0]
    tensors = [torch.tensor(value) for value in ([1.0, 2.0], [3.0, 1.0], [1.5, 1.5])]
    assert cycle_s(*tensors, maximum=torch.maximum).tolist() == [3.0, 2.0]


def test_sequential_stages_take_turns_and_the_edge_waits_for_the_others() -> None:
    cost = Cost.of(EDGE, TIMES, link_j=0.5, pipelined=False)
    assert cost.throughput_hz == pytest.approx(1 / 1.05)
    assert cost.energy_j == pytest.approx(0.1 * 5 + 0.5 + 0.95 * 2)


def test_pipelined_edge_waits_only_for_the_slowest_stage() -> None:
    cost = Cost.of(EDGE, TIMES, link_j=0.5)
    assert cost.throughput_hz == pytest.approx(1 / 0.3)
    assert cost.energy_j == pytest.approx(0.1 * 5 + 0.5 + 0.2 * 2)


def test_edge_that_is_the_slowest_stage_never_waits() -> None:
    assert Cost.of(EDGE, StageTimes(head_s=0.5, link_s=0.3, link_busy_s=0.3), link_j=0.0).idle_j == 0.0


def test_metrics_are_flat_and_say_that_energy_is_an_estimate() -> None:
    metrics = Cost.of(EDGE, TIMES, link_j=0.5).to_metrics()
    contract = {"edge_s", "head_s", "encode_s", "link_s", "link_busy_s", "server_s", "decode_s"}
    contract |= {"tail_s", "latency_s", "cycle_s", "throughput_hz", "energy_j"}
    assert contract <= metrics.keys()
    assert metrics["energy_source"] == "estimated"
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_sample_that_takes_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="must take some time"):
        Cost.of(EDGE, StageTimes(), 0.0)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_impossible_time_is_refused_by_name(bad: float) -> None:
    with pytest.raises(ValueError, match="link_s must be finite"):
        StageTimes(head_s=0.1, link_s=bad)


def test_the_worked_example_of_the_page_is_what_the_code_computes() -> None:
    found = doctest.testfile(str(ROOT / "docs" / "decisions" / "cost-of-a-split.md"), module_relative=False)
    assert found.attempted > 8
    assert found.failed == 0
