"""connect gives a Remote: a server's function, called from here, one call at a time or pipelined, exactly once each."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from splitsem_device import arrays
from splitsem_device.answers import Info
from splitsem_device.call_statistics import CallStatistics, Tally
from splitsem_device.errors import ConfigError
from splitsem_device.fields import Payload
from splitsem_device.grpc.client import MAX_ANSWER_BYTES, GrpcTail
from splitsem_device.grpc.connection import HEARTBEAT_S, Security
from splitsem_device.plan import Plan
from splitsem_device.retry import Backoff, Retry

Note = TypeVar("Note")


class Coding(Protocol[Note]):
    """What makes payloads of a call's arguments, and results of answers."""

    def plan(self) -> Plan:
        """What the server must agree on."""

    def encode(self, args: tuple[Any, ...]) -> tuple[Payload, Note]:
        """The payload of a call, which may share the arguments' memory, and what ``decode`` has to know of it."""

    def decode(self, answer: Payload, note: Note) -> Any:
        """The result. Raises PayloadError."""


@dataclass(frozen=True)
class ArrayCoding:
    """Arguments and results as structures of numpy arrays, see ``arrays.pack``.

    Attributes:
        compression: of either: ``none`` or ``zstd``.
        most_bytes: the most that a result may take.
    """

    compression: str = "none"
    most_bytes: int = arrays.MOST_BYTES

    def __post_init__(self) -> None:
        if self.compression not in arrays.COMPRESSIONS:
            raise ConfigError(f"compression must be {' or '.join(arrays.COMPRESSIONS)}, got {self.compression!r}")

    def plan(self) -> Plan:
        """See Coding."""
        return Plan.of_function(codec_name(self.compression))

    def encode(self, args: tuple[Any, ...]) -> tuple[Payload, None]:
        """See Coding. Raises ConfigError for what cannot travel."""
        return arrays.pieces(args, self.compression), None

    def decode(self, answer: Payload, note: None) -> Any:
        """See Coding."""
        return arrays.unpack(answer, self.most_bytes)


def codec_name(compression: str) -> str:
    """How a plan names structures of arrays of this compression."""
    return f"arrays({compression})"


class Remote(Generic[Note]):
    """A server that computes what it is sent; a context that closes the connection.

    ``compute`` may be called from several threads at a time. A call that a broken connection interrupts is sent again,
    and the server computes it once.

    Args:
        tail: the connection.
        coding: makes payloads and reads answers.

    Raises:
        ConfigError: the server does not agree: a line for each disagreement.
        LinkError: the server cannot be reached.
    """

    def __init__(self, tail: GrpcTail, coding: Coding[Note]) -> None:
        self._tail, self._coding, self._tally = tail, coding, Tally(tail.counters)
        self._is_closed = False
        tail.open(coding.plan())

    def __repr__(self) -> str:
        return f"Remote({self._tail.target}, {self._coding.plan().codec}{', closed' if self._is_closed else ''})"

    def compute(self, *args: Any) -> Any:
        """The result for these arguments.

        Raises:
            FunctionError: the server's function raised; it is not called again.
            PayloadError: the server does not take such arguments.
            LinkError: the link is dead.
        """
        tail = self._open_tail()
        began = time.perf_counter()
        payload, note = self._coding.encode(args)
        answer = tail.call(payload)
        result = self._coding.decode(answer.payload, note)
        self._tally.add(len(payload), answer, time.perf_counter() - began)
        return result

    def stream(self, samples: Iterable[Any], window: int | None = None) -> Iterator[Any]:
        """The results for the samples, in order, exactly one each, also across reconnects.

        At most ``window`` samples (None: the connection's) are unanswered at a time; making further ones overlaps with
        waiting for answers, in another thread.

        Args:
            samples: a tuple is a call's arguments; anything else is its only argument.
            window: see above.

        Raises:
            FunctionError, PayloadError, LinkError: see ``compute``; results before that have been given.
        """
        tail = self._open_tail()
        under_way: deque[tuple[int, Note, float]] = deque()

        def payloads() -> Iterator[bytes]:
            for sample in samples:
                began = time.perf_counter()
                payload, note = self._coding.encode(sample if isinstance(sample, tuple) else (sample,))
                under_way.append((len(payload), note, began))
                yield bytes(payload)  # the caller may change the sample before it is sent

        for answer in tail.stream(payloads(), window):
            num_bytes, note, began = under_way.popleft()
            result = self._coding.decode(answer.payload, note)
            self._tally.add(num_bytes, answer, time.perf_counter() - began)
            yield result

    def health(self) -> bool:
        """Whether the server says that it serves; one try."""
        return self._open_tail().is_healthy()

    def info(self) -> Info:
        """What the server says of itself."""
        return self._open_tail().info()

    def statistics(self) -> CallStatistics:
        """What happened so far: calls, retries, bytes, and percentiles of the times."""
        return self._tally.statistics()

    def close(self) -> None:
        """Close the connection; harmless when it is closed."""
        self._is_closed = True
        self._tail.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _open_tail(self) -> GrpcTail:
        if self._is_closed:
            raise ConfigError("the connection is closed: connect again")
        return self._tail


def reach(
    address: str,
    retry: Retry | None,
    window: int,
    security: Security | None,
    heartbeat_s: float = HEARTBEAT_S,
    max_answer_bytes: int = MAX_ANSWER_BYTES,
) -> GrpcTail:
    """The connection to ``host:port``; see ``connect``."""
    try:
        return GrpcTail(address, window, retry or Backoff(), security or Security(), heartbeat_s, max_answer_bytes)
    except ValueError as exc:
        raise ConfigError(f"connect: {exc}") from exc


def connect(
    address: str,
    *,
    compression: str = "none",
    retry: Retry | None = None,
    window: int = 32,
    security: Security | None = None,
) -> Remote[None]:
    """Connect to a server of a function, whose arguments and results are structures of numpy arrays.

    Args:
        address: the server's ``host:port``.
        compression: of what is sent either way: ``none`` or ``zstd``.
        retry: deadline of a call, and what happens after a failure; None: ``Backoff()``.
        window: calls of a stream that may be unanswered.
        security: TLS, mutual TLS and token; None: none, on this machine only.

    Raises:
        ConfigError: an argument is wrong, or the server does not agree.
        LinkError: the server cannot be reached within the patience of ``retry``.
    """
    return Remote(reach(address, retry, window, security), ArrayCoding(compression))
