"""The two ends of a real link, and the answers and counters that pass between them.

A transport carries bytes between a ``RemoteTail`` on the edge and a ``TailEngine`` on the server, and does no more.
"""

import functools
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.cost.lut import Lut
from splitsem.remote.plan import Plan, codec_label
from splitsem.remote.retry import Retry
from splitsem.remote.ssh_inventory import Start
from splitsem.remote.tail_engine import TailEngine, contiguous
from splitsem.scoring import plain
from splitsem.splitting.cut import Cut
from splitsem.tasks.answer import AnswerCoder
from splitsem.trees import call, mapped
from splitsem_device.fields import Payload


@dataclass(frozen=True)
class Answer:
    """What the server made of one frame.

    Attributes:
        request_id: number of the frame, from 0.
        payload: the answer's bytes, see ``Plan.answer``; empty as an acknowledgement, and for a frame that was lost.
        server_s: seconds of decoding, tail and encoding the answer.
        queue_s: seconds that the frame waited on the server before ``server_s``.
        is_lost: whether the frame or its answer was lost or came too late, over a transport that tolerates that.
    """

    request_id: int
    payload: Payload
    server_s: float
    queue_s: float
    is_lost: bool = False


@dataclass
class Counters:
    """What a remote tail has seen so far; named as in ``metrics.json``.

    Attributes:
        frames_sent: frames handed to the network, resent frames included.
        frames_answered: frames answered by the server.
        retries: tries after a failed first try.
        reconnects: times that a broken stream was resumed.
        fallback_frames: frames answered on the edge while the server was away, or because the frame was lost.
        frames_lost: frames of which too much did not arrive, or that got no answer; only over datagrams, as all below.
        frames_late: frames whose answer came after the deadline.
        frames_filled: frames answered with something in place of what did not arrive.
        missing_share: share of the frames' bytes that did not arrive.
    """

    frames_sent: int = 0
    frames_answered: int = 0
    retries: int = 0
    reconnects: int = 0
    fallback_frames: int = 0
    frames_lost: int = 0
    frames_late: int = 0
    frames_filled: int = 0
    missing_share: float = 0.0


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
        is_gone: whether the server is away, and the edge answers frames itself.
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

    def hurry(self) -> Retry:
        """Raise LinkError at the first failure from now on, where the transport can; returns how patient it was."""
        return Retry()


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
        is_server_over: tells when no server will come back, since the edge started it and it has ended.
    """

    target: str
    start: Start = Start()
    is_tunnelled: bool = True
    is_server_over: Callable[[], bool] = staticmethod(lambda: False)

    @abstractmethod
    def check_server(self) -> None:
        """Raise ConfigError for what keeps a server from starting, before a network is trained for it."""

    @abstractmethod
    def check_edge(self) -> None:
        """Raise ConfigError for what keeps an edge from calling, before a network is trained for it."""

    @abstractmethod
    def edge_end(self) -> RemoteTail:
        """The end that sends frames; nothing is connected yet."""

    @abstractmethod
    def server_end(self, engine: TailEngine) -> TailServer:
        """The end that answers frames from ``engine``; nothing is bound yet."""


@dataclass
class EdgeTimes:
    """Seconds on the edge, one value a sample, in the order of the samples.

    Attributes:
        head_s: the head.
        encode_s: making the payload.
        answer_decode_s: making the result of the answer.
    """

    head_s: list[float] = field(default_factory=list)
    encode_s: list[float] = field(default_factory=list)
    answer_decode_s: list[float] = field(default_factory=list)

    @property
    def edge_s(self) -> list[float]:
        """All the work of the edge on each sample that has its result."""
        return [sum(times_s) for times_s in zip(self.head_s, self.encode_s, self.answer_decode_s, strict=False)]


class EdgeEnd:
    """What runs on the edge: the head, what makes payloads of its features, and what reads the answers.

    Args:
        cut: whose head runs here.
        codec: makes the payloads.
        coder: reads the answers; None: the server keeps the results.
        own: makes the payloads in the codec's place, at the cut ``output``: answers for the server.

    Attributes:
        began: start of each payload (``time.perf_counter``), the oldest first.
        times: what each sample took.
    """

    def __init__(self, cut: Cut, codec: Codec, coder: AnswerCoder | None, own: AnswerCoder | None = None) -> None:
        self.cut, self.codec, self.coder, self.own = cut, codec, coder, own
        self.began: deque[float] = deque()
        self.times = EdgeTimes()
        self._local: deque[Tensor | None] = deque()

    def fresh(self) -> "EdgeEnd":
        """An end like this one that has seen no sample."""
        return EdgeEnd(self.cut, self.codec, self.coder, self.own)

    def plan(self, weights: str, granularity: str, precision: str) -> Plan:
        """What this end must agree on with the server; the arguments are described in ``Plan``."""
        codec = codec_label(self.codec) if self.own is None else self.own.name
        answer = "" if self.coder is None else self.coder.name
        return Plan(self.cut.fingerprint, weights, self.cut.point.name, granularity, precision, codec, answer)

    @torch.inference_mode()
    def payload(self, x: Any) -> bytes:
        """The payload for one sample ``(1, *input_shape)``."""
        began = time.perf_counter()
        z = call(self.cut.head, x)
        made = time.perf_counter()
        payload = self.codec.payload(z) if self.own is None else self.own.encode(self.cut.tail(*z))
        self._local.append(self.codec.local_output(z) if self.own is None else None)
        self.began.append(began)
        self.times.head_s.append(made - began)
        self.times.encode_s.append(time.perf_counter() - made)
        return payload

    @functools.cached_property
    def _nothing(self) -> Any:
        """The result of a lost frame, as in a simulated run: zeros."""
        output = self.cut.tail(*self.cut.head(*self.cut.example))
        return mapped(lambda tensor: torch.zeros_like(plain(tensor)), output)

    @torch.inference_mode()
    def result(self, answer: Answer) -> Any:
        """The result of the oldest payload without a result, as an output ``(1, *output_shape)``; None: on the server.

        A codec with local outputs combines the local output and the answer; if the frame was lost on its way, the
        result is the local output alone. Any other codec's lost frame gives zeros. Raises PayloadError.
        """
        began = time.perf_counter()
        local = self._local.popleft()
        result = None
        if self.coder is not None and answer.is_lost and local is None:
            result = self._nothing
        elif self.coder is not None and not answer.is_lost and (answer.payload or local is None):
            result = self.coder.as_output(self.coder.decode(contiguous(answer.payload)))
        if local is not None:
            result = self.codec.combine(local, result)
        self.times.answer_decode_s.append(time.perf_counter() - began)
        return result
