"""Datagrams: what is packed is parsed, anything else is not a packet; ranges, timing, settings, filling."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitsem.codecs import wire
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.errors import ConfigError
from splitsem.remote.udp import packets
from splitsem.remote.udp.conversation import SequenceRanges
from splitsem.remote.udp.inbox import zero_fill
from splitsem.remote.udp.outbox import CongestionWindow, RoundTrip, TokenBucket
from splitsem.remote.udp.packets import Fragment, Kind
from splitsem.remote.udp.settings import Settings, bind, host_and_port

QUICK = settings(deadline=None, max_examples=80, derandomize=True)


def data_packet(body: bytes = b"x" * 100, size: int = 1500, place: int = 1, fragment_bytes: int = 1400) -> bytes:
    return b"".join(packets.pack_data(5, 9, Fragment(2, 3, size, place, fragment_bytes, memoryview(body))))


def test_a_data_packet_says_where_its_fragment_belongs():
    packet = packets.parse(data_packet())
    assert (packet.kind, packet.connection, packet.sequence) == (Kind.DATA, 5, 9)
    assert packets.parse_fragment(packet) == Fragment(2, 3, 1500, 1, 1400, memoryview(b"x" * 100))


def test_a_full_fragment_with_all_headers_fits_into_ethernet():
    datagram = data_packet(bytes(1400), place=0)
    assert len(datagram) == 1400 + packets.OVERHEAD_BYTES
    assert len(datagram) + 28 <= 1500


def test_one_turned_bit_anywhere_is_noticed():
    datagram = data_packet()
    for place in range(8 * len(datagram)):
        damaged = bytearray(datagram)
        damaged[place // 8] ^= 1 << place % 8
        assert packets.parse(bytes(damaged)) is None


def test_a_truncated_or_lengthened_datagram_is_no_packet():
    datagram = data_packet()
    assert all(packets.parse(datagram[:size]) is None for size in range(len(datagram)))
    assert packets.parse(datagram + b"\0") is None


@QUICK
@given(st.binary(max_size=200))
def test_random_bytes_are_no_packet(datagram):
    assert packets.parse(datagram) is None


@pytest.mark.parametrize(
    ("body", "size", "place", "fragment_bytes"),
    [
        (b"x" * 99, 1500, 1, 1400),  # shorter than its place says
        (b"x" * 100, 1500, 2, 1400),  # beyond the message
        (b"x" * 100, 1500, 0, 1400),  # the first one is longer
        (b"x", 1000, 0, 1),  # a fragment a byte
        (b"", 0, 1, 1400),  # the second fragment of an empty message
    ],
)
def test_numbers_that_do_not_fit_each_other_are_refused(body, size, place, fragment_bytes):
    assert packets.parse_fragment(packets.parse(data_packet(body, size, place, fragment_bytes))) is None


@QUICK
@given(st.sets(st.integers(0, 400), min_size=1))
def test_ranges_hold_what_was_added_and_an_ack_carries_them(sequences):
    seen = SequenceRanges(packets.MAX_ACK_RANGES)
    order = sorted(sequences, key=lambda n: (n * 7919) % 401)
    kept = [n for n in order if seen.add(n)]
    assert all(n in seen for n in sequences)
    assert not any(seen.add(n) for n in sequences)
    ranges = packets.parse_ack(packets.parse(packets.pack_ack(1, seen.highest_first())[0]))
    assert ranges == seen.highest_first()
    assert len(ranges) <= packets.MAX_ACK_RANGES
    acked = {n for low, high in ranges for n in range(low, high + 1)}
    assert acked <= set(kept)
    assert max(sequences) in acked


def test_the_memory_of_what_arrived_is_bounded():
    seen = SequenceRanges(packets.MAX_ACK_RANGES)
    for sequence in range(0, 100_000, 2):
        seen.add(sequence)
    assert len(seen.highest_first()) == packets.MAX_ACK_RANGES
    assert 1 in seen  # forgotten, so never taken in again
    assert 99_997 not in seen


@pytest.mark.parametrize(
    "ranges", [[(5, 3)], [(1, 3), (2, 2)], [(0, 3), (5, 9)], [(4, 5), (2, 3)], [(0, 1 << 20), (0, 1 << 20)]]
)
def test_an_ack_whose_ranges_are_not_apart_and_falling_is_refused(ranges):
    body = b"".join(
        ((ranges[0][1] - n) & 0xFFFFFFFF).to_bytes(4, "little") for low, high in ranges for n in (low, high)
    )
    packet = packets.parse(packets.pack(Kind.ACK, 1, ranges[0][1], body)[0])
    assert packets.parse_ack(packet) is None


def test_the_time_out_follows_rfc_6298_and_doubles():
    trip = RoundTrip(max_timeout_s=2.0)
    assert trip.timeout_s() == 0.2
    trip.observe(0.1)
    assert trip.timeout_s() == pytest.approx(0.1 + 4 * 0.05)
    trip.observe(0.2)
    assert trip.timeout_s() == pytest.approx((0.1 + 0.1 / 8) + 4 * (0.05 + (0.1 - 0.05) / 4))
    assert trip.timeout_s(1) == pytest.approx(2 * trip.timeout_s())
    assert trip.timeout_s(99) == 2.0


def test_the_token_bucket_keeps_the_rate_whatever_the_packets():
    bucket, now_s, total, rng = TokenBucket(rate_bps=8e6, burst_bytes=3000), 50.0, 0, random.Random(0)
    bucket.ready_s(now_s)
    while now_s < 51.0:
        now_s = max(now_s, bucket.ready_s(now_s))
        num_bytes = rng.randint(40, 1500)
        bucket.take(num_bytes)
        total += num_bytes
    assert total == pytest.approx(1_000_000, rel=0.01)


def test_a_bucket_without_a_rate_never_waits():
    bucket = TokenBucket(math.inf, burst_bytes=1)
    bucket.take(10**9)
    assert bucket.ready_s(3.0) == 3.0


def test_the_window_grows_while_it_is_full_and_shrinks_once_a_round_trip_of_losses():
    window = CongestionWindow(packet_bytes=1000, max_bytes=100_000, fixed=False)
    began = window.size_bytes
    window.arrived(5000, is_full=False)
    assert window.size_bytes == began
    window.arrived(5000, is_full=True)
    assert window.size_bytes == began + 5000
    window.lost(sequence=10, next_sequence=20)
    window.lost(sequence=19, next_sequence=25)
    assert window.size_bytes == int(0.7 * (began + 5000))
    window.lost(sequence=20, next_sequence=30)
    assert window.size_bytes == int(0.7 * int(0.7 * (began + 5000)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fragment_bytes": 63}, "fragment_bytes must be 64"),
        ({"fragment_bytes": 65_500}, "fragment_bytes must be 64"),
        ({"rate_bps": 0.0}, "rate_bps must be positive"),
        ({"retries": -1}, "retries must not be negative"),
        ({"loss": "ignore"}, "loss must be one of resend, tolerate"),
        ({"window": 0}, "window must be 1"),
        ({"window_bytes": 100}, "window_bytes must be at least four fragments"),
        ({"max_message_bytes": 1 << 32}, "max_message_bytes must be"),
        ({"buffer_bytes": 1 << 26}, "buffer_bytes must be at least"),
        ({"max_age_s": math.nan}, "max_age_s must be positive"),
    ],
)
def test_settings_that_make_no_sense_name_the_rule_and_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        Settings(**arguments)


@pytest.mark.parametrize("codec", [Identity(), HalfPrecision()])
def test_gaps_in_tensor_bodies_become_zeros(codec):
    z = (torch.rand(2, 500) + 1, torch.rand(3, 7) + 1)
    payload = codec.encode(z)
    gapped = payload[:1000] + bytes(400) + payload[1400:]
    filled = codec.decode(zero_fill(gapped, ((1000, 400),)))
    whole = codec.decode(payload)
    assert torch.equal(filled[1], whole[1])
    differs = filled[0] != whole[0]
    assert 400 / 4 <= int(differs.sum()) <= 400 / 2 + 1
    assert not filled[0][differs][1:-1].any()


def test_a_lost_checksum_can_be_filled():
    payload = Identity().encode((torch.ones(10),))
    assert zero_fill(payload[:-4] + bytes(4), ((len(payload) - 4, 4),)) == payload


def test_gaps_in_what_describes_the_tensors_cannot_be_filled():
    payload = Identity().encode((torch.rand(100), torch.rand(100)))
    header = 4 + 1 + 1 + 1 + 2
    second = header + 400
    for start, length in ((0, 10), (header - 1, 5), (second, 1), (second - 4, 8)):
        gapped = payload[:start] + bytes(length) + payload[start + length :]
        assert zero_fill(gapped, ((start, length),)) is None
    assert zero_fill(payload[:header] + bytes(400) + payload[second:], ((header, 400),)) is not None


def test_a_lost_header_byte_is_not_guessed_even_where_zero_would_fit():
    payload = Identity().encode((torch.tensor(1.0),))
    assert payload[5] == 0  # dtype float32, no dimensions
    assert zero_fill(payload, ((5, 1),)) is None


def test_codecs_whose_symbols_depend_on_each_other_are_not_filled():
    payload = Quantise(8).encode((torch.rand(1, 4000),))
    assert payload[3] == wire.CodecId.QUANTISE
    assert zero_fill(payload[:2000] + bytes(100) + payload[2100:], ((2000, 100),)) is None


def test_addresses_are_read_and_public_ones_refused():
    assert host_and_port("[::1]:80", "transport.bind") == ("::1", 80)
    with pytest.raises(ConfigError, match=r"transport\.bind must be HOST:PORT"):
        host_and_port("80", "transport.bind")
    with pytest.raises(ConfigError, match=r"refusing to listen on 0\.0\.0\.0"):
        bind("0.0.0.0", 0, insecure=False)


def test_a_port_in_use_is_named():
    with bind("127.0.0.1", 0, insecure=False) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port} over UDP"):
            bind("127.0.0.1", port, insecure=False)
