"""CallStatistics are what a Remote's calls took; a Tally keeps the last ones, from any thread."""

import threading
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from splitsem_device.answers import Answer, Counters

_KEPT = 10_000


class Percentiles(NamedTuple):
    """Seconds of the last calls. None stands where there was no call.

    Attributes:
        mean, p50, p95, p99: of the calls.
    """

    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class CallStatistics:
    """What happened so far. Times are of the last 10,000 calls.

    Attributes:
        calls: that have their results.
        retries: tries after a failed first try.
        reconnects: times that a broken stream was resumed.
        sent_bytes: of payloads, without the transport's headers; resent ones count once.
        received_bytes: of answers.
        total_s: from the arguments to the result, with all work here.
        server_s: the server's work.
        queue_s: waiting on the server before that.
    """

    calls: int
    retries: int
    reconnects: int
    sent_bytes: int
    received_bytes: int
    total_s: Percentiles
    server_s: Percentiles
    queue_s: Percentiles

    def __repr__(self) -> str:
        facts = f"{self.calls} calls, {self.retries} retries, {self.sent_bytes} B out, {self.received_bytes} B in"
        if self.calls:
            facts += f", p50/p95/p99 {' / '.join(f'{1000 * value:.2f}' for value in self.total_s[1:])} ms"
        return f"CallStatistics({facts})"

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, percentiles by name, e.g. for JSON."""
        return {key: value._asdict() if isinstance(value, Percentiles) else value for key, value in vars(self).items()}


class Tally:
    """Notes calls.

    Args:
        counters: of the connection.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._times_s: deque[tuple[float, float, float]] = deque(maxlen=_KEPT)
        self._calls = self._sent_bytes = self._received_bytes = 0

    def add(self, num_bytes: int, answer: Answer, total_s: float) -> None:
        """A call has its result; its payload had so many bytes."""
        with self._lock:
            self._calls += 1
            self._sent_bytes += num_bytes
            self._received_bytes += len(answer.payload)
            self._times_s.append((total_s, answer.server_s, answer.queue_s))

    def statistics(self) -> CallStatistics:
        """What was noted so far."""
        with self._lock:
            times_s = np.array(self._times_s or [(np.nan,) * 3])
            counts = self._calls, self._sent_bytes, self._received_bytes
        counters = asdict(self._counters)
        total_s, server_s, queue_s = (_percentiles(column) for column in times_s.T)
        calls, sent, received = counts
        return CallStatistics(
            calls, counters["retries"], counters["reconnects"], sent, received, total_s, server_s, queue_s
        )


def _percentiles(times_s: np.ndarray[Any, Any]) -> Percentiles:
    return Percentiles(float(times_s.mean()), *(float(value) for value in np.percentile(times_s, (50, 95, 99))))
