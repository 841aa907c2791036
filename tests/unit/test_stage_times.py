"""What the software of a transport takes is work of both ends, once, and of payloads that travel only."""

import pytest

from splitsem.cost.machines import Local
from splitsem.links.recorded import LinkMetrics, RecordedLink, write_link_metrics
from splitsem.pipeline import Frames
from splitsem.workflows.evaluation import stage_times
from tests.integration.network import small_network


def test_the_transports_work_is_the_ends_and_does_not_delay_again(tmp_path):
    found = LinkMetrics("here:1", "grpc", "2026-01-01T00:00:00Z", 0.010, 0.020, 1e6, 1e6, frame_s=0.001)
    write_link_metrics(found, tmp_path / "link.json")
    link = RecordedLink(str(tmp_path / "link.json"))
    assert (link.frame_s, link.rtt_s) == (0.001, pytest.approx(0.008))
    assert link.send(b"").link_s + link.send_back(b"").link_s + 2 * link.frame_s == pytest.approx(found.rtt_s)


@pytest.mark.parametrize(("num_bytes", "frame_s"), [(10, 0.001), (0, 0.0)])
def test_making_and_reading_a_payload_that_travels_includes_it(num_bytes, frame_s):
    cut, machine = small_network()[1].cut("stage1"), Local(28.0, 5.0, budget_s=0.01)
    frames = Frames(payload_bytes=[num_bytes], link_s=[0.0], link_busy_s=[0.0], encode_s=[0.002], decode_s=[0.003])
    times = stage_times(cut.halves(), frames, machine, machine, 0.001)
    assert (times.encode_s, times.decode_s) == (pytest.approx(0.002 + frame_s), pytest.approx(0.003 + frame_s))
