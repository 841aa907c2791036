"""Coder of integer pictures by tables that both ends hold; the neighbours decoded already choose a symbol's table.

rANS with a 32-bit state and 16-bit words (Duda 2014, arXiv 1311.2540), in C (``neighbours.c``). Contexts and tables are
integers: exact on every machine. A table's frequencies sum to ``2^SCALE_BITS``; its last entry is the escape to 16 raw
bits.

Shapes: K channels of h × w positions; R contexts, S entries of a table: integers −(S/2 − 1)…S/2 − 1 and the escape.
"""

import ctypes

import numpy as np
from numpy.typing import NDArray

from splitsem_device.compiled import Array, Function
from splitsem_device.entropy.context import MOST_SYMBOL_BYTES, SCALE_BITS, Tables
from splitsem_device.errors import PayloadError

NUM_CONTEXTS = 7 * 16  # levels of the own channel's neighbours, of the channels before; see neighbours.c
_INT = ctypes.c_int64
_U8, _U16, _I32, _I64 = (Array(dtype) for dtype in (np.uint8, np.uint16, np.int32, np.int64))
_TO_U8, _TO_U16, _TO_I32 = (Array(dtype, is_written=True) for dtype in (np.uint8, np.uint16, np.int32))
_contexts = Function("neighbour_contexts", _I32, _INT, _INT, _INT, _TO_U8)
_encode = Function("encode_neighbours", _I32, _INT, _U8, _I64, _I64, _INT, _TO_U16, _INT)
_decode = Function("decode_neighbours", _U16, _INT, _I64, _INT, _TO_I32, _INT, _INT, _INT)


def contexts(integers_KHW: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The table of each integer ``(K, h, w)``, in 0…NUM_CONTEXTS − 1.

    It says how large the integers to the left and above are in the same channel, and in the channels before it, the
    nearest of which count most, around the same position.
    """
    integers = np.ascontiguousarray(integers_KHW, np.int32)
    found = np.empty(integers.shape, np.uint8)
    _contexts(integers, *integers.shape, found)
    return found


def encode(integers_KHW: NDArray[np.int32], tables: Tables) -> bytes:
    """Code integers of −2^15…2^15 − 1.

    Args:
        integers_KHW: ``(K, h, w)``.
        tables: ``(NUM_CONTEXTS, S)``, S even.
    """
    integers, tables = np.ascontiguousarray(integers_KHW, np.int32), _checked(tables)
    words = np.empty(integers.size * MOST_SYMBOL_BYTES // 2 + 2, np.uint16)
    starts = np.cumsum(tables, 1) - tables
    first = _encode(integers, integers.size, contexts(integers), tables, starts, tables.shape[1], words, words.size)
    return words[first:].astype("<u2").tobytes()


def decode(data: bytes | memoryview, shape: tuple[int, int, int], tables: Tables) -> NDArray[np.int32]:
    """Undo ``encode``. Raises PayloadError unless the data are a whole code of this shape."""
    integers, tables = np.zeros(shape, np.int32), _checked(tables)
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2").astype(np.uint16)
    if len(data) % 2 or not _decode(words, words.size, tables, tables.shape[1], integers, *shape):
        raise PayloadError("expected an entropy-coded body that ends with its last symbol: the payload is damaged")
    return integers


def _checked(tables: Tables) -> Tables:
    """The tables as C takes them. Raises ValueError for others."""
    given = np.ascontiguousarray(tables, np.int64)
    if given.ndim != 2 or len(given) != NUM_CONTEXTS or (given < 1).any() or (given.sum(1) != 1 << SCALE_BITS).any():
        raise ValueError(f"expected {NUM_CONTEXTS} tables of frequencies from 1 that sum to {1 << SCALE_BITS}")
    return given
