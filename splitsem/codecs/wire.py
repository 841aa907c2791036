"""The wire format: one versioned, self-describing payload for all tensors of a cut (docs/decisions/wire-format.md).

``magic version codec count (dtype|ndim dims… size body padding)… crc32``; numbers are LEB128 varints or little-endian.
Nothing is allocated that the received bytes do not justify: a payload holds at most ``MAX_ELEMENTS`` elements, and a
tensor at most ``ELEMENTS_PER_BYTE`` elements for each byte of its body, which the writer pads where coding is denser.
"""

import math
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from splitsem.codecs.expected import Head
from splitsem.errors import PayloadError
from splitsem_device.fields import CRC_BYTES as _CRC_BYTES
from splitsem_device.fields import ELEMENTS_PER_BYTE as ELEMENTS_PER_BYTE
from splitsem_device.fields import MAGIC as MAGIC
from splitsem_device.fields import VERSION as VERSION
from splitsem_device.fields import Field, Payload, Pieces, crc32, join
from splitsem_device.fields import Reader as Reader
from splitsem_device.fields import least_body_bytes as least_body_bytes
from splitsem_device.fields import varint as varint

MAX_ELEMENTS = 1 << 28
MAX_DIMS = 15
MAX_TENSORS = 1 << 14
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
    """Which codec made a payload. Append only; ``LearnedId`` goes on from 128."""

    IDENTITY = 1
    HALF_PRECISION = 2
    QUANTISE = 3
    TOP_K = 4
    JPEG = 5
    WEBP = 6
    FIXED_LENGTH = 7
    PIXELS = 8
    PNG = 9


class Part(NamedTuple):
    """One tensor of a payload: its dtype, its shape and its codec's bytes; a writable view is of memory of its own."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    body: bytes | memoryview

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def pack(codec_id: int, parts: Sequence[Part]) -> bytes:
    """Frame coded tensors as one payload.

    Raises:
        ValueError: for a dtype or a shape that cannot cross (complex, empty, more than 15 dimensions, too large), or
            more than 16,384 tensors.
    """
    check_count(len(parts))
    if (total := sum(part.numel for part in parts)) > MAX_ELEMENTS:
        raise ValueError(f"a payload carries at most {MAX_ELEMENTS} elements, got {total}")
    return join(codec_id, [Field(tensor_head(part.dtype, part.shape), part.numel, part.body) for part in parts])


CheckHeads = Callable[[Sequence[Head]], None]


def unpack(
    payload: Payload, codec_id: int, num_tensors: int | None = None, check: CheckHeads | None = None
) -> list[Part]:
    """Check a payload and take it apart: its heads first, whatever the payload's size, and the checksum last.

    Args:
        payload: the bytes.
        codec_id: number of the codec that reads them.
        num_tensors: how many tensors must come; None: any number.
        check: raises PayloadError for heads that the receiver does not take.

    Raises:
        PayloadError: when it is not a whole, undamaged payload of this codec.
    """
    shortest = len(MAGIC) + 3 + _CRC_BYTES
    if len(payload) < shortest:
        raise PayloadError(f"expected a payload of at least {shortest} bytes, got {len(payload)}")
    end = len(payload) - _CRC_BYTES
    check_magic(payload, MAGIC)
    check_sender(payload, codec_id)
    reader = Reader(payload, start=4, end=end)
    parts = []
    left = MAX_ELEMENTS
    for _ in range(read_count(reader, num_tensors)):
        parts.append(_read_part(reader, left))
        left -= parts[-1].numel
    reader.finish()
    if check is not None:
        check([Head(part.dtype, part.shape, len(part.body)) for part in parts])
    expected, crc = int.from_bytes(payload[end:], "little"), _checksum(payload, end)
    if crc != expected:
        raise PayloadError(f"expected checksum {expected:08x}, got {crc:08x}: the payload is damaged or truncated")
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


def check_count(num_tensors: int) -> None:
    """Raise ValueError for more tensors than a payload can hold."""
    if num_tensors > MAX_TENSORS:
        raise ValueError(f"a payload carries at most {MAX_TENSORS} tensors, got {num_tensors}")


def read_count(reader: Reader, num_tensors: int | None) -> int:
    """The number of tensors. Raises PayloadError unless it is ``num_tensors``, where that is known."""
    count = reader.varint("tensor count", MAX_TENSORS)
    if num_tensors is not None and count != num_tensors:
        raise PayloadError(f"expected {num_tensors} tensors, got {count}")
    return count


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
    """The elements as they lie in memory, row-major, little-endian; a view where memory holds them so already."""
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
    if padding != bytes(len(padding)):
        raise PayloadError("expected padding of zeros, got something else")
    return Part(dtype, shape, body)


def _checksum(payload: Payload, end: int) -> int:
    crc = 0
    for view in payload.views(0, end) if isinstance(payload, Pieces) else (memoryview(payload)[:end],):
        crc = crc32(view, crc)
    return crc


def _name(codec_id: int) -> str:
    known = codec_id in set(CodecId)
    return f"{CodecId(codec_id).name.lower()} ({codec_id})" if known else f"number {codec_id}"
