"""The remote tail without a network: what both ends agree on, what comes back, and what the server does with a frame.

A transport carries bytes between a ``RemoteTail`` on the device and a ``TailEngine`` on the server, and nothing else.
"""

import hashlib
import json
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from splitsem.codecs import wire
from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.decoders import builtin_decoders
from splitsem.codecs.identity import Identity
from splitsem.errors import ConfigError, PayloadError, SessionError
from splitsem.split.graph import SplitGraph
from splitsem.split.point import SplitPoint
from splitsem.transport.batching import Batcher

PROTOCOL_VERSION = 1


@dataclass(frozen=True)
class Plan:
    """What both ends must agree on before the first frame.

    Attributes:
        fingerprint: the graph's, see ``SplitGraph.fingerprint``.
        weights: digest of the weights' values, see ``weights_digest``.
        point: name of the split point.
        granularity: which points are offered: ``layer`` or ``op``.
        precision: dtype of the network: ``float32``, ``bfloat16``, ``float16``.
        codec: label of the codec that makes the payloads, see ``codec_label``.
        wire_version: version of the payload format.
        protocol_version: version of this contract.
    """

    fingerprint: str
    weights: str
    point: str
    granularity: str
    precision: str
    codec: str
    wire_version: int = wire.VERSION
    protocol_version: int = PROTOCOL_VERSION

    def to_json(self) -> str:
        """The plan as one line of JSON; equal plans give equal lines."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Plan":
        """Read what ``to_json`` wrote. Raises ConfigError unless it is exactly a plan's fields."""
        try:
            facts = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"expected a plan as JSON, got something else: {exc}") from exc
        expected = {f.name: f.type for f in fields(cls)}
        if not isinstance(facts, dict) or facts.keys() != expected.keys():
            raise ConfigError(f"expected a plan with {', '.join(expected)}: do both ends run the same splitsem?")
        for name, type_ in expected.items():
            if type(facts[name]) is not type_:
                raise ConfigError(f"expected {name} of the plan to be {type_.__name__}, got {facts[name]!r}")  # type: ignore[union-attr]
        return cls(**facts)


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
    payload: bytes | memoryview
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


class RemoteTail(ABC):
    """The device's end. Errors are ConfigError (no agreement), PayloadError (a bad frame) and LinkError (a dead link).

    Attributes:
        counters: what happened so far.
    """

    counters: Counters

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


class RemoteTransport(ABC):
    """What a remote option of the config group ``transport`` makes: one way to carry frames, with its two ends."""

    @abstractmethod
    def device_end(self) -> RemoteTail:
        """The end that sends frames; nothing is connected yet."""

    @abstractmethod
    def server_end(self, engine: "TailEngine") -> TailServer:
        """The end that answers them from ``engine``; nothing is bound yet."""


class _Session(NamedTuple):
    point: SplitPoint
    tail: Callable[..., Tensor]


