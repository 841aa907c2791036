"""SimulatedLink: the closed form, its units and its limits."""

import pytest

from splitsem.links.simulated import SimulatedLink


def test_time_is_half_a_round_trip_plus_the_bits_at_the_bandwidth() -> None:
    link = SimulatedLink(bandwidth_bps=1e6, rtt_s=0.04, energy_j_per_bit=1e-7)
    assert link.send(bytes(12_500)).link_s == pytest.approx(0.02 + 0.1)


def test_the_bits_keep_the_link_busy_and_the_way_only_delays() -> None:
    report = SimulatedLink(bandwidth_bps=1e6, rtt_s=0.04, energy_j_per_bit=1e-7).send(bytes(12_500))
    assert (report.link_busy_s, report.link_delay_s) == (pytest.approx(0.1), pytest.approx(0.02))


def test_an_answer_comes_back_at_the_rate_and_the_energy_of_the_way_back() -> None:
    link = SimulatedLink(1e6, 0.04, 1e-7, down_bandwidth_bps=4e6, receive_j_per_bit=1e-8)
    report = link.send_back(bytes(1000))
    assert report.link_busy_s == pytest.approx(8000 / 4e6)
    assert report.energy_j == pytest.approx(8000 * 1e-8)
    like_the_way_up = SimulatedLink(1e6, 0.04, 1e-7)
    assert like_the_way_up.send_back(bytes(1000)) == like_the_way_up.send(bytes(1000))


def test_a_duty_cycle_keeps_the_link_and_delays_a_payload_only_between_its_own_packets() -> None:
    always, rarely = (SimulatedLink(8e3, 0.2, 0.0, packet_bytes=100, duty_cycle=share) for share in (1.0, 0.01))
    one, three = rarely.send(bytes(100)), rarely.send(bytes(250))
    assert one.link_busy_s == pytest.approx(100 * 0.1)
    assert one.link_s == pytest.approx(always.send(bytes(100)).link_s)
    assert three.link_s == pytest.approx(0.1 + 2 * 0.1 * 100 + 0.05)


def test_payload_arrives_unchanged() -> None:
    payload = bytes(range(256))
    assert SimulatedLink(1e6, 0.0, 0.0).send(payload).payload == payload


def test_each_packet_adds_its_overhead_to_time_and_energy() -> None:
    link = SimulatedLink(bandwidth_bps=8e3, rtt_s=0.0, energy_j_per_bit=1e-3, packet_bytes=100, overhead_bytes=10)
    assert link.wire_bytes(100) == 110
    assert link.wire_bytes(101) == 121
    report = link.send(bytes(101))
    assert report.link_s == pytest.approx(0.121)
    assert report.energy_j == pytest.approx(8 * 121 * 1e-3)


def test_empty_payload_still_takes_one_packet() -> None:
    assert SimulatedLink(1e6, 0.0, 0.0, overhead_bytes=40).wire_bytes(0) == 40


def test_payloads_do_not_disturb_each_other() -> None:
    link = SimulatedLink(1e6, 0.01, 1e-7)
    assert link.send(bytes(5000)) == link.send(bytes(5000))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bandwidth_bps", 0.0),
        ("down_bandwidth_bps", float("inf")),
        ("receive_j_per_bit", -1.0),
        ("duty_cycle", 0.0),
        ("duty_cycle", 1.5),
        ("bandwidth_bps", float("nan")),
        ("bandwidth_bps", float("inf")),
        ("rtt_s", -1.0),
        ("rtt_s", float("inf")),
        ("energy_j_per_bit", -1e-9),
        ("energy_j_per_bit", float("nan")),
        ("packet_bytes", 0),
        ("overhead_bytes", -1),
    ],
)
def test_impossible_link_is_refused_by_name(name: str, value: float) -> None:
    arguments = {"bandwidth_bps": 1e6, "rtt_s": 0.01, "energy_j_per_bit": 1e-7} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be"):
        SimulatedLink(**arguments)  # type: ignore[arg-type]
