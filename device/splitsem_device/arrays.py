"""Structures of arrays as payloads: any nesting, every dtype, checked; nothing that arrives is run.

A payload is ``magic version compression size header bodies crc32``. The header is JSON: the structure, in which each
array has its dtype and shape; the bodies are the arrays' values, little-endian, one after the other.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from splitsem_device.errors import ConfigError, PayloadError
from splitsem_device.fields import CRC_BYTES, Payload, Pieces, Reader, crc32, varint
from splitsem_device.peer_text import shown

MAGIC, VERSION = b"sA", 1
COMPRESSIONS = ("none", "zstd")  # position = code on the wire; append only
MOST_BYTES = 256 << 20
_MOST_HEADER_BYTES, _MOST_DIMS, _ZSTD_LEVEL = 1 << 20, 32, 1
_NATIVE: dict[str, np.dtype[Any]] = {
    np.dtype(name).name: np.dtype(name).newbyteorder("<")
    for name in ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
}
_FOREIGN: dict[str, np.dtype[Any]] = dict.fromkeys(
    ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"), np.dtype("u1")
) | {"bfloat16": np.dtype("<u2"), "complex32": np.dtype("<u4")}


@dataclass(frozen=True, eq=False)
class Bits:
    """An array of a dtype that numpy lacks, as its bits.

    Attributes:
        dtype: torch's name for it, e.g. ``bfloat16``.
        bits: unsigned integers of the dtype's size, any shape.
    """

    dtype: str
    bits: NDArray[Any]


def pack(tree: Any, compression: str = "none") -> bytes:
    """The payload of a structure, see ``pieces``."""
    return bytes(pieces(tree, compression))


def pieces(tree: Any, compression: str = "none") -> Pieces:
    """The payload of a structure, whose large arrays are not copied: they must stay as they are until it is sent.

    Args:
        tree: a numpy array or ``Bits``, or lists, tuples and mappings with texts as keys, nested as they may be; None,
            numbers and texts stay what they are.
        compression: of the arrays' values: ``none``, or ``zstd``.

    Raises:
        ConfigError: something in it cannot travel, or the compression is unknown.
    """
    if compression not in COMPRESSIONS:
        raise ConfigError(f"compression must be {' or '.join(COMPRESSIONS)}, got {compression!r}")
    bodies: list[memoryview | bytes] = []
    header = json.dumps(_described(tree, bodies, "the value"), separators=(",", ":")).encode()
    if len(header) > _MOST_HEADER_BYTES:
        raise ConfigError(
            f"a structure has at most {_MOST_HEADER_BYTES} bytes beside its arrays, this has {len(header)}"
        )
    if compression == "zstd":
        bodies = [zstandard.ZstdCompressor(_ZSTD_LEVEL).compress(b"".join(bodies))]
    front = b"".join((MAGIC, bytes((VERSION, COMPRESSIONS.index(compression))), varint(len(header)), header))
    crc = crc32(front)
    for body in bodies:
        crc = crc32(body, crc)
    return Pieces((front, *filter(len, bodies), crc.to_bytes(CRC_BYTES, "little")))


def unpack(payload: Payload, most_bytes: int = MOST_BYTES) -> Any:
    """The structure that ``pack`` was given; arrays are writable copies, named tuples and mappings are plain ones.

    Args:
        payload: what arrived.
        most_bytes: the most bytes that the arrays may take.

    Raises:
        PayloadError: it is damaged, or no such payload.
    """
    if isinstance(payload, Pieces):
        payload = bytes(payload)
    end = len(payload) - CRC_BYTES
    if end < len(MAGIC) + 2 or payload[: len(MAGIC)] != MAGIC:
        raise PayloadError(f"expected a structure of arrays, got {len(payload)} bytes that are none")
    view = memoryview(payload)
    expected, crc = int.from_bytes(view[end:], "little"), crc32(view[:end])
    if crc != expected:
        raise PayloadError(f"expected checksum {expected:08x}, got {crc:08x}: the payload is damaged or truncated")
    reader = Reader(view, start=len(MAGIC), end=end)
    if (version := reader.byte("version")) != VERSION:
        raise PayloadError(f"expected version {VERSION} of a structure of arrays, got {version}: run the same splitsem")
    if (code := reader.byte("compression")) >= len(COMPRESSIONS):
        raise PayloadError(f"expected a compression of 0…{len(COMPRESSIONS) - 1}, got {code}")
    header = reader.take(reader.varint("size of the header", _MOST_HEADER_BYTES), "header")
    try:
        described = json.loads(bytes(header))
        num_bytes = _num_bytes(described)
        if num_bytes > most_bytes:
            raise PayloadError(f"expected arrays of at most {most_bytes} bytes, got {num_bytes}")
        body = reader.rest()
        if COMPRESSIONS[code] == "zstd":
            body = _unzipped(body, num_bytes)
        if len(body) != num_bytes:
            raise PayloadError(f"expected {num_bytes} bytes of arrays, got {len(body)}")
        return _Reading(body).tree(described)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as exc:
        raise PayloadError(f"expected a structure of arrays, got another header: {shown(exc)}") from exc


def _described(tree: Any, bodies: list[memoryview | bytes], where: str) -> list[Any]:
    """The header's part for a structure, whose bodies are appended. The first item says what it is."""
    if isinstance(tree, np.generic):
        tree = np.asarray(tree)
    if isinstance(tree, np.ndarray | Bits):
        return _array(tree, bodies, where)
    if tree is None or isinstance(tree, bool | int | float | str):
        return ["=", tree]
    if isinstance(tree, Mapping):
        odd = next((key for key in tree if not isinstance(key, str)), None)
        if odd is not None:
            raise ConfigError(f"{where} has the key {shown(repr(odd), 50)}: keys must be texts")
        return ["d", *([key, _described(part, bodies, f"{where}[{key!r}]")] for key, part in tree.items())]
    if isinstance(tree, list | tuple):
        kind = "l" if isinstance(tree, list) else "t"
        return [kind, *(_described(part, bodies, f"{where}[{i}]") for i, part in enumerate(tree))]
    raise ConfigError(
        f"{where} is a {type(tree).__name__}: what travels is arrays and tensors, numbers, texts and None, in lists, "
        "tuples and mappings"
    )


