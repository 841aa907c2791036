"""Messages of split training: requests to the tail and its replies, as bytes around payloads of the wire format.

Request: ``kind head_norm offset size payload labels``; reply to a step: ``loss tail_norm payload``. Numbers are doubles
and varints, little-endian.
"""

import math
import struct
from enum import IntEnum
from typing import NamedTuple

from torch import Tensor

from splitsem.codecs import wire
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import PayloadError
from splitsem_device.fields import Payload

_DOUBLE = struct.Struct("<d")
_MAX_BYTES = 1 << 62


class Kind(IntEnum):
    """What is asked of the tail. Append only."""

    STEP = 1  # features and labels: forward, loss, backward
    EVALUATE = 2  # features: the output in eval mode, in the wire format
    KEEP = 3  # remember the present weights as the best weights
    WEIGHTS = 4  # the weights kept last (else the present weights), from a byte offset on
    CLOSE = 5  # forget the session
    COMMIT = 6  # commit the trained tail to the group's common tail
    END_ROUND = 7  # end the group's round; the session gets the common tail
    DISBAND = 8  # forget the group's common tail


class Request(NamedTuple):
    """What the edge asks of its tail.

    Attributes:
        kind: what is asked.
        head_norm: norm of the head's gradients in the previous step, by which the tail completes that step.
        payload: the features in any codec's wire format; empty for requests without features.
        labels: of these features, in the wire format of Identity; only for a step.
        offset: first wanted byte of the weights.
    """

    kind: Kind
    head_norm: float = 0.0
    payload: bytes | memoryview = b""
    labels: bytes | memoryview = b""
    offset: int = 0

    def to_bytes(self) -> bytes:
        """The request as bytes."""
        front = bytes((self.kind,)) + _DOUBLE.pack(self.head_norm)
        sizes = wire.varint(self.offset) + wire.varint(len(self.payload))
        return b"".join((front, sizes, self.payload, self.labels))

    @classmethod
    def from_bytes(cls, message: bytes | memoryview) -> "Request":
        """Read a request; payload and labels are views of it. Raises PayloadError."""
        reader = wire.Reader(message)
        kind = reader.byte("kind of request")
        if kind not in set(Kind):
            raise PayloadError(f"expected a request of kind {min(Kind)}…{max(Kind)}, got {kind}")
        (head_norm,) = _DOUBLE.unpack(reader.take(_DOUBLE.size, "norm"))
        offset = reader.varint("offset", _MAX_BYTES)
        payload = reader.take(reader.varint("payload size", _MAX_BYTES), "payload")
        return cls(Kind(kind), head_norm, payload, reader.rest(), offset)


class StepReply(NamedTuple):
    """What the tail made of a step.

    Attributes:
        loss: of the task.
        tail_norm: norm of the tail's gradients.
        gradients: of the floating-point crossing tensors, in the gradient codec's wire format; empty when the head has
            nothing to train.
    """

    loss: float
    tail_norm: float
    gradients: bytes | memoryview

    def to_bytes(self) -> bytes:
        """The reply as bytes."""
        return b"".join((_DOUBLE.pack(self.loss), _DOUBLE.pack(self.tail_norm), self.gradients))

    @classmethod
    def from_bytes(cls, message: bytes | memoryview) -> "StepReply":
        """Read a reply; the gradients are a view of it. Raises PayloadError."""
        reader = wire.Reader(message)
        loss, tail_norm = (_DOUBLE.unpack(reader.take(_DOUBLE.size, what))[0] for what in ("loss", "norm"))
        return cls(loss, tail_norm, reader.rest())


_HEADER_BYTES = 256  # of a payload of one tensor, at most


def one_tensor(payload: Payload, what: str, most_bytes: float = math.inf) -> Tensor:
    """The only tensor, of at most ``most_bytes``, of a payload of Identity. Raises PayloadError, which names it."""
    if len(payload) > most_bytes + _HEADER_BYTES:
        raise PayloadError(f"expected {what} of at most {most_bytes} bytes, got {len(payload)}")
    tensors = Identity().decode(payload)  # type: ignore[arg-type]
    if len(tensors) != 1:
        raise PayloadError(f"expected one tensor of {what}, got {len(tensors)}")
    return tensors[0]
