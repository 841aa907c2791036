"""Forged payloads: fields and bodies changed at random behind right checksums, as an attacker would send them."""

import math
import random
import zlib
from collections.abc import Callable, Sequence
from functools import partial

from splitsem.codecs import tolerant, wire
from splitsem.errors import PayloadError
from splitsem_device.fields import (
    CRC_BYTES,
    SEALED_MAGIC,
    TOLERANT_CRC_BYTES,
    TOLERANT_MAGIC,
    Field,
    header_checksum,
    join,
    join_tolerant,
    varint,
)

_VARINTS = [varint(value) for value in (0, 1, 127, 128, 1 << 14, 1 << 21, 1 << 28, (1 << 63) - 1)] + [b"\xff" * 10]
_PNG_PIXELS = b"IDAT"


def forge(payload: bytes, others: Sequence[bytes], draw: random.Random) -> bytes:
    """A payload changed at random, its checksums right.

    Args:
        payload: an honest payload of a codec, in any of the three formats.
        others: honest payloads of the same codec, to splice with.
        draw: gives the random choices.
    """
    if payload[:2] == SEALED_MAGIC:
        start = 3 + 1 + payload[3]
        return _with_crc(payload[:start] + changed(payload[start:-CRC_BYTES], draw.choice(others)[start:], draw))
    if draw.random() < 0.1:
        return _resealed(changed(payload, draw.choice(others), draw))
    is_tolerant = payload[:2] == TOLERANT_MAGIC
    fields, spare = _fields(payload), _fields(draw.choice(others))
    place = draw.randrange(len(fields))
    field, other = fields[place], draw.choice(spare)
    kind = draw.random()
    if kind < 0.1:
        field = field._replace(head=_changed_head(field.head, draw))
    elif kind < 0.15:
        fields = [*fields, other] if kind < 0.125 else fields[1:]
        return (join_tolerant if is_tolerant else join)(payload[3], fields)
    elif is_tolerant and kind < 0.4:
        field = field._replace(settings=changed(bytes(field.settings), bytes(other.settings), draw))
    else:
        field = field._replace(body=changed(bytes(field.body), bytes(other.body), draw))
    fields[place] = field
    return (join_tolerant if is_tolerant else join)(payload[3], fields)


def bodies(payload: bytes) -> list[tuple[bytes, Callable[[bytes], bytes]]]:
    """Each body in an honest payload, with what makes the payload that has another one there, its checksums right."""
    if payload[:2] == SEALED_MAGIC:
        start = 3 + 1 + payload[3]
        return [(payload[start:-CRC_BYTES], lambda body: _with_crc(payload[:start] + body))]
    known, joined = _fields(payload), join_tolerant if payload[:2] == TOLERANT_MAGIC else join

    def with_body(place: int, body: bytes) -> bytes:
        return joined(payload[3], [*known[:place], known[place]._replace(body=body), *known[place + 1 :]])

    return [(bytes(field.body), partial(with_body, place)) for place, field in enumerate(known)]


def _fields(payload: bytes) -> list[Field]:
    if payload[:2] == TOLERANT_MAGIC:
        return [
            Field(wire.tensor_head(dtype, shape), math.prod(shape), bytes(body), bytes(settings))
            for dtype, shape, settings, body in tolerant.unpack(payload, payload[3])
        ]
    return [
        Field(wire.tensor_head(part.dtype, part.shape), part.numel, bytes(part.body))
        for part in wire.unpack(payload, payload[3])
    ]


def _changed_head(head: bytes, draw: random.Random) -> bytes:
    """Another dtype, number of dimensions, or size of one dimension."""
    kind = draw.randrange(4)
    if kind == 0:
        return bytes((draw.randrange(256),)) + head[1:]
    if kind == 1:
        return bytes((head[0] & 0xF0 | (head[0] + 1 & 15),)) + varint(1 << draw.randrange(28)) + head[1:]
    at = draw.randrange(1, len(head)) if len(head) > 1 else 1
    if kind == 2:
        return head[:at] + varint(1 << draw.randrange(64)) + head[at + 1 :]
    return head[:at] + draw.choice(_VARINTS) + head[at:]


def changed(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, overwritten, repeated, spliced, cut off or added; the first ones, the settings, likelier."""
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        at = min(int(len(made) * draw.random() ** draw.choice((1, 4))), max(len(made) - 1, 0))
        kind = draw.randrange(10)
        if kind < 4 and made:
            made[at] ^= 1 << draw.randrange(8)
        elif kind == 4 and made:
            made[at] = draw.randrange(256)
        elif kind == 5:
            size = min(draw.choice((1, 4, 64, 1024)), len(made) - at)
            made[at : at + size] = draw.choice((b"\0", b"\xff", b"\x55")) * size
        elif kind == 6:
            made[at:] = other[at:]
        elif kind == 7:
            del made[at : at + draw.choice((1, 2, 16, 1 << 30))]
        elif kind == 8:
            made[at:at] = draw.choice((*_VARINTS, draw.randbytes(draw.choice((1, 8, 200, 5000)))))
        else:
            made[at:at] = made[at : at + draw.choice((1, 8, 100))] * draw.choice((1, 10, 100))
    return _with_chunk_checksums(bytes(made)) if _PNG_PIXELS in made else bytes(made)


def _with_chunk_checksums(data: bytes) -> bytes:
    """The checksums of a PNG's chunks of pixels put right, so that they are unpacked."""
    at = data.find(_PNG_PIXELS)
    while at >= 4:
        end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
        if end + 4 > len(data):
            break
        data = data[:end] + zlib.crc32(data[at:end]).to_bytes(4, "big") + data[end + 4 :]
        at = data.find(_PNG_PIXELS, end)
    return data


def _resealed(content: bytes) -> bytes:
    """The bytes with the checksum that their first bytes call for."""
    if content[:2] != TOLERANT_MAGIC:
        return _with_crc(content[:-CRC_BYTES])
    reader = wire.Reader(content, start=4)
    try:
        for _ in range(reader.varint("count", 100)):
            wire.read_tensor_head(reader, wire.MAX_ELEMENTS)
            reader.take(reader.varint("settings size", len(content)), "settings")
            reader.varint("body size", 1 << 62)
    except PayloadError:
        return content
    end = 4 + reader.position
    return content[:end] + header_checksum(content[:end]) + content[end + TOLERANT_CRC_BYTES :]


def _with_crc(content: bytes) -> bytes:
    return content + zlib.crc32(content).to_bytes(CRC_BYTES, "little")
