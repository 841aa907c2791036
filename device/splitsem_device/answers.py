"""What comes back over a real link, and the edge's end of one: answers, counters and their contract."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from splitsem_device.fields import Payload
from splitsem_device.plan import Plan
from splitsem_device.retry import Backoff, Retry


@dataclass(frozen=True)
class Answer:
    """What the server made of one frame.

    Attributes:
        request_id: number of the frame, from 0.
        payload: the answer's bytes, see ``Plan.answer``; empty as an acknowledgement, and for a frame that was lost.
        server_s: seconds of decoding, tail and encoding the answer; of a probe, which has no such work, the processor
            seconds that the server's process has used so far.
        queue_s: seconds that the frame waited on the server before ``server_s``.
        is_lost: whether the frame or its answer was lost or came too late, over a transport that tolerates that.
    """

    request_id: int
    payload: Payload
    server_s: float
    queue_s: float
    is_lost: bool = False


class Planned(NamedTuple):
    """A payload of one of several plans, for a transport that carries them in one stream."""

    plan: Plan
    payload: bytes


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


class ToMeasure(NamedTuple):
    """What a server is asked to measure of itself.

    Attributes:
        points: split points whose tails are timed; none: all.
        payload: of the open plan, whose answer is timed; empty: none.
        budget_s: seconds of measuring, for each tail and for the answer.
        pause_s: seconds of idleness before each run, as before a frame: a hot loop is faster.
        layers_s: seconds of measuring all layers of the whole network; 0: they are not measured.
    """

    points: Sequence[str] = ()
    payload: bytes = b""
    budget_s: float = 0.3
    pause_s: float = 0.002
    layers_s: float = 0.0


EVERYTHING = ToMeasure()
"""All tails."""


class Profile(NamedTuple):
    """What a server measured of itself.

    Attributes:
        lut_json: times of the server's tails as a latency table, see ``splitsem.cost.lut``.
        answer_s: seconds to answer the given payload: decoding, tail, encoding; 0.0 without a payload.
        layers_json: its layers, see ``splitsem.cost.layer_profile``; empty where they were not asked for, or the server
            is of a version that does not measure them.
        stages_s: of a chain, what ``answer_s`` consists of: seconds of this machine, of the hop behind it (both ways),
            of the next machine, and so on; empty where there is no next machine, or the server is older.
        hops_busy_s: how long this payload and its successors keep each of these hops from the next frame, in order;
            fewer where a server of the chain is older.
        hosts: of this machine and of those behind it, what ``this_machine.host_id`` says; empty texts where one does
            not know, none where a server is older or no payload was given.
    """

    lut_json: str
    answer_s: float
    layers_json: str = ""
    stages_s: tuple[float, ...] = ()
    hops_busy_s: tuple[float, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Info:
    """What a server says of itself.

    Attributes:
        version: of its splitsem.
        device: where it computes, in words.
        points: split points that a plan may name; none where it serves a function.
        codecs: payloads that it reads.
        max_window: the most frames that a stream may have unanswered.
        plan: what a plan must equal, but for point, codec and answer.
    """

    version: str
    device: str
    points: tuple[str, ...]
    codecs: tuple[str, ...]
    max_window: int
    plan: Plan

    def __repr__(self) -> str:
        offers = f"{len(self.points)} split points" if self.points else "a function"
        return f"Info(splitsem {self.version}, {offers} on {self.device}, reads {', '.join(self.codecs)})"


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
        window of 1 nothing overlaps: each payload is made after the answer to its predecessor, over gRPC by the thread
        that asks for the next answer.
        """

    @abstractmethod
    def echo_s(self, num_bytes: int) -> float:
        """Seconds from sending ``num_bytes`` bytes to a short acknowledgement of all bytes; nothing is computed."""

    @abstractmethod
    def profile(self, asked: ToMeasure = EVERYTHING) -> Profile:
        """The server's own times.

        The server bounds the seconds that it is asked to spend, keeps its measurements for later requests, and measures
        only while it answers no frames: LinkError when the server is busy.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection; harmless when there is none."""

    def hurry(self) -> Retry:
        """Raise LinkError at the first failure from now on, where the transport can; returns how patient it was."""
        return Backoff()
