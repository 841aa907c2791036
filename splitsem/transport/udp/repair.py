"""Zero-fill: makes a payload with gaps whole again where its codec's symbols stand for themselves."""

import zlib
from collections.abc import Iterable

from splitsem.codecs import wire
from splitsem.errors import PayloadError

_FILLABLE = (wire.CodecId.IDENTITY, wire.CodecId.HALF_PRECISION)
"""Codecs whose bodies are plain numbers: zero bytes are zeros, and nothing depends on what came before."""


def zero_fill(payload: bytes | memoryview, missing: Iterable[tuple[int, int]]) -> bytes | None:
    """The payload with a checksum that fits the zeros in its gaps; None when the gaps cannot be filled.

    They can where the codec writes each element by itself and the gaps lie in tensor bodies (and perhaps the checksum):
    dtypes, shapes and sizes must have arrived.

    Args:
        payload: as long as the original, zeros where bytes are missing.
        missing: stretches as (first byte, number of bytes), ascending.
    """
    if len(payload) < 9 or payload[:2] != wire.MAGIC or payload[3] not in _FILLABLE:
        return None
    content = bytes(payload[:-4])
    whole = content + zlib.crc32(content).to_bytes(4, "little")
    try:
        parts = wire.unpack(whole, payload[3])
    except PayloadError:
        return None
    bodies, end = [], len(content)  # from the back: a body, then the fields before it
    for part in reversed(parts):
        start = end - len(part.body)
        bodies.append((start, end))
        end = start - 1 - sum(len(wire.varint(n)) for n in (*part.shape, len(part.body)))
    covered = [*reversed(bodies), (len(content), len(whole))]
    for start, length in missing:
        uncovered = range(start, start + length)
        for low, high in covered:
            if low <= uncovered.start < high:
                uncovered = range(min(high, uncovered.stop), uncovered.stop)
        if uncovered:
            return None
    return whole
