"""Sealed datagrams: what opens, what does not, and what their numbers mean."""

import os

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitsem.remote.udp import packets
from splitsem.remote.udp.packets import (
    IP_UDP_BYTES,
    MAX_PACKETS,
    REPLAY_WINDOW,
    Became,
    Direction,
    Fragment,
    Outcome,
    ReplayWindow,
    Report,
    Seal,
    SpentKeyError,
)
from splitsem.remote.udp.settings import Grant, Settings

QUICK = settings(deadline=None, max_examples=200, derandomize=True)
KEY = bytes(range(32))
CONTENTS = [
    Fragment(3, 5000, 1, bytes(1400)),
    Fragment(3, 5000, 0, b"", is_end=True, is_echo=True),
    Became(Outcome.FILLED, 3, 1400, 0.25, 0.5, b"answer"),
    Report(70, 100_000, 65, 0.001),
]


def ends() -> tuple[Seal, Seal]:
    return Seal(77, KEY, Direction.TO_SERVER), Seal(77, KEY, Direction.TO_EDGE)


@pytest.mark.parametrize("content", CONTENTS)
def test_what_one_end_seals_the_other_opens_once(content):
    edge, server = ends()
    _, datagram = edge.seal(packets.pack(content))
    assert packets.parse(server.open(datagram)) == content
    assert server.open(datagram) is None


def test_a_full_datagram_fits_into_ethernet():
    biggest = Fragment((1 << 32) - 1, (1 << 32) - 1, (1 << 32) - 1, bytes(1400), True, True)
    assert len(ends()[0].seal(packets.pack(biggest))[1]) + IP_UDP_BYTES <= Settings().packet_bytes <= 1500


def test_the_payload_cannot_be_read_on_the_way_and_equal_contents_look_different():
    edge, _ = ends()
    content = packets.pack(Fragment(0, 64, 0, b"a secret in the feature " * 2))
    one, two = edge.seal(content)[1], edge.seal(content)[1]
    assert b"secret" not in one
    assert one[16:] != two[16:]


@QUICK
@given(st.data())
def test_no_altered_datagram_opens(data):
    edge, server = ends()
    datagram = bytearray(edge.seal(packets.pack(CONTENTS[2]))[1])
    for place in data.draw(st.sets(st.integers(0, len(datagram) - 1), min_size=1, max_size=4)):
        datagram[place] ^= data.draw(st.integers(1, 255))
    assert server.open(bytes(datagram)) is None
    assert server.open(bytes(datagram[: data.draw(st.integers(0, len(datagram) - 1))])) is None
    assert server.seen.highest == -1  # a forged number moves no window


def test_neither_another_key_nor_another_session_nor_an_own_datagram_opens():
    edge, server = ends()
    _, datagram = edge.seal(b"x")
    assert Seal(77, os.urandom(32), Direction.TO_EDGE).open(datagram) is None
    assert Seal(78, KEY, Direction.TO_EDGE).open(datagram) is None
    assert edge.open(datagram) is None  # reflected
    assert server.open(datagram) == b"x"


def test_a_key_seals_no_more_datagrams_than_it_may():
    edge, server = ends()
    edge._next = MAX_PACKETS - 1
    assert server.open(edge.seal(b"last")[1]) == b"last"
    with pytest.raises(SpentKeyError):
        edge.seal(b"one more")


@QUICK
@given(st.lists(st.integers(0, 3 * REPLAY_WINDOW), max_size=60))
def test_the_replay_window_takes_each_recent_number_once(numbers):
    window, taken = ReplayWindow(), set()
    for number in numbers:
        expected = number not in taken and number > max(taken, default=-1) - REPLAY_WINDOW
        assert window.is_new(number) == expected
        assert window.add(number) == expected
        taken |= {number} if expected else set()


@QUICK
@given(st.binary(max_size=80))
def test_no_content_is_more_than_none(content):
    packets.parse(content)


@pytest.mark.parametrize(
    ("fragment", "fits"),
    [
        (Fragment(0, 0, 0, b""), True),
        (Fragment(0, 100, 0, bytes(64)), True),
        (Fragment(0, 100, 1, bytes(36)), True),
        (Fragment(0, 100, 1, bytes(35)), False),
        (Fragment(0, 100, 2, b""), False),
        (Fragment(0, 100, 0, b""), False),
        (Fragment(0, 100, 0, b"", is_end=True), True),
        (Fragment(0, 100, 0, bytes(64), is_end=True), False),
        (Fragment(0, 40, 0, bytes(40), is_end=True), True),
        (Fragment(0, 100, 0, bytes(100), is_end=True), False),
        (Fragment(0, 0, 5, b""), False),
    ],
)
def test_a_fragment_must_fit_its_frame(fragment, fits):
    assert fragment.fits(64) == fits


def test_negative_and_overlong_numbers_are_no_content():
    for content in (
        [1, -1, 0, 0, b"", False, False],
        [1, 1 << 32, 0, 0, b"", False, False],
        [2, 9, 0, 0, 0.0, 0.0, b""],
    ):
        assert packets.parse(msgspec.msgpack.encode(content)) is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fragment_bytes": 63}, "fragment_bytes must be 64…65000, got 63"),
        ({"rate_bps": 0.0}, "rate_bps must be positive and finite, or null, got 0.0"),
        ({"rate_bps": float("nan")}, "rate_bps must be positive"),
        ({"deadline_s": float("inf")}, "deadline_s must be positive and finite, got inf"),
        ({"window": 0}, "window must be at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, says):
    with pytest.raises(ValueError, match=says):
        Settings(**change)


def test_a_grant_of_nothing_is_refused():
    with pytest.raises(ValueError, match="buffer_bytes must be positive and finite, got 0"):
        Grant(buffer_bytes=0)
