"""What workflow=offload predicts of a chain: each machine and each hop is a stage, and shared cores are told."""

from dataclasses import replace

import pytest

from splitsem.cost.end_to_end import StageTimes
from splitsem.cost.machines import Roofline
from splitsem.workflows.evaluation import Evaluation
from splitsem.workflows.offload_headline import chain_stages, shared_machines
from splitsem.workflows.prediction import Known, _of_chain

TIMES = StageTimes(head_s=0.002, link_s=0.003, link_busy_s=0.001, tail_s=0.004)
KNOWN = Known({}, 0.0075, None, stages_s=(0.003, 0.0005, 0.004), hops_busy_s=(0.0002,))


def predicted(known: Known) -> dict:
    edge = Roofline(1e9, 1e9, 5.0, 1.0, coding_bytes_per_s=1e6)
    return _of_chain(Evaluation({"link_j": 0.0}, {}), edge, TIMES, known).metrics


def test_the_slowest_machine_bounds_the_pace_of_a_chain_with_quick_hops():
    metrics = predicted(KNOWN)
    assert metrics["cycle_s"] == pytest.approx(0.004)
    assert metrics["latency_s"] == pytest.approx(0.002 + 0.003 + 0.0005 + 0.007)


def test_a_hop_that_is_busy_for_longer_than_any_machine_bounds_it():
    metrics = predicted(KNOWN._replace(hops_busy_s=(0.02,)))
    assert metrics["cycle_s"] == pytest.approx(0.02)
    assert metrics["throughput_hz"] == pytest.approx(50)
    assert metrics["hop_1_busy_s"] == 0.02
    assert metrics["link_busy_s"] == TIMES.link_busy_s  # of the first hop
    assert metrics["latency_s"] == predicted(KNOWN)["latency_s"]
    assert "and are busy for 20.000 ms with a frame" in chain_stages(metrics)


def test_a_server_that_does_not_tell_its_hops_is_said_to_be_too_old():
    metrics = predicted(KNOWN._replace(hops_busy_s=()))
    assert metrics["cycle_s"] == pytest.approx(0.004)
    assert "a server is too old to tell it" in chain_stages(metrics)


@pytest.mark.parametrize(
    ("metrics", "num_ends", "is_here", "said"),
    [
        ({"num_hosts": 1}, 2, True, "here both share one."),
        ({"num_hosts": 1}, 2, False, "here both share one."),  # network namespaces of one machine
        ({"num_hosts": 2}, 2, True, None),  # a tunnel to another machine
        ({"num_hosts": 1}, 3, True, "here 3 processes share 1."),
        ({"num_hosts": 2}, 3, False, "here 3 processes share 2."),
        ({"num_hosts": 3}, 3, False, None),
        ({}, 2, True, "here both share one."),
        ({}, 3, True, "here 3 processes share at most 2."),
        ({}, 3, False, None),
    ],
)
def test_processes_that_share_cores_are_told_by_what_they_say_of_their_machine(metrics, num_ends, is_here, said):
    lines = shared_machines(metrics, num_ends, is_here)
    wanted = [] if said is None else [f"The predicted throughput presumes a machine for each end; {said}"]
    assert lines == wanted


def test_the_edge_may_still_be_the_slowest():
    edge = Roofline(1e9, 1e9, 5.0, 1.0, coding_bytes_per_s=1e6)
    found = _of_chain(Evaluation({"link_j": 0.0}, {}), edge, replace(TIMES, head_s=0.03), KNOWN)
    assert found.metrics["cycle_s"] == pytest.approx(0.03)
