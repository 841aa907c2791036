"""LocalFallback answers on the edge what is lost, and all when the server is gone; Retry says how long to try."""

import logging
import random
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from splitsem.errors import LinkError
from splitsem.remote.ends import Answer, Profile, RemoteTail
from splitsem.remote.plan import Plan
from splitsem.remote.tail_engine import TailEngine

log = logging.getLogger(__name__)


class LocalFallback(RemoteTail):
    """Passes everything on to ``remote`` until its link is dead, and answers from ``engine`` from then on.

    Frames that get lost on the way to a living server are answered from ``engine``, too.

    Args:
        remote: the tail to use as long as its server can be reached.
        engine: answers on the edge from a copy of the tail.
    """

    def __init__(self, remote: RemoteTail, engine: TailEngine) -> None:
        self.remote, self.engine = remote, engine
        self.counters = remote.counters
        self.is_gone = False
        self._session = ""

    def open(self, plan: Plan) -> None:
        """See RemoteTail; an unreachable server is no error here."""
        self._session = self.engine.open(plan)
        if self.is_gone:
            return
        try:
            self.remote.open(plan)
        except LinkError as exc:
            self._give_up(exc)

    def stream(self, payloads: Iterable[bytes], window: int | None = None) -> Iterator[Answer]:
        """See RemoteTail; frames that the server did not answer are answered here, in order."""
        source = _Source(iter(payloads))
        number = 0
        if not self.is_gone:
            try:
                for answer in self.remote.stream(source, window):
                    payload = source.answered()
                    yield self._answer(number, payload) if answer.is_lost else answer
                    number += 1
                return
            except LinkError as exc:
                self._give_up(exc)
        for payload in source.rest():
            yield self._answer(number, payload)
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
        self.remote.close()

    def _answer(self, number: int, payload: bytes) -> Answer:
        output, server_s = self.engine.answer(self._session, payload)
        self.counters.fallback_frames += 1
        return Answer(number, output, server_s, 0.0)

    def _give_up(self, exc: LinkError) -> None:
        log.warning("Going on without the server: %s", exc)
        self.is_gone = True
        self.remote.close()


class _Source:
    """The payloads as one iterator for two readers: first the remote tail's thread, then the edge, by ``rest``."""

    def __init__(self, payloads: Iterator[bytes]) -> None:
        self._payloads = payloads
        self._unanswered: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._taken_over = False

    def __iter__(self) -> "_Source":
        return self

    def __next__(self) -> bytes:
        with self._lock:
            if self._taken_over:
                raise StopIteration
            self._unanswered.append(next(self._payloads))
            return self._unanswered[-1]

    def answered(self) -> bytes:
        """Note the answer to the oldest drawn payload, and return that payload."""
        with self._lock:
            return self._unanswered.popleft()

    def rest(self) -> Iterator[bytes]:
        """The drawn payloads without an answer, then the undrawn payloads."""
        with self._lock:
            self._taken_over = True
        yield from self._unanswered
        yield from self._payloads


@dataclass(frozen=True)
class Retry:
    """Exponential backoff with full jitter: before retry k (from 0) wait a uniform time up to ``first_s · 2^k``.

    Attributes:
        retries: further tries after a failed first try, without an answer in between; 0: a single try.
        first_s: longest wait before the first retry.
        most_s: longest wait before any retry.
        deadline_s: longest wait for an answer before the link counts as broken.
    """

    retries: int = 6
    first_s: float = 0.1
    most_s: float = 5.0
    deadline_s: float = 30.0

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries must not be negative, got {self.retries}")
        for name in ("first_s", "most_s", "deadline_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")

    def wait_s(self, retry: int) -> float:
        """Seconds to wait before this retry, drawn anew at each call."""
        return random.uniform(0, min(self.most_s, self.first_s * 2.0 ** min(retry, 60)))
