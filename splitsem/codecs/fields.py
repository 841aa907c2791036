"""Fields of payloads, without torch: varints, a reader that trusts nothing, and how heads and bodies are joined."""

import binascii
from collections.abc import Sequence
from typing import NamedTuple

from zlib_ng import zlib_ng  # the checksum of zlib, an order of magnitude faster

from splitsem.codecs.pieces import Payload, Pieces
from splitsem.errors import PayloadError

MAGIC, TOLERANT_MAGIC = b"sS", b"sT"
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
        num_elements: of the shape.
        body: its codec's bytes.
        settings: of a tolerant payload: what must arrive exactly.
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
        crc = zlib_ng.crc32(piece, crc)
    return b"".join((*pieces, crc.to_bytes(CRC_BYTES, "little")))


def join_tolerant(codec_id: int, fields: Sequence[Field]) -> bytes:
    """A payload of the tolerant format: a checked header, then the bodies."""
    pieces: list[bytes | memoryview] = [TOLERANT_MAGIC, bytes((VERSION, codec_id)), varint(len(fields))]
    for head, _, body, settings in fields:
        pieces.extend((head, varint(len(settings)), settings, varint(len(body))))
    header = b"".join(pieces)
    return b"".join((header, header_checksum(header), *(field.body for field in fields)))


def header_checksum(header: bytes | memoryview) -> bytes:
    """CRC-16/CCITT (XMODEM), little-endian: of a tolerant payload's header."""
    return binascii.crc_hqx(header, 0).to_bytes(TOLERANT_CRC_BYTES, "little")


def least_body_bytes(num_elements: int) -> int:
    """The fewest bytes that justify so many elements."""
    return -(-num_elements // ELEMENTS_PER_BYTE)
