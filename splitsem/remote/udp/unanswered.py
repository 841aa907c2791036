"""Frames are those of one plan on the edge: to be sent, answered, lost or late. No socket and no clock of its own."""

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf

from splitsem.errors import ConfigError, PayloadError, SplitSemError
from splitsem.remote.udp.packets import Became, Fragment, Outcome
from splitsem_device.answers import Answer, Counters

_MAX_ASK_S = 1.0
_MAX_OVERDUE = 4096


@dataclass
class Frame:
    """A frame without an answer.

    Attributes:
        number: from 0.
        payload: what travels.
        is_echo: whether nothing is computed.
        due_s: when its answer is too late.
        ask_s: when to ask what became of it.
    """

    number: int
    payload: bytes | memoryview
    is_echo: bool
    due_s: float = inf
    ask_s: float = inf
    num_asks: int = 0


class Frames:
    """Numbers frames, and keeps each until its answer, or until that is too late. Any thread may call.

    Args:
        peer: the server's name, for messages.
        counters: what happened, updated here.
        fragment_bytes: a frame no longer than this is its own question what became of it, so it is sent again.

    Attributes:
        changed: notified whenever anything here changed.
        to_send: the frames to be sent, in order.
        failure: why no frame will be answered any more.
        num_bytes, num_missing: bytes of the frames that have an outcome, and how many of them did not arrive.
    """

    def __init__(self, peer: str, counters: Counters, fragment_bytes: int) -> None:
        self._fragment_bytes = fragment_bytes
        self.changed = threading.Condition()
        self.to_send: deque[Frame] = deque()
        self.failure: SplitSemError | None = None
        self.num_bytes = self.num_missing = 0
        self._window = self._max_frame_bytes = 0
        self._peer, self._counters = peer, counters
        self._unanswered: dict[int, Frame] = {}  # ascending
        self._outcomes: dict[int, Answer | SplitSemError] = {}
        self._overdue: deque[int] = deque(maxlen=_MAX_OVERDUE)
        self._next = 0

    def submit(self, payload: bytes | memoryview, is_echo: bool = False) -> int:
        """Hand over a frame as soon as the one before is on its way; its number. Raises LinkError, PayloadError."""
        with self.changed:
            self.changed.wait_for(lambda: self.failure or (not self.to_send and len(self._unanswered) < self._window))
            self._raise_failure()
            most = self._max_frame_bytes
            if len(payload) > most:
                raise PayloadError(f"expected at most {most} bytes a frame (max_frame_bytes), got {len(payload)}")
            frame = self._unanswered[self._next] = Frame(self._next, payload, is_echo)
            self._next += 1
            self.to_send.append(frame)
            self.changed.notify_all()
            return frame.number

    def wait(self, number: int) -> Answer:
        """Wait for the answer to a frame and forget the frame. Raises the frame's error, or LinkError."""
        with self.changed:
            self.changed.wait_for(lambda: number in self._outcomes or self.failure)
            if number not in self._outcomes:
                self._raise_failure()
            outcome = self._outcomes.pop(number)
        if isinstance(outcome, SplitSemError):
            raise outcome
        return outcome

    def abandon(self, numbers: set[int]) -> None:
        """Forget frames and their answers."""
        with self.changed:
            for number in numbers:
                self._unanswered.pop(number, None)
                self._outcomes.pop(number, None)
            self.changed.notify_all()

    def is_wanted(self, frame: Frame) -> bool:
        """Whether the frame has no outcome yet."""
        return frame.number in self._unanswered

    def resume(self, window: int, max_frame_bytes: int) -> None:
        """Send all frames without an answer, at most ``window`` at a time; with a window of 0, take no more."""
        with self.changed:
            self._window, self._max_frame_bytes = window, max_frame_bytes
            self.to_send = deque(self._unanswered.values())
            for frame in self.to_send:
                frame.ask_s = inf
            self.changed.notify_all()

    def fail(self, failure: SplitSemError) -> None:
        """Answer no frame any more."""
        with self.changed:
            self.failure = self.failure or failure
            self.changed.notify_all()

    def became(self, answer: Became) -> None:
        """Take what became of a frame; one that is known already changes nothing."""
        with self.changed:
            frame = self._unanswered.pop(answer.frame, None)
            is_answered = answer.outcome in (Outcome.ANSWERED, Outcome.FILLED)
            if frame is not None:
                self._settle(frame, self._outcome(answer), answer.num_missing, answer.outcome is Outcome.FILLED)
            elif is_answered and answer.frame in self._overdue:
                self._overdue.remove(answer.frame)
                self._counters.frames_lost -= 1
                self._counters.frames_late += 1
            self.changed.notify_all()

    def look_after(self, now_s: float, timeout_s: float) -> tuple[list[Fragment], float]:
        """Give up what is too late; the questions for answers that are due, and when to look again."""
        asks, next_s = [], inf
        with self.changed:
            for frame in list(self._unanswered.values()):
                if now_s >= frame.due_s:
                    del self._unanswered[frame.number]
                    self._settle(frame, _lost(frame.number), len(frame.payload))
                    if not frame.is_echo:
                        self._overdue.append(frame.number)
                    self.changed.notify_all()
                    continue
                if now_s >= frame.ask_s:
                    frame.num_asks += 1
                    frame.ask_s = now_s + min(timeout_s * 2**frame.num_asks, _MAX_ASK_S)
                    size = len(frame.payload)
                    body = bytes(frame.payload) if size <= self._fragment_bytes else b""
                    asks.append(Fragment(frame.number, size, 0, body, True, frame.is_echo))
                next_s = min(next_s, frame.due_s, frame.ask_s)
        return asks, next_s

    def _outcome(self, answer: Became) -> Answer | SplitSemError:
        if answer.outcome is Outcome.REFUSED:
            return PayloadError(f"{self._peer}: {answer.body.decode(errors='replace')}")
        if answer.outcome is Outcome.FAILED:
            return ConfigError(f"{self._peer}: {answer.body.decode(errors='replace')}")
        if answer.outcome is Outcome.LOST:
            return _lost(answer.frame)
        return Answer(answer.frame, answer.body, answer.server_s, answer.queue_s)

    def _settle(self, frame: Frame, outcome: Answer | SplitSemError, num_missing: int, is_filled: bool = False) -> None:
        self._outcomes[frame.number] = outcome
        self.num_bytes += len(frame.payload)
        self.num_missing += num_missing
        if not frame.is_echo and isinstance(outcome, Answer):
            self._counters.frames_lost += outcome.is_lost
            self._counters.frames_filled += is_filled
            self._counters.frames_answered += not outcome.is_lost
            self._counters.missing_share = self.num_missing / max(1, self.num_bytes)

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise type(self.failure)(*self.failure.args)


