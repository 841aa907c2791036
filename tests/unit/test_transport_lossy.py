"""LossyLink: what arrives, what is lost, and that everything sent is counted."""

from pathlib import Path

import hydra
import numpy as np
import pytest
from omegaconf import OmegaConf

from splitsem.links.channel import Bsc, Channel, Erasure
from splitsem.links.fading import Rayleigh
from splitsem.links.fec import Convolutional, Repetition
from splitsem.links.lossy import LossyLink
from splitsem.links.simulated import SimulatedLink
from splitsem.links.trace import TraceLink

CONF = Path(__file__).parents[2] / "conf" / "transport"
PRESETS = ("bsc", "gilbert_elliott", "erasure", "awgn", "rayleigh")
PAYLOAD = bytes(range(200))


def link(channel: Channel | float, **settings) -> LossyLink:
    channel = Bsc(channel) if isinstance(channel, float) else channel
    return LossyLink(channel, SimulatedLink(1e6, 0.02, 1e-7), **settings)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_carry_protected_and_unprotected_bytes(name: str) -> None:
    preset = hydra.utils.instantiate(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(preset, LossyLink)
    for _ in range(20):
        report = preset.send(PAYLOAD, 20)
        if report.payload is not None:
            assert len(report.payload) == len(PAYLOAD)
            assert report.payload[:20] == PAYLOAD[:20]
        assert report.wire_bytes > len(PAYLOAD)


@pytest.mark.parametrize("num_protected", [None, 0, 16, 200])
def test_a_channel_without_errors_delivers_the_payload(num_protected: int | None) -> None:
    report = link(0.0).send(PAYLOAD, num_protected)
    assert report.payload == PAYLOAD
    assert (report.bit_errors, report.air_errors, report.num_resends) == (0, 0, 0)


def test_unprotected_bytes_arrive_with_errors_at_the_channels_rate_and_protected_ones_whole() -> None:
    lossy = link(0.05, header_code=Convolutional(3))
    reports = [lossy.send(PAYLOAD, 16) for _ in range(200)]
    arrived = [r.payload for r in reports if r.payload is not None]
    assert len(arrived) == 200
    assert all(payload[:16] == PAYLOAD[:16] for payload in arrived)
    num_bits = 200 * 8 * 184
    errors = sum(r.bit_errors for r in reports)
    assert abs(errors - 0.05 * num_bits) < 4 * (0.05 * 0.95 * num_bits) ** 0.5
    differences = [np.bitwise_count(np.frombuffer(p, np.uint8) ^ np.frombuffer(PAYLOAD, np.uint8)) for p in arrived]
    assert errors == sum(int(d.sum()) for d in differences)


def test_a_large_body_meets_the_same_error_rate_behind_its_header() -> None:
    payload = np.random.default_rng(0).bytes(40_000)
    report = link(0.05, header_code=Convolutional()).send(payload, 16)
    assert report.payload is not None
    assert report.payload[:16] == payload[:16]
    num_bits = 8 * (len(payload) - 16)
    assert abs(report.bit_errors - 0.05 * num_bits) < 4 * (0.05 * 0.95 * num_bits) ** 0.5
    assert report.air_bits == num_bits + Convolutional().coded_bits(8 * 18)


def test_errors_on_the_air_are_counted_before_correction() -> None:
    lossy = link(0.02, body_code=Convolutional())
    reports = [lossy.send(PAYLOAD, 0) for _ in range(50)]
    bits, errors = sum(r.air_bits for r in reports), sum(r.air_errors for r in reports)
    assert bits == 50 * Convolutional().coded_bits(1600)
    assert abs(errors - 0.02 * bits) < 4 * (0.02 * 0.98 * bits) ** 0.5
    assert sum(r.bit_errors for r in reports) < errors / 100


def test_wire_bytes_time_and_energy_count_codes_checksums_and_packet_headers() -> None:
    carrier = SimulatedLink(1e6, 0.02, 1e-7, packet_bytes=100, overhead_bytes=10)
    report = LossyLink(Bsc(0.0), carrier, header_code=Repetition(3), body_code=Repetition(5)).send(PAYLOAD, 16)
    coded = 3 * (16 + 2) + 5 * 184
    assert report.wire_bytes == coded + 10 * 10
    assert report.link_s == pytest.approx(0.01 + 8 * report.wire_bytes / 1e6)
    assert report.energy_j == pytest.approx(8 * report.wire_bytes * 1e-7)


def test_a_wholly_protected_payload_is_resent_until_it_is_whole_and_each_round_is_counted() -> None:
    lossy = link(0.002, resends=20)
    reports = [lossy.send(PAYLOAD) for _ in range(50)]
    assert all(r.payload == PAYLOAD for r in reports)
    assert sum(r.num_resends for r in reports) > 50
    for report in reports:
        rounds = report.num_resends + 1
        assert report.wire_bytes == rounds * (200 + 4)
        assert report.link_s == pytest.approx(rounds * (0.01 + 8 * 204 / 1e6) + report.num_resends * 0.01)


def test_without_resends_a_damaged_protected_payload_is_lost() -> None:
    lossy = link(0.002, resends=0)
    whole = sum(lossy.send(PAYLOAD).payload is not None for _ in range(300))
    expected = (1 - 0.002) ** (8 * 204)
    assert abs(whole - 300 * expected) < 4 * (300 * expected * (1 - expected)) ** 0.5


def test_copies_are_combined_so_that_resends_help_even_when_each_is_damaged() -> None:
    lossy = link(0.03, resends=8)
    assert sum(lossy.send(PAYLOAD[:100]).payload is not None for _ in range(50)) > 45  # a copy alone: e^-25


def test_small_packets_are_resent_alone() -> None:
    channel = Erasure(0.3, packet_bytes=25 + 2)
    wire_bytes = [
        sum(link(channel, packet_bytes=size, resends=30).send(PAYLOAD).wire_bytes for _ in range(20))
        for size in (25, 200)
    ]
    assert wire_bytes[0] < wire_bytes[1]


def test_a_hopeless_channel_loses_the_payload_after_its_resends() -> None:
    report = link(Erasure(1.0), resends=4).send(PAYLOAD)
    assert report.payload is None
    assert report.num_resends == 4
    assert report.wire_bytes == 5 * 204


def test_priority_protects_the_front_of_the_unprotected_bytes() -> None:
    lossy = link(0.05, priority_code=Repetition(5), priority_share=0.25)
    errors = np.zeros(200)
    for _ in range(100):
        received = lossy.send(PAYLOAD, 0).payload
        assert received is not None
        errors += np.bitwise_count(np.frombuffer(received, np.uint8) ^ np.frombuffer(PAYLOAD, np.uint8))
    assert errors[:50].sum() * 10 < errors[50:100].sum()
    assert errors[50:].sum() / (100 * 8 * 150) == pytest.approx(0.05, rel=0.1)


def test_the_nth_payload_of_a_seed_meets_the_same_damage_whatever_came_before() -> None:
    def sent(seed: int, sizes: list[int]) -> list[bytes | None]:
        lossy = link(0.05, seed=seed)
        return [lossy.send(bytes(size), 0).payload for size in sizes]

    assert sent(1, [50, 60, 70]) == sent(1, [50, 60, 70])
    assert sent(1, [50, 60, 70])[2] == sent(1, [5, 500, 70])[2]
    assert sent(1, [50])[0] != sent(2, [50])[0]
    assert sent(1, [50, 50])[0] != sent(1, [50, 50])[1]


def test_the_receiver_learns_the_snr_of_the_round_that_the_body_was_in() -> None:
    lossy = link(Rayleigh(10.0, block_symbols=None))
    seen = [lossy.send(PAYLOAD, 0).snr_db for _ in range(20)]
    assert len(set(seen)) == 20


def test_a_recorded_link_can_be_the_carrier(tmp_path: Path) -> None:
    path = tmp_path / "steady.trace"
    path.write_text("\n".join(str(ms) for ms in range(1, 101)))
    report = LossyLink(Bsc(0.0), TraceLink(str(path), 0.01, 1e-7)).send(PAYLOAD)
    assert report.payload == PAYLOAD
    assert report.link_s == pytest.approx(0.006)


@pytest.mark.parametrize("size", [0, 1])
def test_the_smallest_payloads(size: int) -> None:
    assert link(0.0, header_code=Convolutional()).send(bytes(size)).payload == bytes(size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"priority_share": 1.5}, "priority_share must be 0…1, got 1.5"),
        ({"resends": -1}, "resends and seed must not be negative"),
        ({"packet_bytes": 0}, "packet_bytes at least 1"),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        link(0.1, **settings)
