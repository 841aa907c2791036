"""The wire format: one versioned, self-describing payload for all tensors of a cut (docs/decisions/wire-format.md).

``magic version codec count (dtype|ndim dims… size body padding)… crc32``; numbers are LEB128 varints or little-endian.
Nothing is allocated that the received bytes do not justify: a payload holds at most ``MAX_ELEMENTS`` elements, and a
tensor at most ``ELEMENTS_PER_BYTE`` elements for each byte of its body, which the writer pads where coding is denser.
"""

import math
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor
from zlib_ng import zlib_ng  # the checksum of zlib, an order of magnitude faster

from splitsem.codecs.pieces import Payload, Pieces
from splitsem.errors import PayloadError

MAGIC = b"sS"
VERSION = 1
MAX_ELEMENTS = 1 << 28
ELEMENTS_PER_BYTE = 1024
MAX_DIMS = 15
_CRC_BYTES = 4
# position = code on the wire; append only
_DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.bool,
)


class CodecId(IntEnum):
    """Who can read a payload. Append only; codecs outside this package take 128…255."""

    IDENTITY = 1
    HALF_PRECISION = 2
    QUANTISE = 3
    TOP_K = 4
    JPEG = 5
    WEBP = 6
    FIXED_LENGTH = 7


class Part(NamedTuple):
    """One tensor of a payload: its dtype, its shape and its codec's bytes; a writable view is of memory of its own."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    body: bytes | memoryview

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class Reader:
    """Takes fields off the front of received bytes, from ``start`` up to ``end``; every shortage is a PayloadError."""

    def __init__(self, data: Payload, start: int = 0, end: int | None = None) -> None:
        self._data = data if isinstance(data, Pieces) else memoryview(data).toreadonly()
        self._start = self._pos = start
        self._end = len(data) if end is None else end

    def take(self, size: int, what: str) -> memoryview:
        """The next ``size`` bytes: read-only, or a writable copy where they lie in several pieces."""
        if size > self._end - self._pos:
            raise PayloadError(f"expected {size} bytes of {what}, got {self._end - self._pos}")
        self._pos += size
        return self._data[self._pos - size : self._pos]

    def byte(self, what: str) -> int:
        """The next byte as a number."""
        return self.take(1, what)[0]

    def varint(self, what: str, most: int) -> int:
        """The next varint, at most ``most``."""
        value = shift = 0
        while True:
            octet = self.byte(what)
            value |= (octet & 0x7F) << shift
            if value > most or shift > 63:
                raise PayloadError(f"expected {what} of at most {most}, got {value} or more")
            if octet < 0x80:
                return value
            shift += 7

    @property
    def position(self) -> int:
        """How many bytes were taken."""
        return self._pos - self._start

    def rest(self) -> memoryview:
        """Everything that is left."""
        return self.take(self._end - self._pos, "rest")

    def finish(self) -> None:
        """Raise unless everything was read."""
        if self._pos != self._end:
            raise PayloadError(f"expected {self._pos} bytes, got {self._end}")


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first, the top bit set on all but the last."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack(codec_id: int, parts: Sequence[Part]) -> bytes:
    """Frame coded tensors as one payload.

    Raises:
        ValueError: for a dtype or a shape that cannot cross (complex, empty, more than 15 dimensions, too large).
    """
    if (total := sum(part.numel for part in parts)) > MAX_ELEMENTS:
        raise ValueError(f"a payload carries at most {MAX_ELEMENTS} elements, got {total}")
    fields: list[bytes | memoryview] = [MAGIC, bytes((VERSION, codec_id)), varint(len(parts))]
    for dtype, shape, body in parts:
        padding = least_body_bytes(math.prod(shape)) - len(body)
        fields.append(tensor_head(dtype, shape))
        fields.extend((varint(len(body)), body, bytes(max(padding, 0))))
    crc = 0
    for piece in fields:  # not over the joined bytes: that would copy a large body once more
        crc = zlib_ng.crc32(piece, crc)
    return b"".join((*fields, crc.to_bytes(_CRC_BYTES, "little")))


def unpack(payload: Payload, codec_id: int) -> list[Part]:
    """Check a payload and take it apart.

    Raises:
        PayloadError: when it is not a whole, undamaged payload of this codec.
    """
    shortest = len(MAGIC) + 3 + _CRC_BYTES
    if len(payload) < shortest:
        raise PayloadError(f"expected a payload of at least {shortest} bytes, got {len(payload)}")
    end = len(payload) - _CRC_BYTES
    check_magic(payload, MAGIC)
    expected, crc = int.from_bytes(payload[end:], "little"), _checksum(payload, end)
    if crc != expected:
        raise PayloadError(f"expected checksum {expected:08x}, got {crc:08x}: the payload is damaged or truncated")
    check_sender(payload, codec_id)
    reader = Reader(payload, start=4, end=end)
    parts = []
    left = MAX_ELEMENTS
    for _ in range(reader.varint("tensor count", len(payload))):
        parts.append(_read_part(reader, left))
        left -= parts[-1].numel
    reader.finish()
    return parts


def tensor_head(dtype: torch.dtype, shape: tuple[int, ...]) -> bytes:
    """The fields that say a tensor's dtype and shape. Raises ValueError for what cannot cross."""
    if dtype not in _DTYPES:
        raise ValueError(f"crossing tensors must be real numbers or bool, got {dtype}")
    if len(shape) > MAX_DIMS or 0 in shape:
        raise ValueError(f"crossing tensors have 0…{MAX_DIMS} dimensions and no empty one, got shape {shape}")
    return bytes((_DTYPES.index(dtype) << 4 | len(shape),)) + b"".join(map(varint, shape))


