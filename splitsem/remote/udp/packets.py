"""Packets, fragments and message bodies of the UDP transport as bytes (docs/decisions/udp-transport.md).

A datagram is one packet: ``magic version kind connection sequence | body | crc32``, little-endian. Every DATA packet
says where its fragment belongs, so fragments may arrive in any order, twice, or not at all.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import msgspec

from splitsem.errors import PayloadError
from splitsem.json_files import decode

MAGIC = b"sU"
VERSION = 1
MAX_DATAGRAM_BYTES = 65_507
MIN_FRAGMENT_BYTES = 64
MAX_ACK_RANGES = 64
_HEADER = struct.Struct("<2sBBQQ")
_FRAGMENT = struct.Struct("<BQIIH")
_RANGE = struct.Struct("<II")
_CRC = struct.Struct("<I")
OVERHEAD_BYTES = _HEADER.size + _FRAGMENT.size + _CRC.size
"""Bytes that a DATA packet adds to its fragment; IP and UDP add 28 more."""
MAX_FRAGMENT_BYTES = MAX_DATAGRAM_BYTES - OVERHEAD_BYTES

Datagram = tuple[bytes | memoryview, ...]
"""A packet as the buffers that a gathering send joins."""


class Kind(IntEnum):
    """What a packet is for. Append only."""

    HELLO = 1  # client: let me in (cookie, session token, first request)
    CHALLENGE = 2  # server: say that again with this cookie
    WELCOME = 3  # server: you are in (limits)
    RESET = 4  # server: no such connection, and why
    BYE = 5  # client: forget me
    ACK = 6  # these sequence numbers arrived
    PING = 7  # acknowledge me
    DATA = 8  # a fragment of a message
    FINISH = 9  # the sender will not resend what is missing of this message


ACKED_KINDS = frozenset((Kind.PING, Kind.DATA, Kind.FINISH))
"""Kinds that take a sequence number of their own and ask for an acknowledgement."""
_KINDS = {int(kind): kind for kind in Kind}


class Packet(NamedTuple):
    """A whole, undamaged packet.

    Attributes:
        version: of the sender's packet format; only HELLO and RESET may carry a foreign version.
        kind: what the packet is for.
        connection: the number that the client drew for this connection.
        sequence: the packet's own number (kinds in ``ACKED_KINDS``); the largest number of an ACK; else 0.
        body: content, by kind.
    """

    version: int
    kind: Kind
    connection: int
    sequence: int
    body: memoryview


class Fragment(NamedTuple):
    """A piece of a message, as DATA carries it; FINISH carries a fragment with an empty body.

    Attributes:
        purpose: what the message is, for the layer above.
        number: of the message.
        size: bytes of the whole message.
        place: index of the fragment, from 0; its bytes start at ``place · fragment_bytes``.
        fragment_bytes: size of every fragment but the last.
        body: the bytes.
    """

    purpose: int
    number: int
    size: int
    place: int
    fragment_bytes: int
    body: memoryview


def num_fragments(size: int, fragment_bytes: int) -> int:
    """How many fragments a message takes; an empty message takes one.

    >>> num_fragments(0, 1400), num_fragments(1400, 1400), num_fragments(1401, 1400)
    (1, 1, 2)
    """
    return max(1, -(-size // fragment_bytes))


def pack(kind: Kind, connection: int, sequence: int = 0, body: bytes = b"") -> Datagram:
    """Any packet but DATA."""
    content = _HEADER.pack(MAGIC, VERSION, kind, connection, sequence) + body
    return (content + _CRC.pack(zlib.crc32(content)),)


def pack_data(connection: int, sequence: int, fragment: Fragment) -> Datagram:
    """A DATA packet; the fragment's bytes are not copied."""
    head = _HEADER.pack(MAGIC, VERSION, Kind.DATA, connection, sequence) + _FRAGMENT.pack(*fragment[:5])
    return (head, fragment.body, _CRC.pack(zlib.crc32(fragment.body, zlib.crc32(head))))


def pack_finish(connection: int, sequence: int, fragment: Fragment) -> Datagram:
    """A FINISH packet for the fragment's message."""
    return pack(Kind.FINISH, connection, sequence, _FRAGMENT.pack(*fragment[:5]))


