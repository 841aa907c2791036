"""Frame and Reply of tail.proto, written and read with at most one copy of the payload, in chunks, and checked.

The bytes equal those of protobuf's generated classes (tests compare them). These classes copy a payload two or three
times more, which at 10 MB costs more than the loopback itself.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from splitsem_device.errors import PayloadError
from splitsem_device.fields import Payload, Pieces, varint

CHUNK_BYTES = 1 << 21  # copying a chunk overlaps with sending its predecessor; a chunk costs two wake-ups
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_LEAST_PART_BYTES = 4096
_Value = int | memoryview


class Frame(NamedTuple):
    """One payload on its way to the server; see ``message Frame``."""

    session: str
    client: str
    request_id: int
    payload: Payload
    more: bool = False
    num_answered: int = 0

    def to_bytes(self) -> bytes:
        """The message as protobuf."""
        session, client = self.session.encode(), self.client.encode()
        return b"".join(
            (
                *_bytes_field(1, session),
                *_bytes_field(2, client),
                *_varint_field(3, self.request_id),
                *_payload_field(4, self.payload),
                *_varint_field(5, self.more),
                *_varint_field(6, self.num_answered),
            )
        )

    @classmethod
    def from_bytes(cls, message: bytes) -> "Frame":
        """Read a message; the payload is a view of it. Raises ValueError."""
        found = _known(message, {1: _BYTES, 2: _BYTES, 3: _VARINT, 4: _BYTES, 5: _VARINT, 6: _VARINT})
        session, client = (str(found.get(number, b""), "utf-8") for number in (1, 2))  # type: ignore[arg-type]
        return cls(session, client, found.get(3, 0), found.get(4, b""), bool(found.get(5, 0)), found.get(6, 0))  # type: ignore[arg-type]


class Reply(NamedTuple):
    """The answer to a frame; see ``message Reply``."""

    request_id: int
    server_s: float
    queue_s: float
    payload: Payload
    more: bool = False

    def to_bytes(self) -> bytes:
        """The message as protobuf."""
        return b"".join(
            (
                *_varint_field(1, self.request_id),
                *_double_field(2, self.server_s),
                *_double_field(3, self.queue_s),
                *_payload_field(4, self.payload),
                *_varint_field(5, self.more),
            )
        )

    @classmethod
    def from_bytes(cls, message: bytes) -> "Reply":
        """Read a message; the payload is a view of it. Raises ValueError."""
        found = _known(message, {1: _VARINT, 2: _FIXED64, 3: _FIXED64, 4: _BYTES, 5: _VARINT})
        server_s, queue_s = (struct.unpack("<d", found.get(number, bytes(8)))[0] for number in (2, 3))  # type: ignore[arg-type]
        return cls(found.get(1, 0), server_s, queue_s, found.get(4, b""), bool(found.get(5, 0)))  # type: ignore[arg-type]


_Message = TypeVar("_Message", Frame, Reply)


def chunks(message: _Message) -> Iterator[_Message]:
    """The message in parts of at most ``CHUNK_BYTES`` of payload; a message that is no larger stays whole."""
    view = memoryview(_whole(message.payload))
    last = max(0, len(view) - 1) // CHUNK_BYTES
    for index in range(last + 1):
        part = view[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES] if last else message.payload
        yield message._replace(payload=part, more=index < last)


def joined(messages: Iterable[_Message], most_bytes: Callable[[_Message], int]) -> Iterator[_Message]:
    """Undo ``chunks`` on a stream of messages; payloads stay in pieces until decoding, which copies each one time.

    Args:
        messages: as they arrive.
        most_bytes: the most bytes of the payload that begins with this message. The payload ends there, however many
            parts are to come; a part counts as ``_LEAST_PART_BYTES`` at least, since it takes memory of its own.

    Raises:
        PayloadError: the payload is too long, or parts do not belong together.
    """
    parts: list[bytes | memoryview] = []
    num_bytes = limit = 0
    first = None
    for message in messages:
        if first is None:
            limit = most_bytes(message)
        num_bytes += max(len(message.payload), _LEAST_PART_BYTES if message.more else 0)
        if num_bytes > limit:
            raise PayloadError(f"expected a payload of at most {limit} bytes, got {num_bytes} or more")
        if first is None and not message.more:
            yield message
            num_bytes = 0
            continue
        first = first or message
        if message.request_id != first.request_id or not message.payload:
            got = f"frame {message.request_id}" if message.payload else "an empty part"
            raise PayloadError(f"expected more of frame {first.request_id}, got {got}")
        parts.append(message.payload)  # type: ignore[arg-type]
        if not message.more:
            yield message._replace(payload=Pieces(parts))
            parts, num_bytes, first = [], 0, None


def _whole(payload: Payload) -> bytes | memoryview:
    return bytes(payload) if isinstance(payload, Pieces) else payload


def _varint_field(number: int, value: int) -> tuple[bytes, ...]:
    return (varint(number << 3 | _VARINT), varint(value)) if value else ()


def _double_field(number: int, value: float) -> tuple[bytes, ...]:
    packed = struct.pack("<d", value)
    return (varint(number << 3 | _FIXED64), packed) if any(packed) else ()


def _bytes_field(number: int, value: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    return (varint(number << 3 | _BYTES), varint(len(value)), value) if len(value) else ()


def _payload_field(number: int, value: Payload) -> tuple[bytes | memoryview, ...]:
    if not isinstance(value, Pieces):
        return _bytes_field(number, value)
    return (varint(number << 3 | _BYTES), varint(len(value)), *value.views(0, len(value)))


def _known(message: bytes, types: dict[int, int]) -> dict[int, _Value]:
    """The message's fields that are in ``types``; the last of a repeated field wins, unknown fields are skipped."""
    return {number: value for number, kind, value in _fields(memoryview(message)) if types.get(number) == kind}


def _fields(view: memoryview) -> Iterator[tuple[int, int, _Value]]:
    pos = 0
    while pos < len(view):
        tag, pos = _read_varint(view, pos)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, pos = _read_varint(view, pos)
            yield number, kind, value
            continue
        if kind == _BYTES:
            size, pos = _read_varint(view, pos)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"expected a protobuf field of type 0, 1, 2 or 5, got {kind}")
        if not number or size > len(view) - pos:
            raise ValueError(f"expected {size} bytes in field {number}, got {len(view) - pos}")
        yield number, kind, view[pos : pos + size]
        pos += size


def _read_varint(view: memoryview, pos: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if pos + index >= len(view):
            raise ValueError("expected a varint, got the end of the message")
        octet = view[pos + index]
        value |= (octet & 0x7F) << 7 * index
        if octet < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, pos + index + 1
    raise ValueError("expected a varint of at most 10 bytes")
