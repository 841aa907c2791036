"""Coder of integers by given tables.

rANS with a 24-bit state, by bytes (Duda 2014, arXiv 1311.2540): exact on every machine. A table's frequencies sum to
``2^SCALE_BITS``; its last entry is the escape to 16 raw bits.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from splitsem_device.errors import PayloadError

SCALE_BITS = 14
_ESCAPE_OFFSET = 1 << 15
_SCALE = 1 << SCALE_BITS
_LOWEST = 1 << 16  # states live in [2^16, 2^24): three bytes end a code
_STATE_BYTES = 3
MOST_SYMBOL_BYTES = 4  # an escape of 14 bits, and 16 raw ones
Tables = NDArray[np.int64]


def to_frequencies(probabilities: NDArray[np.float64]) -> Tables:
    """Integer tables of the rows of probabilities: every entry at least 1, every row summing to ``2^SCALE_BITS``."""
    num_entries = probabilities.shape[1]
    share = probabilities / probabilities.sum(1, keepdims=True)
    tables = 1 + np.floor(share * (_SCALE - num_entries)).astype(np.int64)
    tables[np.arange(len(tables)), tables.argmax(1)] += _SCALE - tables.sum(1)
    return tables


def encode(symbols: Sequence[int], rows: Sequence[int], tables: Tables) -> bytes:
    """Code integers, each with its row of the tables.

    Args:
        symbols: any of −2^15…2^15 − 1; 0…num_entries − 2 are in the tables.
        rows: row of each symbol.
        tables: ``(num_rows, num_entries)``, the last entry being the escape's.
    """
    starts = np.cumsum(tables, 1) - tables
    escape = tables.shape[1] - 1
    state, out = _LOWEST, bytearray()
    for symbol, row in zip(reversed(symbols), reversed(rows), strict=True):
        entry = symbol if 0 <= symbol < escape else escape
        if entry == escape:
            high, low = divmod(symbol + _ESCAPE_OFFSET, 256)
            state = _push(_push(state, out, low, 1, 8), out, high, 1, 8)
        state = _push(state, out, int(starts[row, entry]), int(tables[row, entry]), SCALE_BITS)
    head = state.to_bytes(_STATE_BYTES, "big")
    coded = head + bytes(reversed(out))
    return coded[: max(len(coded.rstrip(b"\0")), len(coded) - _STATE_BYTES)]  # no more zeros than _refill takes


def encode_rows(integers_KP: NDArray[np.generic], tables: Tables) -> bytes:
    """Code integers around zero, row k with table k, whose middle entry is zero's."""
    num_rows, num_positions = integers_KP.shape
    symbols = integers_KP.reshape(-1).astype(np.int64) + (tables.shape[1] // 2 - 1)
    return encode(symbols.tolist(), np.repeat(np.arange(num_rows), num_positions).tolist(), tables)


def decode(data: bytes | memoryview, rows: Sequence[int], tables: Tables) -> list[int]:
    """Undo ``encode``. Raises PayloadError unless the data are a whole code of these rows."""
    ends = np.cumsum(tables, 1)
    escape = tables.shape[1] - 1
    octets = bytes(data)
    state, position = int.from_bytes(octets[:_STATE_BYTES].ljust(_STATE_BYTES, b"\0"), "big"), _STATE_BYTES
    symbols = []
    for row in rows:
        slot = state & (_SCALE - 1)
        entry = int(np.searchsorted(ends[row], slot, side="right"))
        frequency = int(tables[row, entry])
        state = frequency * (state >> SCALE_BITS) + slot - int(ends[row, entry]) + frequency
        state, position = _refill(state, octets, position)
        if entry == escape:
            high = state & 255
            state, position = _refill(state >> 8, octets, position)
            symbols.append(256 * high + (state & 255) - _ESCAPE_OFFSET)
            state, position = _refill(state >> 8, octets, position)
        else:
            symbols.append(entry)
    if state != _LOWEST or position < len(octets):
        raise PayloadError("expected an entropy-coded body that ends with its last symbol: the payload is damaged")
    return symbols


def _push(state: int, out: bytearray, start: int, frequency: int, bits: int) -> int:
    """Put one symbol, ``frequency`` of ``2^bits``, onto the state, moving bytes out as it fills."""
    limit = (_LOWEST >> bits << 8) * frequency
    while state >= limit:
        out.append(state & 0xFF)
        state >>= 8
    return (state // frequency << bits) + state % frequency + start


def _refill(state: int, octets: bytes, position: int) -> tuple[int, int]:
    """Take bytes in until the state is whole again; past the end there are zeros, which were not sent."""
    while state < _LOWEST:
        if position > len(octets) + _STATE_BYTES:
            raise PayloadError("expected more bytes of an entropy-coded body: the payload is damaged")
        state = state << 8 | (octets[position] if position < len(octets) else 0)
        position += 1
    return state, position