def _lost(number: int) -> Answer:
    return Answer(number, b"", 0.0, 0.0, is_lost=True)


class Stream:
    """One stream: a thread draws and submits payloads, the consumer's thread takes the answers."""

    def __init__(self, frames: Frames, payloads: Iterable[bytes], window: int) -> None:
        self._frames, self._payloads = frames, payloads
        self._room = threading.Semaphore(window)
        self._numbers: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self._is_over = False

    def answers(self) -> Iterator[Answer]:
        """The answers, in order; each taken answer frees a place in the window."""
        threading.Thread(target=self._feed, name="splitsem-udp-stream", daemon=True).start()
        place = 0
        try:
            while (number := self._numbers.get()) is not None:
                if isinstance(number, BaseException):
                    raise number
                answer = self._frames.wait(number)
                self._room.release()
                yield Answer(place, answer.payload, answer.server_s, answer.queue_s, answer.is_lost)
                place += 1
        finally:
            self._is_over = True
            self._room.release()
            self._drop_rest()

    def _feed(self) -> None:
        try:
            payloads = iter(self._payloads)
            while self._has_room() and (payload := next(payloads, None)) is not None:
                self._numbers.put(self._frames.submit(payload))
            if self._is_over:
                self._drop_rest()  # frames submitted after the consumer left
        except BaseException as exc:  # noqa: BLE001 - handed to the consumer, which raises it
            self._numbers.put(exc)
        else:
            self._numbers.put(None)

    def _has_room(self) -> bool:
        self._room.acquire()
        return not self._is_over

    def _drop_rest(self) -> None:
        rest = set()
        while not self._numbers.empty():
            number = self._numbers.get()
            if isinstance(number, int):
                rest.add(number)
        self._frames.abandon(rest)
