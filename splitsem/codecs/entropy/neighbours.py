"""Coder of integer pictures by tables that both ends hold; the neighbours decoded already choose a symbol's table.

rANS with a 32-bit state and 16-bit words (Duda 2014, arXiv 1311.2540). Contexts and tables are integers: exact on every
machine. A table's frequencies sum to ``2^SCALE_BITS``; its last entry is the escape to 16 raw bits.

Shapes: K channels of h × w positions; R contexts, S entries of a table: integers −(S/2 − 1)…S/2 − 1 and the escape.
"""

import numpy as np
from numpy.typing import NDArray

from splitsem.codecs.entropy.adaptive import kernel
from splitsem.codecs.entropy.context import MOST_SYMBOL_BYTES, SCALE_BITS, Tables
from splitsem.errors import PayloadError

_OWN_EDGES = np.array([1, 2, 3, 5, 8, 13])  # least weighted sum of the same channel's neighbours for the next level
_PAST_EDGES = np.array([1, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536])
_PAST_LEVELS = len(_PAST_EDGES) + 1
NUM_CONTEXTS = (len(_OWN_EDGES) + 1) * _PAST_LEVELS


def contexts(integers_KHW: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The table of each integer ``(K, h, w)``, in 0…NUM_CONTEXTS − 1.

    It says how large the integers to the left and above are in the same channel, and in the channels before it, the
    nearest of which count most, around the same position.
    """
    rows = np.empty(integers_KHW.shape, np.uint8)
    _contexts(np.ascontiguousarray(integers_KHW, np.int32), rows)
    return rows


def encode(integers_KHW: NDArray[np.int32], tables: Tables) -> bytes:
    """Code integers of −2^15…2^15 − 1.

    Args:
        integers_KHW: ``(K, h, w)``.
        tables: ``(NUM_CONTEXTS, S)``, S even.
    """
    integers = np.ascontiguousarray(integers_KHW, np.int32)
    words = np.empty(integers.size * MOST_SYMBOL_BYTES // 2 + 2, np.uint16)
    first = _encode(integers.reshape(-1), contexts(integers).reshape(-1), tables, words)
    return words[first:].astype("<u2").tobytes()


def decode(data: bytes | memoryview, shape: tuple[int, int, int], tables: Tables) -> NDArray[np.int32]:
    """Undo ``encode``. Raises PayloadError unless the data are a whole code of this shape."""
    integers = np.zeros(shape, np.int32)
    if len(data) % 2 or not _decode(np.frombuffer(data, "<u2").astype(np.uint16), tables, integers):
        raise PayloadError("expected an entropy-coded body that ends with its last symbol: the payload is damaged")
    return integers


# mypy: ignore-errors
# numba infers the types of what follows
_MOST = 15  # larger integers are as this one for the contexts
_UNIT = 64  # fixed point of the running mean over channels
_MEMORY = 2  # each channel moves that mean by 1 / 2^_MEMORY
_SCALE = 1 << SCALE_BITS
_LOWEST = 1 << 16  # states live in [2^16, 2^32)
_LIMIT_SHIFT = 32 - SCALE_BITS


@kernel
def _size(plane, row, col):
    if row < 0 or col < 0 or row >= plane.shape[0] or col >= plane.shape[1]:
        return 0
    return min(abs(plane[row, col]), _MOST)


@kernel
def _context(plane, past, row, col):
    own = 2 * (_size(plane, row, col - 1) + _size(plane, row - 1, col))
    own += _size(plane, row - 1, col - 1) + _size(plane, row - 1, col + 1)
    own_level, past_level = 0, 0
    while own_level < _OWN_EDGES.size and own >= _OWN_EDGES[own_level]:
        own_level += 1
    while past_level < _PAST_EDGES.size and past[row, col] >= _PAST_EDGES[past_level]:
        past_level += 1
    return own_level * _PAST_LEVELS + past_level


@kernel
def _remember(plane, past):
    """Move the running mean of the channels before the next one towards this one's 3 × 3 sums, the middle twice."""
    for row in range(plane.shape[0]):
        for col in range(plane.shape[1]):
            near = _size(plane, row, col)
            for down in range(-1, 2):
                for right in range(-1, 2):
                    near += _size(plane, row + down, col + right)
            past[row, col] += (_UNIT * near - past[row, col]) >> _MEMORY


@kernel
def _contexts(integers, rows):
    past = np.zeros(integers.shape[1:], np.int64)
    for k in range(integers.shape[0]):
        for row in range(integers.shape[1]):
            for col in range(integers.shape[2]):
                rows[k, row, col] = _context(integers[k], past, row, col)
        _remember(integers[k], past)


@kernel
def _encode(integers, rows, tables, words):
    """Write words backwards into ``words``; return the index of the first."""
    escape = tables.shape[1] - 1
    middle = escape // 2
    starts = np.zeros(tables.shape, np.int64)
    for c in range(tables.shape[0]):
        for s in range(escape):
            starts[c, s + 1] = starts[c, s] + tables[c, s]
    state, pos = np.int64(_LOWEST), words.size
    for i in range(integers.size - 1, -1, -1):
        entry = integers[i] + middle
        if entry < 0 or entry >= escape:
            pos -= 1
            words[pos] = state & 0xFFFF
            state = (state >> 16 << 16) | (integers[i] + 0x8000)
            entry = escape
        frequency = tables[rows[i], entry]
        if state >= frequency << _LIMIT_SHIFT:
            pos -= 1
            words[pos] = state & 0xFFFF
            state >>= 16
        state = (state // frequency << SCALE_BITS) + state % frequency + starts[rows[i], entry]
    words[pos - 1], words[pos - 2] = state & 0xFFFF, state >> 16
    return pos - 2


@kernel
def _decode(words, tables, integers):
    """Fill ``integers``; return whether the stream was whole: all words used, the state back at its start."""
    if words.size < 2:
        return False
    escape = tables.shape[1] - 1
    past = np.zeros(integers.shape[1:], np.int64)
    state, pos = (np.int64(words[0]) << 16) | np.int64(words[1]), 2
    for k in range(integers.shape[0]):
        for row in range(integers.shape[1]):
            for col in range(integers.shape[2]):
                table = tables[_context(integers[k], past, row, col)]
                slot, start, entry = state & (_SCALE - 1), np.int64(0), 0
                while entry < escape and start + table[entry] <= slot:
                    start += table[entry]
                    entry += 1
                state = table[entry] * (state >> SCALE_BITS) + slot - start
                if state < _LOWEST:
                    if pos == words.size:
                        return False
                    state = (state << 16) | np.int64(words[pos])
                    pos += 1
                value = entry - escape // 2
                if entry == escape:
                    value = (state & 0xFFFF) - 0x8000
                    if pos == words.size:
                        return False
                    state = (state >> 16 << 16) | np.int64(words[pos])
                    pos += 1
                integers[k, row, col] = value
        _remember(integers[k], past)
    return pos == words.size and state == _LOWEST
