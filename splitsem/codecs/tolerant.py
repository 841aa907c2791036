"""The tolerant wire format: a checked header, then bodies that bear wrong bits (docs/decisions/wire-format.md).

``magic version codec count (dtype|ndim dims… settings-size settings body-size)… crc16 | body…``: everything that a
decoder must know exactly stands in the header, whose length is ``header_bytes(payload)``: what
``Codec.protected_bytes`` returns. A wrong bit in a body damages the symbols that it belongs to and nothing else, so
bodies hold symbols of fixed length. Version and codec stand at the same place as in ``codecs.wire``.
"""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch

from splitsem.codecs import wire
from splitsem.codecs.expected import Head
from splitsem.errors import PayloadError
from splitsem_device.fields import TOLERANT_CRC_BYTES as _CRC_BYTES
from splitsem_device.fields import TOLERANT_MAGIC as MAGIC
from splitsem_device.fields import Field, header_checksum, join_tolerant

_FIXED_BYTES = 4  # magic, version, codec


class TolerantPart(NamedTuple):
    """One tensor of a tolerant payload.

    Attributes:
        dtype: the tensor's dtype.
        shape: the tensor's shape; a codec whose weights imply that shape may give the shape of its code instead.
        settings: what must arrive exactly (scales; tensors of integers as a whole); checked and protected.
        body: symbols of fixed length, in which wrong bits do limited harm.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    settings: bytes | memoryview
    body: bytes | memoryview


def pack(codec_id: int, parts: Sequence[TolerantPart]) -> bytes:
    """Frame coded tensors as one payload that bears bit errors behind its header.

    A 4-d tensor costs 13 to 20 bytes of header beside its settings.

    Raises:
        ValueError: for a dtype or shape that cannot cross, or more than 1,024 elements for a byte of settings and body.
    """
    wire.check_count(len(parts))
    if (total := sum(math.prod(part.shape) for part in parts)) > wire.MAX_ELEMENTS:
        raise ValueError(f"a payload carries at most {wire.MAX_ELEMENTS} elements, got {total}")
    fields = []
    for dtype, shape, settings, body in parts:
        if len(settings) + len(body) < wire.least_body_bytes(math.prod(shape)):
            raise ValueError(
                f"a payload needs a byte for each {wire.ELEMENTS_PER_BYTE} elements, got shape {shape} in "
                f"{len(settings) + len(body)}: give the shape of the code instead"
            )
        fields.append(Field(wire.tensor_head(dtype, shape), math.prod(shape), body, settings))
    return join_tolerant(codec_id, fields)


def unpack(
    payload: bytes | memoryview,
    codec_id: int,
    num_tensors: int | None = None,
    check: wire.CheckHeads | None = None,
) -> list[TolerantPart]:
    """Check a payload's header and its length, and take it apart; the bodies are as they arrived. See ``wire.unpack``.

    Raises:
        PayloadError: when the header is damaged or of another codec, or bytes are missing or left over.
    """
    header, sizes, parts = _read_header(payload, num_tensors, check)
    wire.check_sender(payload, codec_id)
    reader = wire.Reader(memoryview(payload)[header:])
    whole = [part._replace(body=reader.take(size, "body")) for part, size in zip(parts, sizes, strict=True)]
    reader.finish()
    return whole


def header_bytes(payload: bytes | memoryview) -> int:
    """How many leading bytes must arrive undamaged. Raises PayloadError when they did not."""
    return _read_header(payload)[0]


def _read_header(
    payload: bytes | memoryview, num_tensors: int | None = None, check: wire.CheckHeads | None = None
) -> tuple[int, list[int], list[TolerantPart]]:
    """The header's length, the bodies' sizes, and the parts without their bodies."""
    if len(payload) < _FIXED_BYTES + 1 + _CRC_BYTES:
        raise PayloadError(f"expected a payload of at least {_FIXED_BYTES + 1 + _CRC_BYTES} bytes, got {len(payload)}")
    wire.check_magic(payload, MAGIC)
    view = memoryview(payload)
    reader = wire.Reader(view[_FIXED_BYTES:])
    left = wire.MAX_ELEMENTS
    parts, sizes = [], []
    for _ in range(wire.read_count(reader, num_tensors)):
        dtype, shape = wire.read_tensor_head(reader, left)
        left -= math.prod(shape)
        settings = reader.take(reader.varint("settings size", sys.maxsize), "settings")
        sizes.append(reader.varint("body size", sys.maxsize))
        if len(settings) + sizes[-1] < wire.least_body_bytes(math.prod(shape)):
            raise PayloadError(f"expected more than {len(settings) + sizes[-1]} bytes for shape {shape}")
        parts.append(TolerantPart(dtype, shape, settings, b""))
    if check is not None:
        check([Head(p.dtype, p.shape, len(p.settings) + size) for p, size in zip(parts, sizes, strict=True)])
    content = view[: _FIXED_BYTES + reader.position]
    if (got := bytes(reader.take(_CRC_BYTES, "checksum"))) != (expected := header_checksum(content)):
        raise PayloadError(f"expected a header with checksum {expected.hex()}, got {got.hex()}: it is damaged")
    return len(content) + _CRC_BYTES, sizes, parts