def read_tensor_head(reader: Reader, left: int) -> tuple[torch.dtype, tuple[int, ...]]:
    """Undo ``tensor_head``. Raises PayloadError when the tensor has more than ``left`` elements."""
    tag = reader.byte("dtype and dimensions")
    if tag >> 4 >= len(_DTYPES):
        raise PayloadError(f"expected a dtype code below {len(_DTYPES)}, got {tag >> 4}")
    shape = tuple(reader.varint("dimension", MAX_ELEMENTS) for _ in range(tag & 15))
    if not 0 < math.prod(shape) <= left:
        raise PayloadError(f"expected shapes of 1…{left} elements, got {shape}")
    return _DTYPES[tag >> 4], shape


def check_magic(payload: Payload, magic: bytes) -> None:
    """Raise PayloadError unless the payload starts with ``magic``."""
    if (got := bytes(payload[: len(magic)])) != magic:
        raise PayloadError(f"expected a splitsem payload that starts with {magic!r}, got {got!r}")


def check_sender(payload: Payload, codec_id: int) -> None:
    """Raise PayloadError unless version and codec, the third and fourth byte, are ours."""
    if (version := payload[2]) != VERSION:
        raise PayloadError(f"expected wire format version {VERSION}, got {version}")
    if (sender := payload[3]) != codec_id:
        raise PayloadError(f"expected a payload of codec {_name(codec_id)}, got one of codec {_name(sender)}")


def raw_body(z: Tensor) -> memoryview:
    """The elements as they lie in memory, row-major, little-endian; a view of them where they lie so already."""
    octets = z.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return _swap(octets, z.element_size()).numpy().data


def tensor_from_raw(part: Part) -> Tensor:
    """Undo ``raw_body``.

    Raises:
        PayloadError: when the body's size does not fit the shape, or a bool is neither 0 nor 1.
    """
    expected = part.numel * part.dtype.itemsize
    if len(part.body) != expected:
        raise PayloadError(f"expected {expected} bytes for {part.dtype} {part.shape}, got {len(part.body)}")
    is_own = isinstance(part.body, memoryview) and not part.body.readonly
    body = part.body if is_own else bytearray(part.body)
    octets = torch.frombuffer(body, dtype=torch.uint8)
    if part.dtype is torch.bool and int(octets.max()) > 1:
        raise PayloadError(f"expected bools of 0 or 1, got {int(octets.max())}")
    return _swap(octets, part.dtype.itemsize).view(part.dtype).reshape(part.shape)


def _swap(octets: Tensor, item_bytes: int) -> Tensor:
    return octets if sys.byteorder == "little" else octets.reshape(-1, item_bytes).flip(1).reshape(-1)


def _read_part(reader: Reader, left: int) -> Part:
    dtype, shape = read_tensor_head(reader, left)
    size = reader.varint("body size", sys.maxsize)
    body = reader.take(size, "body")
    padding = reader.take(max(least_body_bytes(math.prod(shape)) - size, 0), f"padding (shape {shape} needs it)")
    if any(padding):
        raise PayloadError("expected padding of zeros, got something else")
    return Part(dtype, shape, body)


def _checksum(payload: Payload, end: int) -> int:
    crc = 0
    for view in payload.views(0, end) if isinstance(payload, Pieces) else (memoryview(payload)[:end],):
        crc = zlib_ng.crc32(view, crc)
    return crc


def least_body_bytes(numel: int) -> int:
    """The fewest bytes that justify so many elements."""
    return -(-numel // ELEMENTS_PER_BYTE)


def _name(codec_id: int) -> str:
    known = codec_id in set(CodecId)
    return f"{CodecId(codec_id).name.lower()} ({codec_id})" if known else f"number {codec_id}"
