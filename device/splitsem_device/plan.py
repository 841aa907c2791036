"""A Plan is what the edge and the server agree on before the first frame."""

import json
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from typing import Any, NamedTuple, Self

from splitsem_device.errors import ConfigError
from splitsem_device.fields import VERSION as WIRE_VERSION
from splitsem_device.peer_text import shown

PROTOCOL_VERSION = 2
MAX_PROBE_BYTES = 64 << 20
MAX_PLAN_BYTES = 16 << 10
MAX_FIELD_CHARS = 1024
FUNCTION_RAISED = "the function raised "  # begins what a server says of its function's exception
_PROBE, _FUNCTION = "@probe/", "@function"


class Hop(NamedTuple):
    """A cut behind the first one, in a chain of more than two machines.

    Attributes:
        point: name of the split point at which the next machine takes over.
        codec: what makes the payloads there, by the name that the machine before it knows it by; empty: the payload
            that came is passed on unread, which only fits the point that it came at.
    """

    point: str
    codec: str = ""


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
        onward: the further cuts of a chain of machines, the nearest first; empty: the server computes to the end.
    """

    fingerprint: str
    weights: str
    point: str
    granularity: str
    precision: str
    codec: str
    answer: str = ""
    wire_version: int = WIRE_VERSION
    protocol_version: int = PROTOCOL_VERSION
    onward: tuple[Hop, ...] = ()

    def probe(self, answer_bytes: int) -> "Plan":
        """The plan of probes: frames that travel like all frames and get ``answer_bytes`` zeros without a computation.

        A probe takes the time of the link and of the software at both ends, for frames of any size.
        """
        return replace(self, point=f"{_PROBE}{answer_bytes}", onward=())

    @classmethod
    def of_probes(cls, answer_bytes: int) -> Self:
        """The plan of probes from an edge without a network; nothing is computed, so the networks need not agree."""
        return cls("", "", f"{_PROBE}{answer_bytes}", "", "", "")

    @classmethod
    def of_function(cls, codec: str) -> Self:
        """The plan of calls of a server's function; ``codec`` names what carries arguments and results."""
        return cls("", "", _FUNCTION, "", "", codec, codec)

    @property
    def is_of_function(self) -> bool:
        """Whether a function is called, and no network's tail."""
        return self.point == _FUNCTION

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
        """The plan as one line of JSON; equal plans give equal lines. Without further cuts it does not name them."""
        facts = asdict(self)
        if not self.onward:
            del facts["onward"]
        return json.dumps(facts, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what ``to_json`` wrote. Raises ConfigError unless the text has exactly a plan's fields.

        A plan has at most ``MAX_PLAN_BYTES``, and each of its texts at most ``MAX_FIELD_CHARS`` printable characters.
        """
        kinds = {field.name: field.type for field in fields(cls)}
        try:
            if len(text) > MAX_PLAN_BYTES:
                raise ValueError(f"it has {len(text)} bytes, a plan at most {MAX_PLAN_BYTES}")
            facts = json.loads(text, object_pairs_hook=_once)
            if not isinstance(facts, dict) or facts.keys() | {"onward"} != kinds.keys():
                raise ValueError(f"it must have {', '.join(kinds)}: do both ends run the same splitsem?")
            hops = _checked("onward", facts.pop("onward", []), list)
            plain = {name: _checked(name, value, kinds[name]) for name, value in facts.items()}
            return cls(**plain, onward=tuple(map(_hop, hops)))
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"expected a plan as JSON, got something else: {shown(exc)}") from exc


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. Raises ValueError where a name stands twice."""
    facts = dict(pairs)
    if len(facts) != len(pairs):
        raise ValueError("a name stands twice in it")
    return facts


def _hop(value: Any) -> Hop:
    """A further cut as it stands in JSON. Raises ValueError."""
    if not (isinstance(value, list) and len(value) == len(Hop._fields)):
        raise ValueError(f"onward must list pairs of {' and '.join(Hop._fields)}")
    return Hop(*(_checked(f"onward {name}", each, str) for name, each in zip(Hop._fields, value, strict=True)))


def _checked(name: str, value: Any, kind: Any) -> Any:
    """The value of a field of this type. Raises ValueError."""
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{name} must be {kind.__name__}, got {type(value).__name__}")
    if kind is str and not (len(value) <= MAX_FIELD_CHARS and value.isprintable()):
        raise ValueError(f"{name} must be at most {MAX_FIELD_CHARS} printable characters")
    if kind is float and not isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return value


def probe_bytes(point: str) -> int | None:
    """Size of the answers to probes at this "point"; None for a point of a network. Raises ConfigError."""
    if not point.startswith(_PROBE):
        return None
    text = point.removeprefix(_PROBE)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MAX_PROBE_BYTES):
        raise ConfigError(f"expected probes answered by 0…{MAX_PROBE_BYTES} bytes, got {shown(text, 32)!r}")
    return int(text)
