"""Coder of maps of small integers, in C (``maps.c``): tables of digits that adapt, chosen by a symbol's neighbours.

What a decoder makes of a stranger's bytes stays in its arrays: C checks it; what Python passes is checked here.
"""

import ctypes
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem_device.compiled import Array, Function
from splitsem_device.entropy.bits import packed_size
from splitsem_device.errors import PayloadError

Octets = NDArray[np.uint8]
_SYMBOLS_PER_CONTEXT = (100, 100, 100, 100, 400, 400, 400, 400)  # at 1…8 bits: fewer do not fill a table
_MOST_LEVELS = 32
_INT, _U8, _TO_U8 = ctypes.c_int64, Array(np.uint8), Array(np.uint8, is_written=True)
_LAYOUT = (_INT,) * 5
_encode = Function("encode_map", _U8, *_LAYOUT, _INT, _INT, _TO_U8, _INT)
_decode = Function("decode_map", _U8, _INT, _TO_U8, *_LAYOUT)


class Layout(NamedTuple):
    """How a tensor's symbols lie: ``planes`` pictures of ``rows × cols``."""

    planes: int
    rows: int
    cols: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "Layout":
        """The last two of three or more dimensions are the picture; else, and of one value, it is one row."""
        num = math.prod(shape)
        if len(shape) < 3:  # the first dimension is that of samples
            return cls(1, 1, num)
        rows, cols = shape[-2:]
        return cls(1, 1, num) if rows * cols <= 1 else cls(num // (rows * cols), rows, cols)


def encode(symbols: Octets, shape: tuple[int, ...], bit_width: int, fill: int, is_order_0: bool = False) -> bytes:
    """Code symbols below ``2^bit_width``; empty where packing their bits would not be larger.

    Args:
        symbols: uint8, 1-d, row-major of ``shape``.
        shape: the tensor's.
        bit_width: 1…8.
        fill: the symbol that counts as a neighbour outside of a plane, and that many symbols are.
        is_order_0: one table for all, whatever the neighbours.

    Raises:
        ValueError: symbols, shape, bit width or fill do not fit each other.
    """
    _check(symbols.shape == (math.prod(shape),), "symbols", symbols)
    _check_alphabet(bit_width, fill)
    if bit_width < 8 and symbols.max(initial=0) >> bit_width:
        raise ValueError(f"symbols must be below {1 << bit_width}, got {symbols.max()}")
    if symbols.size == 0:
        return b""
    data = np.empty(packed_size(symbols.size, bit_width), np.uint8)
    layout = Layout.of(shape)
    has_no_neighbours = is_order_0 or layout.planes * layout.rows == 1
    most = (1, 1) if has_no_neighbours else _most_contexts(symbols.size, bit_width)
    size = _encode(symbols, *layout, fill, 1 << bit_width, *most, data, data.size)
    return data[: max(size, 0)].tobytes()


def decode(body: memoryview, shape: tuple[int, ...], bit_width: int, fill: int) -> Octets:
    """Undo ``encode``. Raises PayloadError for what is not a whole code of these sizes."""
    _check_alphabet(bit_width, fill)
    symbols = np.empty(math.prod(shape), np.uint8)
    data = np.frombuffer(body, np.uint8)
    if not (symbols.size and data.size and _decode(data, data.size, symbols, *Layout.of(shape), fill, 1 << bit_width)):
        raise PayloadError(f"expected a whole code of {symbols.size} symbols, got a damaged one")
    return symbols


def _most_contexts(num: int, bit_width: int) -> tuple[int, int]:
    """How many levels of what is foretold, and of how much the neighbours differ."""
    most_acts = 4 if bit_width > 5 else 8
    contexts = min(2 + num // _SYMBOLS_PER_CONTEXT[bit_width - 1], _MOST_LEVELS * most_acts)
    acts = max(a for a in (1, 2, 4, 8) if a == 1 or (a <= most_acts and 4 * a <= contexts))
    return min(contexts // acts, _MOST_LEVELS), acts


def _check_alphabet(bit_width: int, fill: int) -> None:
    _check(1 <= bit_width <= 8, "bit_width", bit_width)
    _check(0 <= fill < 1 << bit_width, "fill", fill)


def _check(is_right: bool, name: str, value: object) -> None:
    if not is_right:
        shown = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else value
        raise ValueError(f"{name} must fit the symbols that are coded, got {shown}")
