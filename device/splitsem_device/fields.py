"""Fields of payloads, without torch: varints, a reader that trusts nothing, and how heads and bodies are joined."""

import binascii
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from splitsem_device.errors import PayloadError

try:
    from zlib_ng.zlib_ng import crc32  # the checksum of zlib, an order of magnitude faster
except ImportError:
    from zlib import crc32


class Pieces:
    """Bytes in several stretches; behaves like their concatenation where a payload is read.

    Args:
        stretches: the stretches in order, at least one, none of them empty.

    >>> pieces = Pieces([b"abc", b"defg"])
    >>> len(pieces), pieces[3], bytes(pieces[1:3]), bytes(pieces[2:5]), bytes(pieces)
    (7, 100, b'bc', b'cde', b'abcdefg')
    """

    def __init__(self, stretches: Iterable[bytes | memoryview]) -> None:
        self._views = [memoryview(stretch).toreadonly() for stretch in stretches]
        self._ends = list(accumulate(len(view) for view in self._views))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, key: int) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> memoryview: ...

    def __getitem__(self, key: int | slice) -> int | memoryview:
        """One byte, or some: a read-only view where one stretch has them all, else a writable one of a fresh copy."""
        if isinstance(key, int):
            return next(self.views(key, key + 1))[0]
        start, stop, step = key.indices(len(self))
        if step != 1:
            raise ValueError(f"step must be 1, got {step}")
        found = list(self.views(start, stop))
        return found[0] if len(found) == 1 else memoryview(bytearray().join(found))

    def __bytes__(self) -> bytes:
        return b"".join(self._views)

    def views(self, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes from ``start`` up to ``stop``, stretch by stretch."""
        index = bisect_right(self._ends, start)
        while start < stop:
            offset = self._ends[index] - len(self._views[index])
            yield self._views[index][start - offset : stop - offset]
            start = self._ends[index]
            index += 1


Payload = bytes | memoryview | Pieces


MAGIC, TOLERANT_MAGIC, SEALED_MAGIC = b"sS", b"sT", b"sE"
MOST_NAME_BYTES = 255
VERSION = 1
ELEMENTS_PER_BYTE = 1024
CRC_BYTES, TOLERANT_CRC_BYTES = 4, 2


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


class Field(NamedTuple):
    """One tensor as ``join`` and ``join_tolerant`` need it.

    Attributes:
        head: dtype and shape, see ``wire.tensor_head``.
        num_elements: number of elements of the shape.
        body: the bytes that the codec made of the tensor.
        settings: what must arrive exactly, in a tolerant payload.
    """

    head: bytes
    num_elements: int
    body: bytes | memoryview
    settings: bytes | memoryview = b""


def join(codec_id: int, fields: Sequence[Field]) -> bytes:
    """A payload of the wire format; bodies denser than ``ELEMENTS_PER_BYTE`` are padded."""
    pieces: list[bytes | memoryview] = [MAGIC, bytes((VERSION, codec_id)), varint(len(fields))]
    for head, num_elements, body, _ in fields:
        padding = least_body_bytes(num_elements) - len(body)
        pieces.extend((head, varint(len(body)), body, bytes(max(padding, 0))))
    crc = 0
    for piece in pieces:  # not over the joined bytes: that would copy a large body once more
        crc = crc32(piece, crc)
    return b"".join((*pieces, crc.to_bytes(CRC_BYTES, "little")))


def join_tolerant(codec_id: int, fields: Sequence[Field]) -> bytes:
    """A payload of the tolerant format: a checked header, then the bodies."""
    pieces: list[bytes | memoryview] = [TOLERANT_MAGIC, bytes((VERSION, codec_id)), varint(len(fields))]
    for head, _, body, settings in fields:
        pieces.extend((head, varint(len(settings)), settings, varint(len(body))))
    header = b"".join(pieces)
    return b"".join((header, header_checksum(header), *(field.body for field in fields)))


def seal(name: str, body: bytes) -> bytes:
    """A payload of any bytes: ``magic version name body crc32``, for codecs that know nothing of the wire format."""
    head = b"".join((SEALED_MAGIC, bytes((VERSION,)), varint(len(name.encode())), name.encode()))
    crc = crc32(body, crc32(head))
    return b"".join((head, body, crc.to_bytes(CRC_BYTES, "little")))


def unseal(payload: Payload, name: str) -> bytes:
    """The body of what ``seal`` made for this name. Raises PayloadError for damage and for another name."""
    received = bytes(payload)
    end = len(received) - CRC_BYTES
    if end < len(SEALED_MAGIC) + 2 or received[: len(SEALED_MAGIC)] != SEALED_MAGIC:
        raise PayloadError(f"expected a payload of codec {name}, got {len(received)} bytes that are none")
    expected, crc = int.from_bytes(received[end:], "little"), crc32(received[:end])
    if crc != expected:
        raise PayloadError(f"expected checksum {expected:08x}, got {crc:08x}: the payload is damaged or truncated")
    reader = Reader(received, start=len(SEALED_MAGIC), end=end)
    if (version := reader.byte("version")) != VERSION:
        raise PayloadError(f"expected version {VERSION} of the envelope, got {version}")
    sender = bytes(reader.take(reader.varint("size of the codec's name", MOST_NAME_BYTES), "the codec's name"))
    if sender != name.encode():
        raise PayloadError(f"expected a payload of codec {name}, got one of codec {sender.decode(errors='replace')}")
    return bytes(reader.rest())


def header_checksum(header: bytes | memoryview) -> bytes:
    """CRC-16/CCITT (XMODEM), little-endian: of a tolerant payload's header."""
    return binascii.crc_hqx(header, 0).to_bytes(TOLERANT_CRC_BYTES, "little")


def least_body_bytes(num_elements: int) -> int:
    """The fewest bytes that justify so many elements."""
    return -(-num_elements // ELEMENTS_PER_BYTE)


CHANNEL_FLAG, ZEROS_FLAG = 0x10, 0x20
GRAY_FLAG, PLANES_FLAG = 0x40, 0x80  # flags of symbols of fixed length


def affine_bytes(
    scales: NDArray[np.float32], zero_points: NDArray[np.float32], bit_width: int, is_channelwise: bool, flags: int = 0
) -> bytes:
    """Bit width, scales (float32, or bfloat16 for channels) and, unless all are zero, zero points.

    Args:
        scales: one a group, any shape.
        zero_points: one a group, integral.
        bit_width: 1…16.
        is_channelwise: groups are channels; their scales have 16 significant bits.
        flags: further flags for the first byte.
    """
    scales, zero_points = scales.reshape(-1).astype("<f4"), zero_points.reshape(-1)
    has_zeros = bool(zero_points.any())
    flags |= bit_width - 1 | (CHANNEL_FLAG if is_channelwise else 0) | (ZEROS_FLAG if has_zeros else 0)
    coded = (scales.view("<u4") >> 16).astype("<u2") if is_channelwise else scales
    zero_bytes = zero_points.astype(zero_dtype(bit_width)).tobytes() if has_zeros else b""
    return bytes((flags,)) + coded.tobytes() + zero_bytes


def zero_dtype(bit_width: int) -> str:
    """The dtype in which zero points travel."""
    return "u1" if bit_width <= 8 else "<u2"
