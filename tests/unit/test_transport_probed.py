"""ProbedLink: times are the probes', straight lines between them, and a rate from all."""

import numpy as np
import pytest

from splitsem.links.probed import NO_RATE_BPS, ProbedLink
from splitsem.links.simulated import SimulatedLink


def test_a_link_of_constant_rate_is_found_again_from_noisy_probes():
    truth = SimulatedLink(bandwidth_bps=10e6, rtt_s=0.004, energy_j_per_bit=0.0)
    noise = np.random.default_rng(0)
    sizes = [0, 1000, 20_000, 100_000]
    probes = [(n, truth.send(bytes(n)).link_s * noise.uniform(0.9, 1.1)) for n in sizes for _ in range(50)]
    link = ProbedLink(probes)
    assert link.bandwidth_bps == pytest.approx(10e6, rel=0.05)
    assert link.rtt_s == pytest.approx(0.002, rel=0.05)
    for num_bytes in (0, 500, 20_000, 60_000, 300_000):
        assert link.link_s(num_bytes) == pytest.approx(truth.send(bytes(num_bytes)).link_s, rel=0.05)


def test_a_bucket_that_lets_short_payloads_through_keeps_its_shape():
    link = ProbedLink([(0, 0.001), (5_000, 0.001), (10_000, 0.006), (50_000, 0.046)])
    assert link.link_s(4_000) == 0.001
    assert link.link_s(10_000) == 0.006
    assert link.link_s(30_000) == pytest.approx(0.026)


def test_one_slow_probe_does_not_move_the_median():
    link = ProbedLink([(1000, 0.002)] * 5 + [(1000, 9.0)])
    assert link.send(bytes(1000)).link_s == pytest.approx(0.002)


def test_where_more_bytes_take_no_more_time_there_is_no_rate():
    link = ProbedLink([(0, 0.002), (1000, 0.001)])
    assert link.bandwidth_bps == NO_RATE_BPS
    assert link.link_s(1_000_000) == 0.001


def test_energy_is_that_of_the_payload_bits():
    report = ProbedLink([(0, 0.001)], energy_j_per_bit=1e-7).send(bytes(1000))
    assert report.energy_j == pytest.approx(8e-4)
    assert report.payload == bytes(1000)


@pytest.mark.parametrize("probes", [[], [(-1, 0.1)], [(1, -0.1)], [(1, float("nan"))]])
def test_probes_that_cannot_be_are_refused(probes):
    with pytest.raises(ValueError, match="probes"):
        ProbedLink(probes)


def test_a_link_of_probes_counts_the_bytes_on_the_wire() -> None:
    assert ProbedLink([(0, 0.001), (1000, 0.010)]).send(bytes(700)).wire_bytes == 700


def test_what_a_stream_takes_beyond_the_bytes_keeps_the_link_busy() -> None:
    probes = [(0, 0.020), (1000, 0.021), (100_000, 0.120)]
    report = ProbedLink(probes, paced=(1000, 0.0015)).send(bytes(1000))
    assert report.link_busy_s == pytest.approx(0.0015)
    assert report.link_s == pytest.approx(0.021)
    assert ProbedLink(probes).send(bytes(1000)).link_busy_s == pytest.approx(0.001)


def test_an_answer_keeps_the_way_back_busy_and_delays_nothing_again() -> None:
    report = ProbedLink([(0, 0.02)], down_bandwidth_bps=8e6).send_back(bytes(1000))
    assert (report.link_busy_s, report.link_s) == (pytest.approx(0.001), 0.0)
