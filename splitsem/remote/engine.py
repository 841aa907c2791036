"""An Engine is a server's work on frames, without I/O; a TailServer is a transport's end that gives it frames."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from splitsem.errors import ConfigError
from splitsem.remote.server_metrics import ServerMetrics
from splitsem_device.answers import Profile, ToMeasure
from splitsem_device.fields import Payload
from splitsem_device.plan import Plan

Answered = tuple[bytes | memoryview, float]
"""An answer, and the seconds that its work took."""


class Engine(ABC):
    """What a server answers frames with. Safe to call from threads.

    Attributes:
        is_forwarding: whether other servers have a part in its answers, so that it begins frames ahead of answers.
        metrics: what happened so far.
        offer: what an edge's plan must equal, but for what the edge chooses: point, codec and answer.
        codec_labels: names of the payloads that it reads.
        place: where it computes, in words.
        num_answered: payloads answered so far.
    """

    is_forwarding: bool = False
    metrics: ServerMetrics
    offer: Plan
    codec_labels: Sequence[str]
    place: str
    num_answered: int

    @property
    @abstractmethod
    def point_names(self) -> Sequence[str]:
        """The split points that a plan may name."""

    @abstractmethod
    def open(self, plan: Plan) -> str:
        """Agree on a plan and return the key of the session that answers its frames; equal plans share a session.

        Raises:
            ConfigError: a line for each disagreement.
            SplitPointError: no such point.
        """

    @abstractmethod
    def plan(self, session: str) -> Plan:
        """The plan of an open session of real frames. Raises SessionError."""

    @abstractmethod
    def most_payload_bytes(self, session: str | None = None) -> int:
        """The most bytes that a payload of this session can need; None: of any session. Raises SessionError."""

    @abstractmethod
    def answer(self, session: str, payload: Payload, queue_s: float = 0.0) -> Answered:
        """The answer to one payload, and the seconds that its work took.

        Args:
            session: of the frame.
            payload: of the frame.
            queue_s: how long the payload waited before the call, for the metrics.

        Raises:
            SessionError: the session is not open here.
            PayloadError: the payload is damaged, or does not fit the session.
            FunctionError: the function that the server offers raised an exception.
        """

    def begin(self, session: str, payload: Payload, queue_s: float = 0.0) -> "Answered | Future[Answered]":
        """As ``answer``; of a forwarding engine, what becomes the answer once the next server has done its part."""
        return self.answer(session, payload, queue_s)

    def close(self) -> None:
        """Let go of other servers; nothing is asked afterwards."""
        return

    def profile(self, asked: ToMeasure, session: str, is_wanted: Callable[[], bool]) -> Profile:
        """The engine's own times, see ``Profiler.profile``. Raises ConfigError where there is no network to measure."""
        raise ConfigError("this server does not measure itself: it serves no network")


class TailServer(ABC):
    """The server's end of a transport: receives frames and gives them to an ``Engine``."""

    @abstractmethod
    def start(self) -> str:
        """Bind and serve in threads; returns the bound ``host:port``. Raises ConfigError when binding fails."""

    @abstractmethod
    def stop(self, grace_s: float) -> None:
        """Take no new frames, answer the received frames, and end after ``grace_s`` seconds at the latest."""

    @abstractmethod
    def queue_depth(self) -> int:
        """Frames that wait at this moment."""

    @abstractmethod
    def num_clients(self) -> int:
        """Clients at this moment: streams with gRPC, sessions with UDP."""
