"""While the server is away: LocalFallback answers on the edge what is lost, Buffer keeps payloads until it is back."""

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from splitsem_device.answers import EVERYTHING, Answer, Profile, RemoteTail, ToMeasure
from splitsem_device.errors import LinkError, SplitSemError, TokenError
from splitsem_device.fields import Payload
from splitsem_device.plan import Plan
from splitsem_device.retry import Patience, Retry

log = logging.getLogger(__name__)


class Answerer(Protocol):
    """What answers on the edge, as the server would."""

    def open(self, plan: Plan) -> str:
        """Get ready; returns the key of the session. Raises ConfigError."""

    def answer(self, session: str, payload: Payload) -> tuple[bytes | memoryview, float]:
        """The answer to the oldest frame that has none, and the seconds that it took."""


class _Searching(RemoteTail):
    """Passes everything on to ``remote``, and looks for the server while its link is dead, as patient as it was.

    Args:
        remote: the tail to use as long as its server can be reached.
    """

    at_the_end = "Going on without the server for good"

    def __init__(self, remote: RemoteTail) -> None:
        self.remote = remote
        self.counters = remote.counters
        self.is_gone = False
        self._retry: Retry = remote.hurry()
        self._plan: Plan | None = None
        self._lock = threading.Lock()
        self._closed, self._settled = threading.Event(), threading.Event()

    def open(self, plan: Plan) -> None:
        """See RemoteTail; an unreachable server is no error here, a wrong token is."""
        with self._lock:
            self._plan = plan
            if self.is_gone:  # whoever looks for the server opens this plan there
                return
        try:
            self.remote.open(plan)
        except TokenError:
            raise
        except LinkError as exc:
            self._lose(exc)

    def echo_s(self, num_bytes: int) -> float:
        """See RemoteTail. Raises LinkError when the server is gone."""
        if self.is_gone:
            raise LinkError("the server is gone: the link cannot be measured")
        return self.remote.echo_s(num_bytes)

    def profile(self, asked: ToMeasure = EVERYTHING) -> Profile:
        """See RemoteTail. Raises LinkError when the server is gone."""
        if self.is_gone:
            raise LinkError("the server is gone: it cannot be measured")
        return self.remote.profile(asked)

    def close(self) -> None:
        """See RemoteTail."""
        self._closed.set()
        self.remote.close()

    def _lose(self, exc: LinkError) -> None:
        log.warning("Going on without the server while it is away: %s", exc)
        self.is_gone = True
        self.remote.close()
        self._closed.clear()
        self._settled.clear()
        threading.Thread(target=self._look_for_it, daemon=True, name="look-for-server").start()

    def _look_for_it(self) -> None:
        """Open the plan at the server again and again, until that works or patience ends."""
        patience = Patience(self._retry)
        while (wait_s := patience.fail()) is not None and not self._closed.wait(wait_s):
            plan = self._plan
            assert plan is not None  # something was opened, or nothing could be lost
            try:
                self.remote.open(plan)
            except LinkError:
                continue
            except SplitSemError as exc:
                log.warning("The server is back, but not of use: %s", exc)
                break
            with self._lock:
                if plan is self._plan and not self._closed.is_set():
                    log.warning("The server is back after %d tries", patience.num_failures)
                    self.is_gone = False
                    self._settled.set()
                    return
            patience.renew()
        if not self._closed.is_set():
            log.warning("%s", self.at_the_end)
        self.remote.close()
        self._settled.set()