def max_ack_ranges(fragment_bytes: int) -> int:
    """The most ranges of an ACK that is at most as long as a DATA packet.

    >>> max_ack_ranges(1400), max_ack_ranges(64)
    (64, 10)
    """
    return min(MAX_ACK_RANGES, (fragment_bytes + _FRAGMENT.size) // _RANGE.size)


def pack_ack(connection: int, ranges: Sequence[tuple[int, int]]) -> Datagram:
    """An ACK for inclusive ranges of sequence numbers, the highest range first."""
    largest = ranges[0][1]
    near = [(low, high) for low, high in ranges[:MAX_ACK_RANGES] if largest - low < 1 << 32]
    body = b"".join(_RANGE.pack(largest - low, largest - high) for low, high in near)
    return pack(Kind.ACK, connection, largest, body)


def parse(datagram: bytes | memoryview) -> Packet | None:
    """The packet in a datagram; None when it holds anything else."""
    view = memoryview(datagram)
    end = len(view) - _CRC.size
    if end < _HEADER.size or len(view) > MAX_DATAGRAM_BYTES:
        return None
    magic, version, number, connection, sequence = _HEADER.unpack_from(view)
    kind = _KINDS.get(number)
    if magic != MAGIC or kind is None or (version != VERSION and kind not in (Kind.HELLO, Kind.RESET)):
        return None
    if zlib.crc32(view[:end]) != _CRC.unpack_from(view, end)[0]:
        return None
    return Packet(version, kind, connection, sequence, view[_HEADER.size : end])


def parse_fragment(packet: Packet) -> Fragment | None:
    """The fragment in a DATA or FINISH packet; None when its numbers do not fit each other."""
    if len(packet.body) < _FRAGMENT.size:
        return None
    purpose, number, size, place, fragment_bytes = _FRAGMENT.unpack_from(packet.body)
    body = packet.body[_FRAGMENT.size :]
    left = size - place * fragment_bytes
    if fragment_bytes < MIN_FRAGMENT_BYTES or (left <= 0 and (size or place)):
        return None
    if len(body) != (0 if packet.kind is Kind.FINISH else min(fragment_bytes, left)):
        return None
    return Fragment(purpose, number, size, place, fragment_bytes, body)


def parse_ack(packet: Packet) -> list[tuple[int, int]] | None:
    """The acknowledged ranges, highest first; None unless the ranges are falling and apart."""
    if not packet.body or len(packet.body) % _RANGE.size or len(packet.body) > MAX_ACK_RANGES * _RANGE.size:
        return None
    largest, above = packet.sequence, packet.sequence + 2
    ranges = []
    for low_gap, high_gap in _RANGE.iter_unpack(packet.body):
        low, high = largest - low_gap, largest - high_gap
        if not 0 <= low <= high < above - 1:
            return None
        ranges.append((low, high))
        above = low
    return ranges if ranges[0][1] == largest else None


COOKIE_BYTES = 16
TOKEN_BYTES = 16
NO_COOKIE = bytes(COOKIE_BYTES)
_HELLO = struct.Struct(f"<{COOKIE_BYTES}s{TOKEN_BYTES}sQ")
_LIMITS = struct.Struct("<IIQ")
_TIMES = struct.Struct("<dd")


class Purpose(IntEnum):
    """What a message is. Append only. Message 0 of a connection is its plan; every message has one answer."""

    PLAN = 1  # client: Plan as JSON
    FRAME = 2  # client: a payload
    ECHO = 3  # client: bytes to count
    PROFILE = 4  # client: points and budget as JSON, a zero byte, and perhaps a payload of the plan to time
    AGREED = 16  # server: the plan holds
    DISAGREED = 17  # server: the plan does not hold; text
    ANSWER = 18  # server: seconds on the server, seconds in the queue, output
    BAD_FRAME = 19  # server: the payload is damaged or does not fit; text
    LOST = 20  # server: too much of the frame is missing; text
    ECHOED = 21  # server: all bytes of the ECHO arrived
    FAILED = 22  # server: the tail could not compute it; text
    FILLED = 23  # server: as ANSWER, of a frame whose missing symbols count as zeros
    PROFILED = 24  # server: as ANSWER: seconds of answering the payload, 0, and the LUT as JSON
    BUSY = 25  # server: too busy to measure itself; text


class Reset(IntEnum):
    """Why a server does not know a connection. Append only."""

    UNKNOWN = 1
    FULL = 2
    VERSION = 3


class Hello(NamedTuple):
    """Body of HELLO.

    Attributes:
        cookie: the cookie of the server's CHALLENGE; zeros at first.
        token: the client's secret, by which the client resumes its session after a break.
        base: number of the first request of this connection; all earlier requests are answered.
    """

    cookie: bytes
    token: bytes
    base: int

    def pack(self) -> bytes:
        """The body as bytes."""
        return _HELLO.pack(*self)

    @classmethod
    def parse(cls, body: bytes | memoryview) -> "Hello | None":
        """Read a body; None when the bytes are no such body."""
        return cls(*_HELLO.unpack(body)) if len(body) == _HELLO.size else None


class Limits(NamedTuple):
    """Body of WELCOME: what a client must keep to.

    Attributes:
        window: requests unanswered at a time.
        max_message_bytes: the longest message.
        buffer_bytes: bytes of all unanswered requests, when there are several.
    """

    window: int
    max_message_bytes: int
    buffer_bytes: int

    def pack(self) -> bytes:
        """The body as bytes."""
        return _LIMITS.pack(*self)

    @classmethod
    def parse(cls, body: bytes | memoryview) -> "Limits | None":
        """Read a body; None when the bytes are no such body."""
        limits = cls(*_LIMITS.unpack(body)) if len(body) == _LIMITS.size else None
        return limits if limits and limits.window else None


class _Asked(msgspec.Struct):
    points: list[str]
    budget_s: float
    pause_s: float


def pack_profile(points: Sequence[str], budget_s: float, pause_s: float, payload: bytes) -> bytes:
    """Body of a PROFILE."""
    asked = {"points": list(points), "budget_s": budget_s, "pause_s": pause_s}
    return json.dumps(asked).encode() + b"\0" + payload


def parse_profile(body: bytes | memoryview) -> tuple[list[str], float, float, bytes]:
    """Points, budget, pause and payload of a PROFILE. Raises PayloadError."""
    head, _, payload = bytes(body).partition(b"\0")
    try:
        asked = decode(head, _Asked)
    except ValueError as exc:
        raise PayloadError(f"expected points and a budget as JSON, got something else: {exc}") from exc
    return asked.points, asked.budget_s, asked.pause_s, payload


def pack_answer(output: bytes | memoryview, server_s: float, queue_s: float) -> bytes:
    """Body of an ANSWER."""
    return _TIMES.pack(server_s, queue_s) + output


def parse_answer(body: memoryview) -> tuple[memoryview, float, float] | None:
    """Output, server_s and queue_s of an ANSWER; None when it is too short."""
    return (body[_TIMES.size :], *_TIMES.unpack_from(body)) if len(body) >= _TIMES.size else None
