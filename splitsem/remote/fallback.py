"""LocalFallback answers on the edge what is lost, and all while the server is away."""

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from splitsem.errors import LinkError, SplitSemError
from splitsem.remote.tail_engine import TailEngine
from splitsem_device.answers import Answer, Profile, RemoteTail
from splitsem_device.plan import Plan
from splitsem_device.retry import Patience, Retry

log = logging.getLogger(__name__)


class LocalFallback(RemoteTail):
    """Passes everything on to ``remote``; while its link is dead, answers from ``engine`` and looks for the server.

    The search is as patient as ``remote`` was. When it ends without the server, ``engine`` answers for good.

    Frames that get lost on the way to a living server are answered from ``engine``, too.

    Args:
        remote: the tail to use as long as its server can be reached.
        engine: answers on the edge from a copy of the tail.
    """

    def __init__(self, remote: RemoteTail, engine: TailEngine) -> None:
        self.remote, self.engine = remote, engine
        self.counters = remote.counters
        self.is_gone = False
        self._retry: Retry = remote.hurry()
        self._plan: Plan | None = None
        self._session = ""
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def open(self, plan: Plan) -> None:
        """See RemoteTail; an unreachable server is no error here."""
        self._session = self.engine.open(plan)
        with self._lock:
            self._plan = plan
            if self.is_gone:  # whoever looks for the server opens this plan there
                return
        try:
            self.remote.open(plan)
        except LinkError as exc:
            self._lose(exc)

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

    def echo_s(self, num_bytes: int) -> float:
        """See RemoteTail. Raises LinkError when the server is gone."""
        if self.is_gone:
            raise LinkError("the server is gone: the link cannot be measured")
        return self.remote.echo_s(num_bytes)

    def profile(
        self, points: Sequence[str] = (), payload: bytes = b"", budget_s: float = 0.3, pause_s: float = 0.002
    ) -> Profile:
        """See RemoteTail. Raises LinkError when the server is gone."""
        if self.is_gone:
            raise LinkError("the server is gone: it cannot be measured")
        return self.remote.profile(points, payload, budget_s, pause_s)

    def close(self) -> None:
        """See RemoteTail."""
        self._closed.set()
        self.remote.close()

    def _answer(self, number: int, payload: bytes) -> Answer:
        output, server_s = self.engine.answer(self._session, payload)
        self.counters.fallback_frames += 1
        return Answer(number, output, server_s, 0.0)

    def _lose(self, exc: LinkError) -> None:
        log.warning("Going on without the server while it is away: %s", exc)
        self.is_gone = True
        self.remote.close()
        self._closed.clear()
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
                    return
            patience.renew()
        if not self._closed.is_set():
            log.warning("Going on without the server for good")
        self.remote.close()


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
