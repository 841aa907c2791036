"""ServerMetrics holds a server's counters for Prometheus; the engine counts, so that all transports count alike."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from splitsem.errors import PayloadError, SessionError

REFUSALS = ("half_open", "no_place", "idle", "deaf", "memory")  # why a client's call was cut or turned away
STAGES = ("queue", "decode", "tail", "encode", "train")
_BUCKETS_S = [factor * 10.0**power for power in range(-5, 1) for factor in (1, 3)]
_OUTCOMES = {PayloadError: "bad_frame", SessionError: "unknown_session"}


class Load(Protocol):
    """What a transport's server can say of itself at any moment."""

    def queue_depth(self) -> int:
        """Frames that wait."""

    def num_clients(self) -> int:
        """Clients connected: streams with gRPC, sessions with UDP."""


class ServerMetrics:
    """Counters, histograms and gauges of one server, in their own registry.

    A repeated frame that is answered from memory does not count. Bytes are those of payloads and outputs, without a
    transport's headers. On a GPU, the stage ``tail`` ends when the work is queued; ``encode`` waits for the work.

    Attributes:
        registry: holds all of these metrics, and the process's memory, time and files (Linux).
        num_refused: calls cut or turned away so far, by reason.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._frames = self._by_outcome("splitsem_requests", "Frames computed, by outcome")
        self._trainings = self._by_outcome("splitsem_training_requests", "Requests of split training, by outcome")
        self._plans = Counter("splitsem_plans", "Plans that clients opened", ["outcome"], registry=self.registry)
        refused = Counter("splitsem_refused", "Calls cut or turned away, by reason", ["reason"], registry=self.registry)
        self._refused = {reason: refused.labels(reason) for reason in REFUSALS}
        self.num_refused = dict.fromkeys(REFUSALS, 0)
        self._received = Counter("splitsem_received_bytes", "Bytes of payloads", registry=self.registry)
        self._sent = Counter("splitsem_sent_bytes", "Bytes of answers", registry=self.registry)
        stage_s = Histogram(
            "splitsem_stage_seconds",
            "Time of a frame in a stage",
            ["stage"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._stage_s = {stage: stage_s.labels(stage) for stage in STAGES}
        self._queue_depth = Gauge("splitsem_queue_depth", "Frames that wait", registry=self.registry)
        self._clients = Gauge("splitsem_clients", "Streams (gRPC) or sessions (UDP)", registry=self.registry)
        self._tails = Gauge("splitsem_tails", "Tails that are kept ready, one for each plan", registry=self.registry)
        self._trainers = Gauge("splitsem_trainers", "Devices that train", registry=self.registry)
        ProcessCollector(registry=self.registry)

    def _by_outcome(self, name: str, words: str) -> dict[str, Counter]:
        counter = Counter(name, words, ["outcome"], registry=self.registry)
        return {outcome: counter.labels(outcome) for outcome in ("answered", *_OUTCOMES.values(), "failed")}

    def watch(self, server: Load) -> None:
        """Ask this server for its queue and clients at each scrape."""
        self._queue_depth.set_function(server.queue_depth)
        self._clients.set_function(server.num_clients)

    def opened(self, is_agreed: bool, num_tails: int) -> None:
        """Count a plan that a client opened."""
        self._plans.labels("agreed" if is_agreed else "refused").inc()
        self._tails.set(num_tails)

    def refused(self, reason: str) -> None:
        """Count a call that was cut or turned away for one of ``REFUSALS``."""
        self._refused[reason].inc()
        self.num_refused[reason] += 1

    def request(self, num_bytes: int, queue_s: float) -> "Request":
        """Begin to count a frame of ``num_bytes`` bytes that waited ``queue_s``."""
        self._received.inc(num_bytes)
        self._stage_s["queue"].observe(queue_s)
        return Request(self, self._frames)

    def watch_trainers(self, num_trainers: Callable[[], float]) -> None:
        """Ask for the number of training clients at each scrape."""
        self._trainers.set_function(num_trainers)

    def training_request(self, num_bytes: int) -> "Request":
        """Begin to count a request of split training of ``num_bytes`` bytes."""
        self._received.inc(num_bytes)
        return Request(self, self._trainings)


class Request:
    """The context in which one frame or request of training is computed; its end counts the outcome.

    Attributes:
        server_s: seconds of the finished stages.
    """

    __slots__ = ("_lap", "_metrics", "_outcomes", "server_s")

    def __init__(self, metrics: ServerMetrics, outcomes: dict[str, Counter]) -> None:
        self._metrics, self._outcomes = metrics, outcomes
        self.server_s = 0.0
        self._lap = time.perf_counter()

    def over(self, stage: str, num_sent: int = 0) -> None:
        """Note the end of a stage, and ``num_sent`` bytes that go back."""
        now = time.perf_counter()
        stage_s = now - self._lap
        self._metrics._stage_s[stage].observe(stage_s)
        if num_sent:
            self._metrics._sent.inc(num_sent)
        self.server_s += stage_s
        self._lap = now

    def __enter__(self) -> "Request":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None) -> None:
        outcome = (
            "answered" if kind is None else next((o for k, o in _OUTCOMES.items() if issubclass(kind, k)), "failed")
        )
        self._outcomes[outcome].inc()
