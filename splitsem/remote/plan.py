"""A Plan is what the edge and the server agree on before the first frame, a TrainingPlan before the first step."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import msgspec
from torch import nn

from splitsem.codecs import wire
from splitsem.codecs.codec import Codec
from splitsem.codecs.tensorwise import TensorwiseCodec
from splitsem.errors import ConfigError
from splitsem.json_files import decode
from splitsem.remote.peer_text import shown
from splitsem.tasks.task import Task
from splitsem.training.optimiser import OptimiserSettings

PROTOCOL_VERSION = 2
MAX_PROBE_BYTES = 64 << 20
MAX_PLAN_BYTES = 16 << 10
MAX_FIELD_CHARS = 1024
_PROBE = "@probe/"


@dataclass(frozen=True)
class Plan:
    """What both ends must agree on before the first frame.

    Attributes:
        fingerprint: of the graph, see ``CutGraph.fingerprint``.
        weights: digest of the weights' values, see ``weights_digest``.
        point: name of the split point.
        granularity: which points are offered: ``layer`` or ``op``.
        precision: dtype of the network: ``float32``, ``bfloat16``, ``float16``.
        codec: what makes the payloads: the label of a codec, see ``codec_label``, or, at the point ``output``, the name
            of a coder of answers.
        answer: name of the coder that makes the answers; empty where the server keeps the results.
        wire_version: version of the payload format.
        protocol_version: version of this contract.
    """

    fingerprint: str
    weights: str
    point: str
    granularity: str
    precision: str
    codec: str
    answer: str = ""
    wire_version: int = wire.VERSION
    protocol_version: int = PROTOCOL_VERSION

    def probe(self, answer_bytes: int) -> "Plan":
        """The plan of probes: frames that travel like all frames and get ``answer_bytes`` zeros without a computation.

        A probe takes the time of the link and of the software at both ends, for frames of any size.
        """
        return replace(self, point=f"{_PROBE}{answer_bytes}")

    @classmethod
    def of_probes(cls, answer_bytes: int) -> Self:
        """The plan of probes from an edge without a network; nothing is computed, so the networks need not agree."""
        return cls("", "", f"{_PROBE}{answer_bytes}", "", "", "")

    @property
    def is_of_probes(self) -> bool:
        """Whether the frames are probes, which nobody reads."""
        return self.point.startswith(_PROBE)

    @property
    def is_without_network(self) -> bool:
        """Whether the plan is one of ``of_probes``."""
        return self.is_of_probes and not self.fingerprint

    def probe_bytes(self) -> int | None:
        """Size of the answers to probes; None for a plan of real frames. Raises ConfigError beyond the limit."""
        return probe_bytes(self.point)

    def to_json(self) -> str:
        """The plan as one line of JSON; equal plans give equal lines."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what ``to_json`` wrote. Raises ConfigError unless the text has exactly a plan's fields.

        A plan has at most ``MAX_PLAN_BYTES``, and each of its texts at most ``MAX_FIELD_CHARS`` printable characters.
        """
        expected = [field.name for field in fields(cls)]
        try:
            if len(text) > MAX_PLAN_BYTES:
                raise ValueError(f"it has {len(text)} bytes, a plan at most {MAX_PLAN_BYTES}")
            facts = decode(text, dict[str, Any])
            if facts.keys() != set(expected):
                raise ValueError(f"it must have {', '.join(expected)}: do both ends run the same splitsem?")
            for name, value in facts.items():
                if isinstance(value, str) and not (len(value) <= MAX_FIELD_CHARS and value.isprintable()):
                    raise ValueError(f"{name} must be at most {MAX_FIELD_CHARS} printable characters")
            return msgspec.convert(facts, cls)
        except ValueError as exc:
            raise ConfigError(f"expected a plan as JSON, got something else: {shown(exc)}") from exc


def probe_bytes(point: str) -> int | None:
    """Size of the answers to probes at this "point"; None for a point of a network. Raises ConfigError."""
    if not point.startswith(_PROBE):
        return None
    text = point.removeprefix(_PROBE)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MAX_PROBE_BYTES):
        raise ConfigError(f"expected probes answered by 0…{MAX_PROBE_BYTES} bytes, got {shown(text, 32)!r}")
    return int(text)


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and values of all parameters and buffers; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(wire.raw_body(tensor))
    return digest.hexdigest()[:16]


def codec_label(codec: Codec) -> str:
    """The codec's name, with a digest of its weights if any; ends with equal labels can read each other's payloads."""
    name = codec.name
    return f"{name}:{weights_digest(codec)}" if codec.state_dict() else name


def builtin_decoders() -> tuple[TensorwiseCodec, ...]:
    """A fresh decoder of every codec in this package; the call imports Pillow."""
    from splitsem.codecs.fixed_length import FixedLength
    from splitsem.codecs.picture import Jpeg, Pixels, Png, Webp
    from splitsem.codecs.quantise import Quantise
    from splitsem.codecs.tensorwise import HalfPrecision, Identity
    from splitsem.codecs.topk import TopK

    return Identity(), HalfPrecision(), Quantise(), TopK(), Jpeg(), Webp(), Png(), Pixels(), FixedLength()


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Plan):
    """A Plan of split training: ``weights`` are those at the start, and further fields say how both halves train.

    Attributes:
        training_fingerprint: of the network as captured in train mode.
        task: name of the task's class; the server computes the task's loss.
        learning_rate, weight_decay, gradient_clip_norm, total_steps: see ``OptimiserSettings``.
        seed: of the random numbers (dropout) that the halves draw.
        gradient_codec: class name of the built-in codec that carries the gradients back.
        gradient_settings: its constructor's arguments as a JSON object.
        constant_rate: see ``OptimiserSettings``.
        group: name of the clients that train one common tail, see ``CommonTail``; empty: this client has its own tail.
        is_averaged: how clients' tails become the common tail, see ``CommonTail``.
        num_samples: number of the client's samples, its weight in a mean; 0 for a client that does not train.
    """

    training_fingerprint: str
    task: str
    learning_rate: float
    weight_decay: float
    gradient_clip_norm: float
    total_steps: int
    seed: int
    gradient_codec: str = "Identity"
    gradient_settings: str = "{}"
    constant_rate: bool = False
    group: str = ""
    is_averaged: bool = False
    num_samples: int = 0

    def __post_init__(self) -> None:
        try:
            self.optimiser()
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc

    def optimiser(self) -> OptimiserSettings:
        """The optimiser's settings, equal on both sides."""
        return OptimiserSettings(
            self.learning_rate, self.weight_decay, self.gradient_clip_norm, self.total_steps, self.constant_rate
        )

    def make_gradient_codec(self) -> Codec:
        """The codec of the gradients, always one of this package, never any class that the other end names.

        Raises ConfigError when the package has no codec of this name, or the settings make no sense.
        """
        kinds = {type(codec).__name__: type(codec) for codec in builtin_decoders()}
        if self.gradient_codec not in kinds:
            raise ConfigError(f"gradients travel by one of {', '.join(kinds)}, got {shown(self.gradient_codec)!r}")
        try:
            return kinds[self.gradient_codec](**json.loads(self.gradient_settings))
        except (TypeError, ValueError, RecursionError) as exc:
            settings = shown(self.gradient_settings)
            raise ConfigError(f"gradient codec {self.gradient_codec} with {settings}: {shown(exc)}") from exc


def task_name(task: Task) -> str:
    """The name of the task's class, by which both ends compare tasks."""
    return f"{type(task).__module__}.{type(task).__qualname__}"