class TailEngine:
    """The server's side: agrees on plans, keeps the tails they need, and answers payloads. Safe to call from threads.

    Args:
        graph: the network that the server holds.
        weights: ``weights_digest`` of its model.
        granularity: the graph's.
        precision: the network's.
        codecs: decoders beyond the built-in ones, each with a ``codec_id`` of its own (128…255).
        max_sessions: tails kept; the one unused for longest makes room, and its users open their plan again.
        max_batch: samples in one payload.
        micro_batch: samples of several devices' frames that may run together, see ``Batcher``; 1 runs each by itself.
    """

    def __init__(
        self,
        graph: SplitGraph,
        weights: str,
        granularity: str = "layer",
        precision: str = "float32",
        codecs: Sequence[Codec] = (),
        max_sessions: int = 64,
        max_batch: int = 256,
        micro_batch: int = 1,
    ) -> None:
        if min(max_sessions, max_batch, micro_batch) < 1:
            raise ValueError(
                "max_sessions, max_batch and micro_batch must be at least 1, "
                f"got {max_sessions}, {max_batch} and {micro_batch}"
            )
        self.graph = graph
        self.offer = Plan(graph.fingerprint, weights, "", granularity, precision, "")
        self.device = graph.cut("output").example.device
        self.max_sessions, self.max_batch, self.micro_batch = max_sessions, max_batch, micro_batch
        self._decoders = {int(codec.codec_id): codec for codec in (*builtin_decoders(), *codecs)}  # type: ignore[arg-type]
        self.codec_labels = tuple(codec_label(codec) for codec in self._decoders.values())
        self._identity = Identity()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._lock = threading.Lock()
        self.num_answered = 0

    def open(self, plan: Plan) -> str:
        """Agree on a plan, make its tail ready, and return the key of the session that answers its frames.

        Equal plans share a session. Raises ConfigError with one line for each disagreement, SplitPointError when the
        network has no such point.
        """
        lines = self._disagreements(plan)
        if lines:
            raise ConfigError("\n".join(lines))
        point = self.graph.point(plan.point)
        key = hashlib.sha256(plan.to_json().encode()).hexdigest()[:16]
        with self._lock:
            if key not in self._sessions:
                tail = self.graph.cut(point).tail
                is_shared = self.micro_batch > 1 and point.is_batched
                self._sessions[key] = _Session(point, Batcher(tail, self.micro_batch) if is_shared else tail)
                if len(self._sessions) > self.max_sessions:
                    self._sessions.popitem(last=False)
        return key

    def answer(self, session: str, payload: bytes | memoryview) -> tuple[bytes, float]:
        """The tail's output for one payload (wire format, identity codec) and the seconds it took.

        Raises SessionError when the session is not open here, PayloadError when the payload is damaged or does not
        fit the session's split point.
        """
        chosen = self.session(session)
        began = time.perf_counter()
        z_hat = self.decode(payload)
        check_fit(z_hat, chosen.point, self.max_batch)
        with torch.inference_mode():
            output = chosen.tail(*(tensor.to(self.device) for tensor in z_hat))
            answer = self._identity.encode((output,))
        server_s = time.perf_counter() - began
        with self._lock:
            self.num_answered += 1
        return answer, server_s

    def session(self, key: str) -> _Session:
        """The session of this key, marked as just used. Raises SessionError."""
        with self._lock:
            if key not in self._sessions:
                raise SessionError(f"session {key[:32]!r} is not open on this server: open its plan again")
            self._sessions.move_to_end(key)
            return self._sessions[key]

    def decode(self, payload: bytes | memoryview) -> Tensors:
        """The tensors of a payload of any codec known here, found by the number in its header. Raises PayloadError."""
        number = payload[3] if len(payload) > 3 else 0
        decoder = self._decoders.get(number)
        if decoder is None:
            raise PayloadError(f"expected a payload of codec {sorted(self._decoders)}, got codec {number}")
        return decoder.decode(payload)  # type: ignore[arg-type]

    def _disagreements(self, plan: Plan) -> list[str]:
        remedies = {
            "protocol_version": "run the same splitsem on both ends",
            "wire_version": "run the same splitsem on both ends",
            "fingerprint": "give both ends the same model= and task=",
            "weights": "train once, then give both ends the same cache_dir= or trainer.weights=",
            "granularity": "give both ends the same split.granularity=",
            "precision": "give both ends the same device.precision=",
        }
        lines = [
            f"{name}: the server has {getattr(self.offer, name)}, the device {getattr(plan, name)}; {remedy}"
            for name, remedy in remedies.items()
            if getattr(self.offer, name) != getattr(plan, name)
        ]
        if plan.codec not in self.codec_labels:
            lines.append(
                f"codec: the server reads {', '.join(self.codec_labels)}, the device sends {plan.codec}; "
                "start the server with the same codec="
            )
        return lines


def check_fit(z_hat: Tensors, point: SplitPoint, max_batch: int) -> None:
    """Raise PayloadError unless the tensors are what the tail at ``point`` takes."""
    batch = z_hat[0].shape[0] if z_hat and point.is_batched and z_hat[0].dim() else 1
    if batch > max_batch:
        raise PayloadError(f"expected a batch of at most {max_batch} samples, got {batch}")
    expected = [((batch, *t.shape[1:]) if point.is_batched else t.shape, t.dtype) for t in point.tensors]
    got = [(tuple(t.shape), t.dtype) for t in z_hat]
    if got != expected:
        raise PayloadError(f"expected {_describe(expected)} at split point {point.name}, got {_describe(got)}")


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and values of all parameters and buffers; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(wire.raw_body(tensor))
    return digest.hexdigest()[:16]


def codec_label(codec: Codec) -> str:
    """The codec's class, with a digest of its weights when it has any: what two ends must share to read each other."""
    name = type(codec).__name__
    return f"{name}:{weights_digest(codec)}" if codec.state_dict() else name


def _describe(tensors: list[tuple[tuple[int, ...], torch.dtype]]) -> str:
    return " ".join(f"{str(dtype).removeprefix('torch.')}{list(shape)}" for shape, dtype in tensors) or "no tensors"
