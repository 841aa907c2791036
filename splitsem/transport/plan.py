"""Plan: what the device and the server must agree on before the first frame."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Self

from torch import nn

from splitsem.codecs import wire
from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError

PROTOCOL_VERSION = 1
MAX_PROBE_BYTES = 64 << 20
_PROBE = "@probe/"


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

    def probe(self, answer_bytes: int) -> "Plan":
        """The plan of probes: frames that go the way of all frames and are answered, uncomputed, by so many zeros.

        What they take is what the link and the software at both ends take, for frames of any size.
        """
        return replace(self, point=f"{_PROBE}{answer_bytes}")

    @classmethod
    def of_probes(cls, answer_bytes: int) -> Self:
        """As ``probe``, from a device that holds no network: nothing is computed, so no network need agree."""
        return cls("", "", f"{_PROBE}{answer_bytes}", "", "", "")

    @property
    def is_without_network(self) -> bool:
        """Whether it is one of ``of_probes``."""
        return self.point.startswith(_PROBE) and not self.fingerprint

    def probe_bytes(self) -> int | None:
        """Size of the answers to probes; None for a plan of real frames. Raises ConfigError beyond the limit."""
        if not self.point.startswith(_PROBE):
            return None
        text = self.point.removeprefix(_PROBE)
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MAX_PROBE_BYTES):
            raise ConfigError(f"expected probes answered by 0…{MAX_PROBE_BYTES} bytes, got {text[:32]!r}")
        return int(text)

    def to_json(self) -> str:
        """The plan as one line of JSON; equal plans give equal lines."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
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
