"""The entropy coders in C (``adaptive.c``, ``static.c``): each call checks arrays and numbers, which C then trusts.

A symbol's context is ``classes[plane] * num_levels + lut[left + up]``. What a decoder makes of a stranger's bytes stays
in its arrays.
"""

import ctypes
import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem_device.compiled import Array, Function

Octets = NDArray[np.uint8]
Counts = NDArray[np.int64]

MAX_LOG = 8 * 30  # frequencies travel as logarithms in eighths of an octave
NUM_STATES = 4  # of rANS: four interleaved
MAX_LEVELS = 16  # that the coders have room for

_INT, _DOUBLE = ctypes.c_int64, ctypes.c_double
_U8, _U16, _I64, _F64 = (Array(dtype) for dtype in (np.uint8, np.uint16, np.int64, np.float64))
_TO_U8, _TO_U16, _TO_I64, _TO_F64 = (
    Array(dtype, is_written=True) for dtype in (np.uint8, np.uint16, np.int64, np.float64)
)
_LAYOUT = (_INT,) * 3
_SIDE = (_INT, _TO_U8, _INT, _TO_U8, _INT, _INT, _TO_I64, _INT, _INT, _INT)
_encode_side = Function("encode_side", _TO_U8, *_SIDE)
_decode_side = Function("decode_side", _U8, *_SIDE)
_encode_symbols = Function("encode_symbols", _TO_U8, _INT, _U8, *_LAYOUT, _INT, _INT, _U8)
_decode_symbols = Function("decode_symbols", _U8, _INT, _TO_U8, *_LAYOUT, _INT, _INT, _TO_U8)
_choose_levels = Function("choose_levels", _U8, *_LAYOUT, *(_INT,) * 4, _TO_U8, _TO_I64)
_context_histogram = Function("context_histogram", _U8, *_LAYOUT, _INT, _U8, _INT, _U8, _TO_I64, _INT, _INT)
_fill_n_log_n = Function("fill_n_log_n", _TO_F64)
_merge_costs = Function("merge_costs", _I64, _INT, _INT, _INT, _DOUBLE, _F64, _TO_F64)
_choose_logs = Function("choose_logs", _I64, _INT, _INT, _INT, _TO_I64)
_frequencies = Function("frequencies", _I64, _INT, _INT, _INT, _INT, _TO_I64)
_CONTEXTS = (*_LAYOUT, _INT, _U8, _INT, _U8, _I64, _INT, _INT, _INT)
_encode_static = Function("encode_static", _U8, *_CONTEXTS, _TO_U16, _INT)
_decode_static = Function("decode_static", _TO_U8, *_CONTEXTS, _U16, _INT)


