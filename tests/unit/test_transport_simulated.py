"""SimulatedLink: the closed form, its units and its limits."""

import pytest

from splitsem.links.simulated import SimulatedLink


def test_time_is_half_a_round_trip_plus_the_bits_at_the_bandwidth() -> None:
    link = SimulatedLink(bandwidth_bps=1e6, rtt_s=0.04, energy_j_per_bit=1e-7)
    assert link.send(bytes(12_500)).link_s == pytest.approx(0.02 + 0.1)


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
