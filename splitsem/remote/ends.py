"""The two ends of a real link, and the answers and counters that pass between them.

A transport carries bytes between a ``RemoteTail`` on the edge and a ``TailEngine`` on the server, and does no more.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.codecs.fields import Payload
from splitsem.codecs.tensorwise import Identity
from splitsem.cost.lut import Lut
from splitsem.errors import PayloadError
from splitsem.remote.plan import Plan
from splitsem.remote.ssh_inventory import Start
from splitsem.remote.tail_engine import TailEngine
from splitsem.split.cut import Cut


@dataclass(frozen=True)
class Answer:
    """What the server made of one frame.

    Attributes:
        request_id: number of the frame, from 0.
        payload: the tail's output in the wire format, identity codec.
        server_s: seconds of decoding, tail and encoding the output.
        queue_s: seconds that the frame waited on the server before ``server_s``.
    """

    request_id: int
    payload: Payload
    server_s: float
    queue_s: float

    def output(self) -> Tensor:
        """The tail's output. Raises PayloadError."""
        tensors = Identity().decode(self.payload)  # type: ignore[arg-type]
        if len(tensors) != 1:
            raise PayloadError(f"expected one output tensor, got {len(tensors)}")
        return tensors[0]


@dataclass
class Counters:
    """What a remote tail has seen so far; named as in ``metrics.json``.

    Attributes:
        frames_sent: frames handed to the network, resent frames included.
        frames_answered: frames answered by the server.
        retries: tries after a failed first try.
        reconnects: times that a broken stream was resumed.
        fallback_frames: frames answered on the edge because the server was gone.
    """

    frames_sent: int = 0
    frames_answered: int = 0
    retries: int = 0
    reconnects: int = 0
    fallback_frames: int = 0


class Profile(NamedTuple):
    """What a server measured of itself.

    Attributes:
        lut: times of the server's tails.
        answer_s: seconds to answer the given payload: decoding, tail, encoding; 0.0 without a payload.
    """

    lut: Lut
    answer_s: float


class RemoteTail(ABC):
    """The edge's end. Errors are ConfigError (no agreement), PayloadError (a bad frame) and LinkError (a dead link).

    Attributes:
        counters: what happened so far.
        is_gone: whether the server is given up for good, and the edge answers frames itself.
    """

    counters: Counters
    is_gone: bool = False

    @abstractmethod
    def open(self, plan: Plan) -> None:
        """Reach the server and agree on the plan; may be called again with another plan."""

    @abstractmethod
    def stream(self, payloads: Iterable[bytes], window: int | None = None) -> Iterator[Answer]:
        """The answers to the payloads, in order, one for each payload, also across reconnects.

        At most ``window`` frames (None: the transport's setting) are unanswered at any time. Another thread draws
        ``payloads`` as fast as the window allows, so that making payloads overlaps with sending and waiting. With a
        window of 1 nothing overlaps: each payload is made after the answer to its predecessor.
        """

    @abstractmethod
    def echo_s(self, num_bytes: int) -> float:
        """Seconds from sending ``num_bytes`` bytes to a short acknowledgement of all bytes; nothing is computed."""

    @abstractmethod
    def profile(
        self, points: Sequence[str] = (), payload: bytes = b"", budget_s: float = 0.3, pause_s: float = 0.002
    ) -> Profile:
        """The server's own times for its tails at these points (none: all), each measured for up to ``budget_s``.

        If a payload of the open plan is given, the server also measures the time to answer it. Each run comes after
        ``pause_s`` of idleness, as a frame does. The server bounds budget and pause, keeps its measurements for later
        requests, and measures only while it answers no frames: LinkError when the server is busy.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection; harmless when there is none."""


class TailServer(ABC):
    """The server's end of a transport: receives frames and gives them to a ``TailEngine``."""

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


class RemoteTransport(ABC):
    """One way to carry frames, with its two ends: an option of the config group ``transport``.

    Attributes:
        target: ``host:port`` that the edge connects to.
        start: how the server comes to run before the edge connects.
        is_tunnelled: whether ssh can carry the frames.
    """

    target: str
    start: Start = Start()
    is_tunnelled: bool = True

    @abstractmethod
    def edge_end(self) -> RemoteTail:
        """The end that sends frames; nothing is connected yet."""

    @abstractmethod
    def server_end(self, engine: TailEngine) -> TailServer:
        """The end that answers frames from ``engine``; nothing is bound yet."""


class EdgeEnd:
    """Head and codec as they run on the edge.

    Attributes:
        began: start of each payload (``time.perf_counter``), the oldest first.
        edge_s: seconds that each payload took.
    """

    def __init__(self, cut: Cut, codec: Codec) -> None:
        self.cut, self.codec = cut, codec
        self.began: deque[float] = deque()
        self.edge_s: list[float] = []
        self._local: deque[Tensor | None] = deque()

    def payload(self, x: Tensor) -> bytes:
        """The payload of head and codec for one sample ``(1, *input_shape)``."""
        began = time.perf_counter()
        with torch.inference_mode():
            z = self.cut.head(x)
            payload = self.codec.payload(z)
            self._local.append(self.codec.local_output(z))
        self.began.append(began)
        self.edge_s.append(time.perf_counter() - began)
        return payload

    def result(self, answer: Answer) -> Tensor:
        """The result of the oldest payload without a result, from the answer to this payload. Raises PayloadError.

        A codec with local outputs combines the local output and the answer; if the frame was lost on its way, the
        result is the local output alone.
        """
        local = self._local.popleft()
        if local is None:
            return answer.output()
        with torch.inference_mode():
            return self.codec.combine(local, answer.output() if answer.payload else None)
