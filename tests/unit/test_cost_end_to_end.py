"""Cost: energy of the edge device, pipelined or not, by hand."""

import json

import pytest

from splitsem.cost.end_to_end import Cost
from splitsem.cost.machines import Local

EDGE = Local(active_w=5.0, idle_w=2.0)


def test_sequential_stages_take_turns_and_the_edge_waits_for_both_others() -> None:
    cost = Cost.of(EDGE, edge_s=0.1, link_s=0.3, server_s=0.2, link_j=0.5, pipelined=False)
    assert cost.throughput_hz == pytest.approx(1 / 0.6)
    assert cost.energy_j == pytest.approx(0.1 * 5 + 0.5 + 0.5 * 2)


def test_pipelined_edge_waits_only_for_the_slowest_stage() -> None:
    cost = Cost.of(EDGE, edge_s=0.1, link_s=0.3, server_s=0.2, link_j=0.5)
    assert cost.throughput_hz == pytest.approx(1 / 0.3)
    assert cost.energy_j == pytest.approx(0.1 * 5 + 0.5 + 0.2 * 2)


def test_edge_that_is_the_slowest_stage_never_waits() -> None:
    assert Cost.of(EDGE, edge_s=0.5, link_s=0.3, server_s=0.2, link_j=0.0).idle_j == 0.0


def test_metrics_are_flat_and_say_that_energy_is_an_estimate() -> None:
    metrics = Cost.of(EDGE, 0.1, 0.3, 0.2, 0.5).to_metrics()
    contract = {"edge_s", "link_s", "server_s", "latency_s", "cycle_s", "throughput_hz", "energy_j"}
    assert contract <= metrics.keys()
    assert metrics["energy_source"] == "estimated"
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_sample_that_takes_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="must take some time"):
        Cost.of(EDGE, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_impossible_time_is_refused_by_name(bad: float) -> None:
    with pytest.raises(ValueError, match="link_s must be finite"):
        Cost.of(EDGE, 0.1, bad, 0.2, 0.0)
