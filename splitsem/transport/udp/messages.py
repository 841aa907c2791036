"""What the messages and the packets of the handshake say."""

import json
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from splitsem.errors import PayloadError

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
    DISAGREED = 17  # server: it does not; text
    ANSWER = 18  # server: seconds on the server, seconds in the queue, output
    BAD_FRAME = 19  # server: the payload is damaged or does not fit; text
    LOST = 20  # server: too much of the frame is missing; text
    ECHOED = 21  # server: all of it arrived
    FAILED = 22  # server: the tail could not compute it; text
    FILLED = 23  # server: as ANSWER, of a frame whose missing symbols were taken as zeros
    PROFILED = 24  # server: as ANSWER: seconds of answering the payload, 0, and the LUT as JSON
    BUSY = 25  # server: it does not measure itself now; text


class Reset(IntEnum):
    """Why a server does not know a connection. Append only."""

    UNKNOWN = 1
    FULL = 2
    VERSION = 3


class Hello(NamedTuple):
    """Body of HELLO.

    Attributes:
        cookie: what the server's CHALLENGE asked for; zeros at first.
        token: the client's secret, by which it takes up its session again after a break.
        base: number of the first request of this connection; what is before it is answered.
    """

    cookie: bytes
    token: bytes
    base: int

    def pack(self) -> bytes:
        """As bytes."""
        return _HELLO.pack(*self)

    @classmethod
    def parse(cls, body: bytes | memoryview) -> "Hello | None":
        """From bytes; None when they are not one."""
        return cls(*_HELLO.unpack(body)) if len(body) == _HELLO.size else None


class Limits(NamedTuple):
    """Body of WELCOME: what a client must keep to.

    Attributes:
        window: requests unanswered at a time.
        max_message_bytes: the longest message.
        buffer_bytes: bytes of unanswered requests, if more than one.
    """

    window: int
    max_message_bytes: int
    buffer_bytes: int

    def pack(self) -> bytes:
        """As bytes."""
        return _LIMITS.pack(*self)

    @classmethod
    def parse(cls, body: bytes | memoryview) -> "Limits | None":
        """From bytes; None when they are not one."""
        limits = cls(*_LIMITS.unpack(body)) if len(body) == _LIMITS.size else None
        return limits if limits and limits.window else None


def pack_profile(points: Sequence[str], budget_s: float, pause_s: float, payload: bytes) -> bytes:
    """Body of a PROFILE."""
    asked = {"points": list(points), "budget_s": budget_s, "pause_s": pause_s}
    return json.dumps(asked).encode() + b"\0" + payload


def parse_profile(body: bytes | memoryview) -> tuple[list[str], float, float, bytes]:
    """Points, budget, pause and payload of a PROFILE. Raises PayloadError."""
    head, _, payload = bytes(body).partition(b"\0")
    try:
        asked = json.loads(head)
        points, budget_s, pause_s = asked["points"], asked["budget_s"], asked["pause_s"]
        return [str(point) for point in points], float(budget_s), float(pause_s), payload
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise PayloadError(f"expected points and a budget as JSON, got something else: {exc!r}") from exc


def pack_answer(output: bytes | memoryview, server_s: float, queue_s: float) -> bytes:
    """Body of an ANSWER."""
    return _TIMES.pack(server_s, queue_s) + output


def parse_answer(body: memoryview) -> tuple[memoryview, float, float] | None:
    """Output, server_s and queue_s of an ANSWER; None when it is too short."""
    return (body[_TIMES.size :], *_TIMES.unpack_from(body)) if len(body) >= _TIMES.size else None