class LocalFallback(_Searching):
    """Answers from ``engine`` while the server is away, and for good when the search for it ends without it.

    Frames that get lost on the way to a living server are answered from ``engine``, too.

    Args:
        remote: the tail to use as long as its server can be reached.
        engine: answers on the edge from a copy of the tail.
    """

    def __init__(self, remote: RemoteTail, engine: Answerer) -> None:
        super().__init__(remote)
        self.engine = engine
        self._session = ""

    def open(self, plan: Plan) -> None:
        """See RemoteTail."""
        self._session = self.engine.open(plan)
        super().open(plan)

    def stream(self, payloads: Iterable[bytes], window: int | None = None) -> Iterator[Answer]:
        """See RemoteTail; frames that the server did not answer are answered here, in order."""
        source = _Source(iter(payloads))
        number = 0
        while True:
            if not self.is_gone:
                try:
                    for answer in self.remote.stream(source.unanswered(), window):
                        payload = source.answered()
                        yield self._answer(number, payload) if answer.is_lost else replace(answer, request_id=number)
                        number += 1
                    return
                except LinkError as exc:
                    self._lose(exc)
            if source.oldest() is None:
                return
            yield self._answer(number, source.answered())
            number += 1

    def _answer(self, number: int, payload: bytes) -> Answer:
        output, server_s = self.engine.answer(self._session, payload)
        self.counters.fallback_frames += 1
        return Answer(number, output, server_s, 0.0)


class Buffer(_Searching):
    """Makes payloads while the server is away and keeps them, at most ``most``; they are sent when it is back.

    When ``most`` payloads wait, no more are made until the server is back: a file waits, a camera's pictures pass.

    Args:
        remote: sends the payloads as long as its server can be reached.
        most: payloads that are kept without an answer.
    """

    at_the_end = "Giving the server up"

    def __init__(self, remote: RemoteTail, most: int) -> None:
        if most < 1:
            raise ValueError(f"most must be at least 1, got {most}")
        super().__init__(remote)
        self.most = most

    def stream(self, payloads: Iterable[bytes], window: int | None = None) -> Iterator[Answer]:
        """See RemoteTail. Raises LinkError when the search for the server ends without it."""
        source, number = _Source(iter(payloads)), 0
        while True:
            if self.is_gone:
                self._wait(source)
            try:
                for answer in self.remote.stream(source.unanswered(), window):
                    source.answered()
                    yield replace(answer, request_id=number)
                    number += 1
                return
            except LinkError as exc:
                self._lose(exc)

    def _wait(self, source: "_Source") -> None:
        """Make payloads until the server is back, or there are ``most``; then wait for it."""
        while not self._settled.is_set() and source.num_waiting() < self.most and source.draw():
            pass
        if not self._settled.is_set() and source.num_waiting():
            full = source.num_waiting() >= self.most
            log.warning("%d payloads wait for the server%s", source.num_waiting(), ", and no more are made" * full)
            self._settled.wait()
        if self.is_gone and source.num_waiting():
            raise LinkError(f"the server did not come back; {source.num_waiting()} payloads are lost")


class _Source:
    """The payloads, kept until their answers, for one reader at a time: the remote tail's thread, or the edge."""

    def __init__(self, payloads: Iterator[bytes]) -> None:
        self._payloads = payloads
        self._waiting: deque[bytes] = deque()
        self._num_answered = 0
        self._reader = 0
        self._lock = threading.Lock()

    def unanswered(self) -> Iterator[bytes]:
        """Every payload from the oldest without an answer on; ends when another reader begins."""
        with self._lock:
            self._reader += 1
            mine, number = self._reader, self._num_answered
        return self._from(number, mine)

    def oldest(self) -> bytes | None:
        """The oldest payload without an answer, drawn if necessary; None when there is none left."""
        with self._lock:
            self._reader += 1
            return self._at(self._num_answered)

    def num_waiting(self) -> int:
        """Payloads that are drawn and have no answer."""
        return len(self._waiting)

    def draw(self) -> bool:
        """Draw one more payload; False when there is none left."""
        with self._lock:
            self._reader += 1
            return self._at(self._num_answered + len(self._waiting)) is not None

    def answered(self) -> bytes:
        """Note the answer to the oldest drawn payload, and return that payload."""
        with self._lock:
            self._num_answered += 1
            return self._waiting.popleft()

    def _from(self, number: int, mine: int) -> Iterator[bytes]:
        while True:
            with self._lock:
                payload = self._at(number) if mine == self._reader else None
            if payload is None:
                return
            yield payload
            number += 1

    def _at(self, number: int) -> bytes | None:
        if number - self._num_answered == len(self._waiting):
            payload = next(self._payloads, None)
            if payload is None:
                return None
            self._waiting.append(payload)
        return self._waiting[number - self._num_answered]
