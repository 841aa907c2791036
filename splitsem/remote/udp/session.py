"""A Session is what a server keeps of one edge: frames in pieces, frames that wait, the last answers. No socket."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from splitsem.remote.udp.filling import gaps_between
from splitsem.remote.udp.packets import (
    IP_UDP_BYTES,
    Became,
    Direction,
    Fragment,
    Outcome,
    Report,
    Seal,
    num_fragments,
    pack,
    parse,
)
from splitsem.remote.udp.settings import Grant

Address = tuple[Any, ...]
_REORDER_S = 0.005  # how long a frame's pieces may come behind its last one
_REPORT_PACKETS, _REPORT_S = 16, 0.01
_PIECE_BYTES = 100  # what a piece takes beside its bytes


@dataclass
class _Pieces:
    """A frame in pieces."""

    is_echo: bool
    size: int
    heard_s: float
    bodies: dict[int, bytes] = field(default_factory=dict)
    num_bytes: int = 0
    settles_s: float | None = None


class Job(NamedTuple):
    """A frame to be answered.

    Attributes:
        frame: its number.
        is_echo: whether nothing is to be computed.
        payload: the bytes, zeros where some are missing.
        gaps: what is missing, as (first byte, number of bytes).
        arrived_s: when nothing more was waited for.
    """

    frame: int
    is_echo: bool
    payload: bytearray
    gaps: list[tuple[int, int]]
    arrived_s: float

    @property
    def num_missing(self) -> int:
        """Bytes that did not come."""
        return sum(length for _, length in self.gaps)


class Session:
    """One edge. The socket's thread calls ``receive`` and ``settle``, the session's own thread takes the jobs.

    Args:
        number: what its datagrams say that they are of.
        key: of the datagrams.
        fragment_bytes: of every piece but a frame's last one.
        window: frames that may be unanswered.
        grant: limits.

    Attributes:
        address: where the newest datagram came from; empty until one came.
        heard_s: when that was, or else when the session began.
        jobs: frames to be answered.
        held_bytes: what the frames here take, in pieces or whole.
        max_held_bytes: the most of that; pieces beyond it are as lost as others.
    """

    def __init__(self, number: int, key: bytes, fragment_bytes: int, window: int, grant: Grant) -> None:
        self.seal = Seal(number, key, Direction.TO_EDGE)
        self.address: Address = ()
        self.changed = threading.Condition()
        self.jobs: deque[Job] = deque()
        self.is_over = False
        self.held_bytes, self.max_held_bytes = 0, grant.buffer_bytes
        self.heard_s = time.monotonic()
        self._fragment_bytes, self._window, self._grant = fragment_bytes, window, grant
        self._pieces: OrderedDict[int, _Pieces] = OrderedDict()
        self._outcomes: OrderedDict[int, bytes] = OrderedDict()  # content of the answer; empty until it is there
        self._num_packets = self._num_bytes = 0
        self._reported_packets, self._reported_s = 0, 0.0

    def receive(self, datagram: bytes, address: Address, now_s: float) -> list[bytes]:
        """Take a datagram; the contents to send back at once. A datagram that does not open changes nothing."""
        highest = self.seal.seen.highest
        content = self.seal.open(datagram)
        if content is None:
            return []
        if self.seal.seen.highest > highest:  # an edge may move; an older datagram says nothing of where it is now
            self.address, self.heard_s = address, now_s
        self._num_packets += 1
        self._num_bytes += len(datagram) + IP_UDP_BYTES
        fragment, out, is_end = parse(content), [], False
        if isinstance(fragment, Fragment) and fragment.fits(self._fragment_bytes):
            out = self._take(fragment, now_s)
            is_end = fragment.is_end or fragment.size <= self._fragment_bytes
        is_due = self._num_packets - self._reported_packets >= _REPORT_PACKETS or now_s - self._reported_s >= _REPORT_S
        if is_end or is_due:
            self._reported_packets, self._reported_s = self._num_packets, now_s
            held_s = now_s - self.heard_s
            out.append(pack(Report(self.seal.seen.highest, self._num_bytes, self._num_packets, held_s)))
        return out

    def settle(self, now_s: float) -> float | None:
        """Hand out the frames that waited long enough for their missing pieces; when to call again, None: never.

        Frames of which nothing more came for ``max_age_s`` are forgotten.
        """
        next_s: float | None = None
        for number, pieces in list(self._pieces.items()):
            due_s = pieces.settles_s
            if due_s is not None and due_s <= now_s:
                self._hand_out(number, now_s)
            elif now_s - pieces.heard_s > self._grant.max_age_s:
                self.held_bytes -= self._pieces.pop(number).num_bytes
            elif due_s is not None and (next_s is None or due_s < next_s):
                next_s = due_s
        return next_s

    def next_job(self, is_draining: Callable[[], bool] = lambda: False) -> Job | None:
        """Wait for the next frame to be answered; None when the session is over, or has none left to drain."""
        with self.changed:
            self.changed.wait_for(lambda: self.jobs or self.is_over or is_draining())
            return self.jobs.popleft() if self.jobs and not self.is_over else None

    def answered(self, answer: Became, job: Job | None = None) -> bytes:
        """Keep the answer, should it be asked for again; the content to send, or too long for a datagram."""
        content = pack(answer)
        with self.changed:
            if job is not None:
                self.held_bytes -= len(job.payload)
            if answer.frame in self._outcomes and self.fits(content):
                self._outcomes[answer.frame] = content
        return content

    def fits(self, content: bytes) -> bool:
        """Whether a datagram holds this content."""
        return len(content) <= self._fragment_bytes

    def end(self) -> None:
        """Let the session's thread end."""
        with self.changed:
            self.is_over = True
            self.changed.notify_all()

    def _take(self, fragment: Fragment, now_s: float) -> list[bytes]:
        number = fragment.frame
        if number in self._outcomes:
            kept = self._outcomes[number]
            return [kept] if kept and fragment.is_end else []
        pieces = self._pieces.get(number)
        if pieces is None:
            if fragment.is_end and not fragment.is_whole:
                return [self._lost(fragment)]
            if self._has_no_room_for(fragment):
                return []
            pieces = self._pieces[number] = _Pieces(fragment.is_echo, fragment.size, now_s)
        if (pieces.size, pieces.is_echo) != (fragment.size, fragment.is_echo):
            return []
        if not fragment.is_end or fragment.is_whole:
            self._add(pieces, fragment, now_s)
        num = num_fragments(pieces.size, self._fragment_bytes)
        if len(pieces.bodies) == num:
            self._hand_out(number, now_s)
        elif (fragment.is_end or fragment.place == num - 1) and pieces.settles_s is None:
            pieces.settles_s = now_s + _REORDER_S
        return []

    def _add(self, pieces: _Pieces, fragment: Fragment, now_s: float) -> None:
        if fragment.place in pieces.bodies:
            return
        body = b"" if pieces.is_echo else fragment.body
        num_bytes = len(body) + _PIECE_BYTES
        if self.held_bytes + num_bytes > self.max_held_bytes:
            return
        pieces.bodies[fragment.place] = body
        pieces.heard_s = now_s
        pieces.num_bytes += num_bytes
        with self.changed:
            self.held_bytes += num_bytes

    def _has_no_room_for(self, fragment: Fragment) -> bool:
        oldest = next(iter(self._outcomes), 0)
        is_past = len(self._outcomes) >= 2 * self._window and fragment.frame < oldest
        is_full = len(self._pieces) + len(self.jobs) >= 2 * self._window
        return is_past or is_full or fragment.size > self._grant.max_frame_bytes

    def _lost(self, fragment: Fragment) -> bytes:
        """The answer to an edge that asks for a frame of which nothing came, or that came too late to be known."""
        self._remember(fragment.frame)
        return self.answered(Became(Outcome.LOST, fragment.frame, fragment.size))

    def _hand_out(self, number: int, now_s: float) -> None:
        pieces = self._pieces.pop(number)
        gaps = gaps_between(pieces.bodies, pieces.size, self._fragment_bytes)
        missing = sum(length for _, length in gaps)
        # zeros take no more room than what came
        payload = bytearray(0 if pieces.is_echo or 2 * missing > pieces.size else pieces.size)
        if payload:
            for place, body in pieces.bodies.items():
                payload[place * self._fragment_bytes : place * self._fragment_bytes + len(body)] = body
        self._remember(number)
        with self.changed:
            self.held_bytes += len(payload) - pieces.num_bytes
            self.jobs.append(Job(number, pieces.is_echo, payload, gaps, now_s))
            self.changed.notify_all()

    def _remember(self, number: int) -> None:
        self._outcomes[number] = b""
        while len(self._outcomes) > 2 * self._window:
            self._outcomes.popitem(last=False)
