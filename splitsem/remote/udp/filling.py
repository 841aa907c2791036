"""Puts something harmless in place of the bytes of a payload that did not come, where its codec allows it."""

import zlib
from collections.abc import Sequence

import numpy as np

from splitsem.codecs import tolerant, wire
from splitsem.codecs.fixed_length import FixedLength
from splitsem.errors import PayloadError
from splitsem_device.fields import TOLERANT_MAGIC

Gaps = Sequence[tuple[int, int]]
"""Missing stretches as (first byte, number of bytes), ascending."""
_PLAIN_HEADER_BYTES = 32
_PLAIN = (wire.CodecId.IDENTITY, wire.CodecId.HALF_PRECISION)
"""Codecs whose bodies are plain numbers: zero bytes mean zeros, and no element depends on earlier elements."""


def filled(payload: bytearray, gaps: Gaps) -> bytes | None:
    """The payload as if what is missing had been zero; None where the codec leaves no gap to be filled.

    The symbols of plain numbers and of the tolerant wire format stand by themselves, so gaps behind the header can be
    filled: by zeros, and with ``FixedLength`` by the symbols that mean zero. Of entropy-coded payloads, nothing behind
    a gap could be read.

    Args:
        payload: as long as the original, zeros where bytes are missing.
        gaps: what is missing.
    """
    if not gaps:
        return bytes(payload)
    try:
        if payload[:2] == wire.MAGIC and len(payload) > 8 and payload[3] in _PLAIN:
            return _filled_plain(payload, gaps)
        if payload[:2] == TOLERANT_MAGIC:
            return _filled_tolerant(payload, gaps)
    except PayloadError:  # the header is what is missing
        pass
    return None


def header_bytes(payload: bytes | memoryview) -> int:
    """How many leading bytes of a payload must come for gaps behind them to be filled; 0 where none can be."""
    if payload[:2] == wire.MAGIC and len(payload) > 8 and payload[3] in _PLAIN:
        return _PLAIN_HEADER_BYTES
    try:
        return tolerant.header_bytes(payload) if payload[:2] == TOLERANT_MAGIC else 0
    except PayloadError:  # not made by a codec of this package
        return 0


def _filled_plain(payload: bytearray, gaps: Gaps) -> bytes | None:
    content = bytes(payload[:-4])
    whole = content + zlib.crc32(content).to_bytes(4, "little")
    covered, end = [(len(content), len(whole))], len(content)  # from the back: a body, then the fields before it
    for part in reversed(wire.unpack(whole, payload[3])):
        covered.append((end - len(part.body), end))
        end -= len(part.body) + 1 + sum(len(wire.varint(n)) for n in (*part.shape, len(part.body)))
    for start, length in gaps:
        stop = start + length
        for low, high in reversed(covered):
            if low <= start < high:
                start = min(high, stop)
        if start < stop:
            return None
    return whole


def _filled_tolerant(payload: bytearray, gaps: Gaps) -> bytes | None:
    header = tolerant.header_bytes(memoryview(payload))
    if gaps[0][0] < header:
        return None
    if payload[3] == wire.CodecId.FIXED_LENGTH:
        zeros = FixedLength.zero_bodies(memoryview(payload))
        for start, length in gaps:
            payload[start : start + length] = zeros[start - header : start - header + length]
    return bytes(payload)


def gaps_between(pieces: dict[int, bytes], size: int, fragment_bytes: int) -> list[tuple[int, int]]:
    """The stretches of a payload of ``size`` bytes that no piece covers; a piece stands at ``index · fragment_bytes``.

    >>> gaps_between({1: b"0123", 2: b"45"}, 10, 4)
    [(0, 4)]
    """
    num = max(1, -(-size // fragment_bytes))
    missing = np.setdiff1d(np.arange(num), np.fromiter(pieces, np.int64, len(pieces)))
    runs = np.split(missing, np.flatnonzero(np.diff(missing) > 1) + 1) if len(missing) else []
    stretches = [(int(run[0]) * fragment_bytes, min(size, (int(run[-1]) + 1) * fragment_bytes)) for run in runs]
    return [(start, stop - start) for start, stop in stretches if stop > start]
