"""Inbox joins fragments to messages in bounded memory; zero_fill repairs payloads with gaps."""

import zlib
from collections.abc import Iterable
from typing import NamedTuple

from splitsem.codecs import wire
from splitsem.errors import PayloadError
from splitsem.remote.udp.packets import Fragment
from splitsem.remote.udp.settings import Counts, Settings

_SPARE_MESSAGES = 2  # beyond the window: the plan, and an answer that is on its way out


class Message(NamedTuple):
    """A message that arrived.

    Attributes:
        number: index among the sender's messages, from 0.
        purpose: what the message is, for the layer above.
        payload: the bytes, zeros where bytes are missing; empty when less than half of the message arrived.
        missing: the missing stretches as (first byte, number of bytes); empty for a whole message.
    """

    number: int
    purpose: int
    payload: memoryview
    missing: tuple[tuple[int, int], ...] = ()


class _Parts:
    """A message in parts: its beginning in one piece, and fragments that arrived early."""

    __slots__ = ("early", "fragment_bytes", "front", "heard_s", "num_bytes", "num_front", "purpose", "size")

    def __init__(self, fragment: Fragment, now_s: float) -> None:
        self.purpose, self.size, self.fragment_bytes = fragment.purpose, fragment.size, fragment.fragment_bytes
        self.front = bytearray()
        self.num_front = 0  # fragments in the beginning
        self.early: dict[int, bytes] = {}
        self.num_bytes = 0
        self.heard_s = now_s

    def agrees_with(self, fragment: Fragment) -> bool:
        return (
            self.size == fragment.size
            and self.fragment_bytes == fragment.fragment_bytes
            and self.purpose == fragment.purpose
        )

    def has(self, place: int) -> bool:
        return place < self.num_front or place in self.early

    def add(self, place: int, body: memoryview) -> None:
        self.num_bytes += len(body)
        if place != self.num_front:
            self.early[place] = bytes(body)
            return
        self.front += body
        self.num_front += 1
        while self.early and self.num_front in self.early:
            self.front += self.early.pop(self.num_front)
            self.num_front += 1


class Inbox:
    """The receiving half of a conversation: each message is handed out one time, whatever arrives twice or late.

    The inbox keeps at most twice the bytes received; whole messages count against ``buffer_bytes`` until ``release``.

    Args:
        settings: the limits.
        counts: updated by the inbox.
    """

    def __init__(self, settings: Settings, counts: Counts) -> None:
        self._settings, self._counts = settings, counts
        self._parts: dict[int, _Parts] = {}
        self._done: set[int] = set()
        self._floor = 0  # every number below is done
        self._num_waiting = 0  # handed out, not released
        self.held_bytes = 0

    def accept(self, fragment: Fragment, now_s: float) -> tuple[bool, Message | None]:
        """Take a fragment. Returns whether to acknowledge the fragment, and the message that it completes."""
        number = fragment.number
        if self._is_done(number):
            self._counts.duplicates += 1
            return True, None
        parts = self._parts_of(fragment, now_s)
        if parts is None:
            return False, None
        if parts.has(fragment.place):
            self._counts.duplicates += 1
            return True, None
        if self.held_bytes + len(fragment.body) > self._settings.buffer_bytes:
            self._counts.refused += 1
            return False, None
        parts.add(fragment.place, fragment.body)
        parts.heard_s = now_s
        self.held_bytes += len(fragment.body)
        if parts.num_bytes < parts.size:
            return True, None
        return True, self._hand_out(number, parts)

    def finish(self, fragment: Fragment, now_s: float) -> tuple[bool, Message | None]:
        """Hand the message out with its gaps, since the sender gives up the missing fragments. As ``accept``."""
        if self._is_done(fragment.number):
            return True, None
        parts = self._parts_of(fragment, now_s)
        if parts is None:
            return False, None
        message = self._hand_out(fragment.number, parts)
        self.held_bytes += len(message.payload) - parts.num_bytes
        return True, message

    def release(self, num_bytes: int) -> None:
        """Free the place of a handed-out message of ``num_bytes`` bytes."""
        self.held_bytes -= num_bytes
        self._num_waiting -= 1

    def expire(self, now_s: float) -> int:
        """Drop messages in parts that got no fragment for ``max_age_s``; returns their number."""
        old = [n for n, parts in self._parts.items() if now_s - parts.heard_s > self._settings.max_age_s]
        for number in old:
            self.held_bytes -= self._parts.pop(number).num_bytes
        self._counts.expired += len(old)
        return len(old)

    def _is_done(self, number: int) -> bool:
        return number < self._floor or number in self._done

    def _parts_of(self, fragment: Fragment, now_s: float) -> _Parts | None:
        parts = self._parts.get(fragment.number)
        if parts is None:
            most = self._settings.window + _SPARE_MESSAGES
            too_far = fragment.number >= self._floor + most
            too_many = len(self._parts) + self._num_waiting >= most
            if too_far or too_many or fragment.size > self._settings.max_message_bytes:
                self._counts.refused += 1
                return None
            parts = self._parts[fragment.number] = _Parts(fragment, now_s)
        if not parts.agrees_with(fragment):
            self._counts.malformed += 1
            return None
        return parts

    def _hand_out(self, number: int, parts: _Parts) -> Message:
        del self._parts[number]
        self._num_waiting += 1
        self._done.add(number)
        while self._floor in self._done:
            self._done.discard(self._floor)
            self._floor += 1
        if parts.num_bytes == parts.size:
            return Message(number, parts.purpose, memoryview(parts.front).toreadonly())
        return _with_gaps(number, parts)