def _array(array: NDArray[Any] | Bits, bodies: list[memoryview | bytes], where: str) -> list[Any]:
    values, name = (array.bits, array.dtype) if isinstance(array, Bits) else (array, array.dtype.name)
    dtype = _FOREIGN.get(name) if isinstance(array, Bits) else _NATIVE.get(name)
    if dtype is None:
        raise ConfigError(f"{where} has the dtype {name}: what travels is {', '.join((*_NATIVE, *_FOREIGN))}")
    whole = np.ascontiguousarray(values, dtype)
    bodies.append(whole.reshape(-1).view(np.uint8).data if whole.size else b"")
    return ["a", name, *values.shape]


def _dtype(name: str) -> np.dtype[Any]:
    found = _NATIVE.get(name) or _FOREIGN.get(name)
    if found is None:
        raise PayloadError(f"expected an array of {', '.join((*_NATIVE, *_FOREIGN))}, got {shown(name, 50)}")
    return found


def _shape(described: list[Any]) -> tuple[int, ...]:
    shape = described[2:]
    if len(shape) > _MOST_DIMS or any(type(size) is not int or not 0 <= size <= sys.maxsize for size in shape):
        raise PayloadError(f"expected at most {_MOST_DIMS} sizes of an array, got {shown(shape)}")
    return tuple(shape)


def _num_bytes(described: list[Any]) -> int:
    """The bytes of all arrays, before any memory is taken for them."""
    kind = described[0]
    if kind == "a":
        return int(prod(_shape(described))) * _dtype(described[1]).itemsize
    if kind == "d":
        return sum(_num_bytes(part) for _, part in described[1:])
    return sum(map(_num_bytes, described[1:])) if kind in ("l", "t") else 0


def _unzipped(body: memoryview, num_bytes: int) -> memoryview:
    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    try:
        found = unpacker.decompress(body) if zstandard.frame_content_size(body) == num_bytes else b""
    except zstandard.ZstdError as exc:
        raise PayloadError(f"expected arrays compressed by zstd, got damaged bytes ({exc})") from exc
    return memoryview(found)


class _Reading:
    """Takes the arrays off the bodies as the header names them."""

    def __init__(self, body: memoryview) -> None:
        self._body, self._pos = body, 0

    def tree(self, described: list[Any]) -> Any:
        kind, parts = described[0], described[1:]
        if kind == "a":
            return self._array(described)
        if kind == "=" and len(parts) == 1 and (parts[0] is None or isinstance(parts[0], bool | int | float | str)):
            return parts[0]
        if kind == "d":
            return {str(key): self.tree(part) for key, part in parts}
        if kind in ("l", "t"):
            found = [self.tree(part) for part in parts]
            return found if kind == "l" else tuple(found)
        raise PayloadError(f"expected a, d, l, t or = in the header, got {shown(kind, 20)}")

    def _array(self, described: list[Any]) -> NDArray[Any] | Bits:
        name, shape, dtype = described[1], _shape(described), _dtype(described[1])
        end = self._pos + prod(shape) * dtype.itemsize
        values = np.frombuffer(self._body[self._pos : end], dtype).reshape(shape).copy()
        self._pos = end
        return Bits(name, values) if name in _FOREIGN else values
