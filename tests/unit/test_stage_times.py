"""What the transport's software keeps an end busy with bounds the pace; what a frame waits for it is the link's."""

import pytest

from splitsem.cost.end_to_end import Cost, StageTimes
from splitsem.cost.machines import Local, Roofline
from splitsem.links.link import FrameWork
from splitsem.links.recorded import LinkMetrics, RecordedLink, write_link_metrics
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Frames
from splitsem.workflows.evaluation import stage_times
from tests.integration.network import small_network

EDGE, SERVER = FrameWork(0.001, 1e-6), FrameWork(0.002, 2e-6)


def test_a_recorded_link_gives_back_what_was_measured(tmp_path):
    found = LinkMetrics("here:1", "grpc", "2026-01-01T00:00:00Z", 0.010, 0.020, 1e6, 1e6, EDGE, SERVER)
    write_link_metrics(found, tmp_path / "link.json")
    link = RecordedLink(str(tmp_path / "link.json"))
    assert (link.edge_work, link.server_work) == (EDGE, SERVER)
    assert link.send(b"").link_s + link.send_back(b"").link_s == pytest.approx(found.rtt_s)


@pytest.mark.parametrize(("num_bytes", "edge_s", "server_s"), [(1000, 0.002, 0.004), (0, 0.0, 0.0)])
def test_the_transports_work_is_that_of_the_frames_bytes_where_one_travels(num_bytes, edge_s, server_s):
    cut, machine = small_network()[1].cut("stage1"), Local(28.0, 5.0, budget_s=0.01)
    frames = Frames(payload_bytes=[num_bytes], link_s=[0.0], link_busy_s=[0.0], encode_s=[0.002], decode_s=[0.003])
    times = stage_times(cut.halves(), frames, machine, machine, _link())
    assert (times.edge_transport_s, times.server_transport_s) == (pytest.approx(edge_s), pytest.approx(server_s))
    assert (times.encode_s, times.decode_s) == (0.002, 0.003)


def test_on_a_modelled_machine_it_is_scaled_by_the_coding_rates():
    cut, here = small_network()[1].cut("stage1"), Local(28.0, 5.0, budget_s=0.01)
    slow = Roofline(1e12, 1e11, 5.0, 1.0, coding_bytes_per_s=1e3)
    frames = Frames(payload_bytes=[10], link_s=[0.0], link_busy_s=[0.0], encode_s=[0.0], decode_s=[0.0])
    times = stage_times(cut.halves(), frames, slow, here, _link())
    assert times.edge_transport_s == pytest.approx(slow.coding_factor() * EDGE.frame_s(10))
    assert times.server_transport_s == pytest.approx(SERVER.frame_s(10))


def test_it_bounds_the_pace_and_costs_the_edge_energy_but_delays_no_sample():
    stages = {"head_s": 0.001, "link_s": 0.004, "link_busy_s": 0.001, "tail_s": 0.002}
    without, times = StageTimes(**stages), StageTimes(**stages, edge_transport_s=0.001, server_transport_s=0.003)
    assert times.latency_s == without.latency_s
    assert (without.cycle_s, times.cycle_s) == (pytest.approx(0.002), pytest.approx(0.005))
    cost = Cost(times, link_j=0.0, active_w=5.0, idle_w=1.0)
    assert cost.energy_j == pytest.approx(0.002 * 5.0 + 0.003 * 1.0)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_work_is_finite_and_not_negative(value):
    with pytest.raises(ValueError, match="s_per_byte must be finite and not negative"):
        FrameWork(0.0, value)


def _link():
    link = SimulatedLink(1e6, 0.0, 0.0)
    link.edge_work, link.server_work = EDGE, SERVER
    return link