def _with_gaps(number: int, parts: _Parts) -> Message:
    # zeros take at most as much room as what was received
    payload = bytearray(parts.size if 2 * parts.num_bytes >= parts.size else 0)
    if payload:
        payload[: len(parts.front)] = parts.front
        for place, body in parts.early.items():
            payload[place * parts.fragment_bytes : place * parts.fragment_bytes + len(body)] = body
    missing: list[tuple[int, int]] = []
    position = len(parts.front)
    for place in sorted(parts.early):
        if place * parts.fragment_bytes > position:
            missing.append((position, place * parts.fragment_bytes - position))
        position = place * parts.fragment_bytes + len(parts.early[place])
    if position < parts.size:
        missing.append((position, parts.size - position))
    return Message(number, parts.purpose, memoryview(payload).toreadonly(), tuple(missing))


_FILLABLE = (wire.CodecId.IDENTITY, wire.CodecId.HALF_PRECISION)
"""Codecs whose bodies are plain numbers: zero bytes mean zeros, and no element depends on earlier elements."""


def zero_fill(payload: bytes | memoryview, missing: Iterable[tuple[int, int]]) -> bytes | None:
    """The payload with a checksum that fits the zeros in its gaps; None when the gaps cannot be filled.

    Gaps can be filled where the codec writes each element by itself and the gaps lie in tensor bodies (or in the
    checksum): dtypes, shapes and sizes must have arrived.

    Args:
        payload: as long as the original, zeros where bytes are missing.
        missing: stretches as (first byte, number of bytes), ascending.
    """
    if len(payload) < 9 or payload[:2] != wire.MAGIC or payload[3] not in _FILLABLE:
        return None
    content = bytes(payload[:-4])
    whole = content + zlib.crc32(content).to_bytes(4, "little")
    try:
        parts = wire.unpack(whole, payload[3])
    except PayloadError:
        return None
    bodies, end = [], len(content)  # from the back: a body, then the fields before it
    for part in reversed(parts):
        start = end - len(part.body)
        bodies.append((start, end))
        end = start - 1 - sum(len(wire.varint(n)) for n in (*part.shape, len(part.body)))
    covered = [*reversed(bodies), (len(content), len(whole))]
    for start, length in missing:
        uncovered = range(start, start + length)
        for low, high in covered:
            if low <= uncovered.start < high:
                uncovered = range(min(high, uncovered.stop), uncovered.stop)
        if uncovered:
            return None
    return whole
