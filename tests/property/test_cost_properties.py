"""What must hold for any times, any operations and any link."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from splitsem.cost.end_to_end import Cost, StageTimes
from splitsem.cost.machines import Local, Roofline
from splitsem.links.simulated import SimulatedLink
from splitsem.splitting.half import Half, OpCost

seconds = st.floats(1e-6, 1e3)
counts = st.floats(0, 1e12)
ops = st.lists(st.builds(OpCost, st.just("op"), counts, counts), min_size=1, max_size=20)


def half(*costs: OpCost) -> Half:
    return Half("head", "stage1", nn.Identity(), (torch.ones(1),), costs, "model-a")


def machine(peak: float = 1e10, efficiency: float = 1.0, overhead_s: float = 1e-5) -> Roofline:
    return Roofline(peak, 1e9, active_w=5.0, idle_w=1.0, efficiency=efficiency, overhead_s=overhead_s)


def times(edge_s: float, busy_s: float, delay_s: float, server_s: float) -> StageTimes:
    return StageTimes(head_s=edge_s, link_s=busy_s + delay_s, link_busy_s=busy_s, tail_s=server_s)


@given(edge_s=seconds, busy_s=seconds, delay_s=seconds, server_s=seconds, link_j=seconds)
def test_cycle_is_at_most_latency_and_pipelining_never_hurts(
    edge_s: float, busy_s: float, delay_s: float, server_s: float, link_j: float
) -> None:
    edge, stages = Local(active_w=5.0, idle_w=1.0), times(edge_s, busy_s, delay_s, server_s)
    piped, alone = (Cost.of(edge, stages, link_j, pipelined) for pipelined in (True, False))
    assert stages.cycle_s <= stages.latency_s <= (3 * stages.cycle_s + delay_s) * (1 + 1e-12)
    assert stages.cycle_s == times(edge_s, busy_s, 0.0, server_s).cycle_s
    assert piped.throughput_hz == 1 / stages.cycle_s
    assert alone.throughput_hz == 1 / stages.latency_s
    assert piped.throughput_hz >= alone.throughput_hz
    assert piped.energy_j <= alone.energy_j


@given(edge_s=seconds, link_s=seconds, server_s=seconds)
def test_energy_lies_between_always_idle_and_always_active(edge_s: float, link_s: float, server_s: float) -> None:
    cost = Cost.of(Local(active_w=5.0, idle_w=1.0), times(edge_s, link_s, 0.0, server_s), link_j=0.0)
    assert cost.period_s * 1.0 * (1 - 1e-9) <= cost.energy_j <= cost.period_s * 5.0 * (1 + 1e-9)


@given(costs=ops, cut=st.integers(0, 20))
def test_times_of_two_halves_add_up_to_the_whole(costs: list[OpCost], cut: int) -> None:
    head, tail = half(*costs[:cut]), half(*costs[cut:])
    assert machine().time_s(head) + machine().time_s(tail) == pytest.approx(machine().time_s(half(*costs)))


@given(costs=ops)
def test_faster_machine_is_never_slower_and_each_bound_holds(costs: list[OpCost]) -> None:
    time_s = machine().time_s(half(*costs))
    assert machine(peak=2e10).time_s(half(*costs)) <= time_s <= machine(efficiency=0.5).time_s(half(*costs))
    assert time_s >= sum(op.flops for op in costs) / 1e10 * (1 - 1e-9)
    assert time_s >= sum(op.bytes for op in costs) / 1e9 * (1 - 1e-9)


@given(
    size=st.integers(0, 5000),
    more=st.integers(0, 5000),
    packet_bytes=st.integers(1, 2000),
    overhead_bytes=st.integers(0, 200),
)
def test_longer_payload_never_arrives_sooner_nor_costs_less(
    size: int, more: int, packet_bytes: int, overhead_bytes: int
) -> None:
    link = SimulatedLink(1e6, 0.01, 1e-7, packet_bytes, overhead_bytes)
    short, long = link.send(bytes(size)), link.send(bytes(size + more))
    assert short.link_s <= long.link_s
    assert short.energy_j <= long.energy_j
    assert short.link_s >= link.rtt_s / 2 + 8 * size / 1e6 * (1 - 1e-12)