class Layout(NamedTuple):
    """How a tensor's symbols lie: ``planes`` pictures of ``rows × cols``."""

    planes: int
    rows: int
    cols: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "Layout":
        """The last two dimensions are the picture; planes of one value are laid out as one row."""
        num = math.prod(shape)
        if len(shape) < 2:
            return cls(1, 1, num)
        rows, cols = shape[-2:]
        return cls(1, 1, num) if rows * cols <= 1 else cls(num // (rows * cols), rows, cols)

    @property
    def num_symbols(self) -> int:
        """How many symbols there are."""
        return self.planes * self.rows * self.cols


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """Symbols as they lie in a tensor.

    Attributes:
        symbols: uint8, 1-d, row-major, each below ``2^bit_width``.
        layout: how they lie.
        bit_width: 1…8.
        fill: the symbol that counts as a neighbour outside of a plane.
    """

    symbols: Octets
    layout: Layout
    bit_width: int
    fill: int

    def __post_init__(self) -> None:
        _check(self.symbols.shape == (self.layout.num_symbols,), "symbols", self.symbols)
        _check_alphabet(self.bit_width, self.fill)
        if self.bit_width < 8 and self.symbols.max(initial=0) >> self.bit_width:
            raise ValueError(f"symbols must be below {self.num_values}, got {self.symbols.max()}")

    @property
    def num_values(self) -> int:
        """How many different symbols there may be."""
        return 1 << self.bit_width


class Contexts(NamedTuple):
    """Which table codes a symbol.

    Attributes:
        lut: the level of each left + up, ``(2 * num_values - 1,)``, not falling.
        num_levels: of ``lut``.
        classes: of each plane, ``(planes,)``.
        num_classes: of ``classes``.
    """

    lut: Octets
    num_levels: int
    classes: Octets
    num_classes: int

    @property
    def num_tables(self) -> int:
        """One for each class and level."""
        return self.num_classes * self.num_levels


def encode_side(contexts: Contexts, logs: Counts, max_log: int) -> bytes:
    """Code contexts and log-frequency tables, ``(num_tables, num_symbols)``, for ``decode_side``."""
    lut, _, classes, num_classes = contexts
    _check(logs.ndim == 2 and len(logs) == contexts.num_tables, "logs", logs)
    data = np.empty(64 + 2 * logs.size + classes.size, np.uint8)
    sizes = (num_classes, logs, *logs.shape, max_log)
    size = _encode_side(data, data.size, lut, lut.size, classes, classes.size, *sizes)
    return data[: max(size, 0)].tobytes()


def decode_side(
    data: Octets, planes: int, num_classes: int, most_tables: int, num_symbols: int, max_log: int
) -> tuple[Contexts, Counts] | None:
    """The contexts and tables that ``encode_side`` coded; None for more than ``most_tables`` or an unknown class."""
    lut, classes = np.zeros(2 * num_symbols - 1, np.uint8), np.zeros(planes, np.uint8)
    logs = np.zeros((min(most_tables, MAX_LEVELS * num_classes), num_symbols), np.int64)
    sizes = (num_classes, logs, *logs.shape, max_log)
    num_levels = _decode_side(data, data.size, lut, lut.size, classes, planes, *sizes)
    if num_levels < 0:
        return None
    return Contexts(lut, num_levels, classes, num_classes), logs[: num_levels * num_classes]


def encode_symbols(grid: Grid, lut: Octets) -> bytes:
    """Code a whole small tensor adaptively, by the levels of ``lut``; empty when packing the bits would be smaller."""
    _check(lut.shape == (2 * grid.num_values - 1,) and int(lut.max()) == int(lut[-1]) < MAX_LEVELS, "lut", lut)
    data = np.empty((grid.symbols.size * grid.bit_width + 7) // 8 + 8, np.uint8)
    size = _encode_symbols(data, data.size, grid.symbols, *grid.layout, grid.fill, grid.bit_width, lut)
    return data[: max(size, 0)].tobytes()


def decode_symbols(data: Octets, layout: Layout, bit_width: int, fill: int) -> Octets | None:
    """Undo ``encode_symbols``; None for more levels than an encoder uses."""
    _check_alphabet(bit_width, fill)
    symbols, lut = np.empty(layout.num_symbols, np.uint8), np.empty((2 << bit_width) - 1, np.uint8)
    return None if _decode_symbols(data, data.size, symbols, *layout, fill, bit_width, lut) < 0 else symbols


def choose_levels(grid: Grid, stride: int, most_levels: int) -> tuple[Octets, Counts]:
    """A ``lut`` of so many levels at most, about equally used, and each plane's Σ|symbol − fill|, ``(planes,)``.

    Both are judged on every ``stride``-th row.
    """
    _check(1 <= most_levels <= MAX_LEVELS, "most_levels", most_levels)
    lut, activity = np.empty(2 * grid.num_values - 1, np.uint8), np.empty(grid.layout.planes, np.int64)
    _choose_levels(grid.symbols, *grid.layout, grid.fill, grid.num_values, stride, most_levels, lut, activity)
    return lut, activity


def context_histogram(grid: Grid, contexts: Contexts) -> Counts:
    """How often each symbol follows each context: ``(num_tables, num_values)``."""
    hist = np.zeros((contexts.num_tables, grid.num_values), np.int64)
    tables = (*_contexts(contexts, grid.layout, hist), hist, *hist.shape)
    _context_histogram(grid.symbols, *grid.layout, grid.fill, *tables)
    return hist


def _contexts(contexts: Contexts, layout: Layout, tables: Counts) -> tuple[Octets, int, Octets]:
    """The arguments of a C function, which itself looks whether each context has a table."""
    lut, num_levels, classes, _ = contexts
    _check(lut.shape == (2 * tables.shape[1] - 1,), "lut", lut)
    _check(classes.shape == (layout.planes,), "classes", classes)
    _check(len(tables) == contexts.num_tables, "tables", tables)
    return lut, num_levels, classes


@functools.cache
def _n_log_n() -> NDArray[np.float64]:
    table = np.empty(1024)
    _fill_n_log_n(table)
    return table


def merge_costs(hist: Counts, bits_per_entry: float) -> NDArray[np.float64]:
    """Bits for symbols and tables when contexts are merged: ``(2, 8)``, infinite where not offered.

    Entry ``[0, k]`` keeps the classes, ``[1, k]`` merges them; every ``2^k`` neighbouring levels share one table.

    Args:
        hist: ``(num_classes, num_levels, num_symbols)``.
        bits_per_entry: what one entry of a table is taken to cost.
    """
    costs = np.full((2, 8), np.inf)
    _merge_costs(hist, *hist.shape, bits_per_entry, _n_log_n(), costs)
    return costs


def choose_logs(hist: Counts, step: int) -> Counts:
    """Log-frequencies that cost least in all: coded symbols plus the table's own bits.

    0 means absent; otherwise the weight is ``2^((log - 1) * step / 8)``.
    """
    logs = np.empty_like(hist)
    _choose_logs(hist, *hist.shape, step, logs)
    return logs


def frequencies(logs: Counts, step: int, bits: int) -> Counts:
    """Integer frequencies of each table, summing to ``2^bits``, the shape of ``logs``. Integers only."""
    freq = np.empty_like(logs)
    _frequencies(logs, *logs.shape, step, bits, freq)
    return freq


def encode_static(grid: Grid, contexts: Contexts, freq: Counts, bits: int, most_words: int) -> bytes:
    """The rANS words of symbols by these tables; empty when there would be more than ``most_words``."""
    _check(freq.shape[1] == grid.num_values, "freq", freq)
    words = np.empty(most_words, np.uint16)
    tables = (*_contexts(contexts, grid.layout, freq), freq, *freq.shape, bits)
    first = _encode_static(grid.symbols, *grid.layout, grid.fill, *tables, words, words.size)
    return b"" if first < 0 else words[first:].astype("<u2", copy=False).tobytes()


def decode_static(
    coded: memoryview, layout: Layout, fill: int, contexts: Contexts, freq: Counts, bits: int
) -> Octets | None:
    """Undo ``encode_static``; None for a stream that is not whole."""
    _check(0 <= fill < freq.shape[1], "fill", fill)
    words = np.zeros(len(coded) // 2 + 1, np.uint16)  # the zero at the end may be read ahead
    words[:-1] = np.frombuffer(coded, "<u2")
    symbols = np.empty(layout.num_symbols, np.uint8)
    tables = (*_contexts(contexts, layout, freq), freq, *freq.shape, bits)
    return symbols if _decode_static(symbols, *layout, fill, *tables, words, words.size) else None


def _check_alphabet(bit_width: int, fill: int) -> None:
    _check(1 <= bit_width <= 8, "bit_width", bit_width)
    _check(0 <= fill < 1 << bit_width, "fill", fill)


def _check(is_right: bool, name: str, value: object) -> None:
    if not is_right:
        shown = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else value
        raise ValueError(f"{name} must fit the symbols that are coded, got {shown}")
