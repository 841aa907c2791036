"""The two ends of a real link and what passes between them.

A transport carries bytes between a ``RemoteTail`` on the device and a ``TailEngine`` on the server, and nothing else.
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
        queue_s: seconds that the frame waited on the server before that.
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
        frames_sent: frames handed to the network, those sent again included.
        frames_answered: frames answered by the server.
        retries: tries after a first one that failed.
        reconnects: times that a broken stream was taken up again.
        fallback_frames: frames that were answered on the device because the server was gone.
    """

    frames_sent: int = 0
    frames_answered: int = 0
    retries: int = 0
    reconnects: int = 0
    fallback_frames: int = 0


class Profile(NamedTuple):
    """What a server measured of itself.

    Attributes:
        lut: its tails' times.
        answer_s: seconds to answer the payload that it was shown: decoding, tail, encoding; 0.0 when it saw none.
    """

    lut: Lut
    answer_s: float


class RemoteTail(ABC):
    """The device's end. Errors are ConfigError (no agreement), PayloadError (a bad frame) and LinkError (a dead link).

    Attributes:
        counters: what happened so far.
        is_gone: whether the server was given up for good, and frames are answered elsewhere.
    """

    counters: Counters
    is_gone: bool = False

    @abstractmethod
    def open(self, plan: Plan) -> None:
        """Reach the server and agree on the plan; may be called again with another plan."""

    @abstractmethod
    def stream(self, payloads: Iterable[bytes], window: int | None = None) -> Iterator[Answer]:
        """The answers to the payloads, in order, each exactly once, also across reconnects.

        At most ``window`` frames (None: the transport's setting) are unanswered at any time; ``payloads`` is drawn
        from only as fast as that allows, in another thread, so that its work overlaps with sending and waiting. With a
        window of 1 nothing overlaps: a payload is made when the one before is answered.
        """

    @abstractmethod
    def echo_s(self, num_bytes: int) -> float:
        """Seconds from sending ``num_bytes`` bytes to a short acknowledgement of all of them, nothing computed."""

    @abstractmethod
    def profile(
        self, points: Sequence[str] = (), payload: bytes = b"", budget_s: float = 0.3, pause_s: float = 0.002
    ) -> Profile:
        """The server's own times for its tails at these points (none: all), each measured for up to ``budget_s``.

        With a payload of the open plan also the time of answering it. Each run comes after ``pause_s`` of idleness, as
        a frame does. The server bounds budget and pause, keeps what it measured for the next who asks, and measures
        only while it answers no frames: LinkError when it is busy.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection; harmless when there is none."""


class TailServer(ABC):
    """The server's end of a transport: receives frames and gives them to a ``TailEngine``."""

    @abstractmethod
    def start(self) -> str:
        """Bind and serve in threads; returns the ``host:port`` that was bound. ConfigError when it cannot be."""

    @abstractmethod
    def stop(self, grace_s: float) -> None:
        """Take no new frames, answer those received, and end after ``grace_s`` seconds at the latest."""

    @abstractmethod
    def queue_depth(self) -> int:
        """Frames that wait at this moment."""

    @abstractmethod
    def num_clients(self) -> int:
        """Clients at this moment: streams with gRPC, sessions with UDP."""


class RemoteTransport(ABC):
    """What a remote option of the config group ``transport`` makes: one way to carry frames, with its two ends.

    Attributes:
        target: ``host:port`` that the device connects to.
        start: how the server comes to run before that.
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
        """The end that answers them from ``engine``; nothing is bound yet."""


class EdgeEnd:
    """Head and codec.

    Attributes:
        began: when each payload was begun (``time.perf_counter``), the oldest first.
        edge_s: seconds that each took.
    """

    def __init__(self, cut: Cut, codec: Codec) -> None:
        self.cut, self.codec = cut, codec
        self.began: deque[float] = deque()
        self.edge_s: list[float] = []
        self._local: deque[Tensor | None] = deque()

    def payload(self, x: Tensor) -> bytes:
        """Head and codec for one sample ``(1, *input_shape)``."""
        began = time.perf_counter()
        with torch.inference_mode():
            z = self.cut.head(x)
            payload = self.codec.payload(z)
            self._local.append(self.codec.local_output(z))
        self.began.append(began)
        self.edge_s.append(time.perf_counter() - began)
        return payload

    def result(self, answer: Answer) -> Tensor:
        """The result of the oldest payload that has none yet, from the answer to it.

        For a codec with local outputs the two combined; the local one alone where the frame was lost on its way.
        Raises PayloadError.
        """
        local = self._local.popleft()
        if local is None:
            return answer.output()
        with torch.inference_mode():
            return self.codec.combine(local, answer.output() if answer.payload else None)
