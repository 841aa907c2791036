"""Numba coders of whole tensors, with the choice of their contexts and tables; and a coder of integers by given tables.

The coder of integers (``encode``, ``decode``) is rANS with a 24-bit state, by bytes (Duda 2014, arXiv 1311.2540): exact
on every machine. A table's frequencies sum to ``2^SCALE_BITS``; its last entry is the escape to 16 raw bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitsem.codecs.entropy import adaptive, static
from splitsem.codecs.fields import Reader
from splitsem.errors import PayloadError

ADAPTIVE_UP_TO = 32_768  # symbols; above, tables cost less than the adaptive coder's time
MAX_LEVELS = 16
NUM_CLASSES = 4
_MOST_FLAT_BITS = 2
_FLAT_LOSS_BITS = 0.004  # bits a symbol that may be lost by not modelling low bits: it buys smaller tables
_SYMBOLS_PER_FINE_ENTRY = 128  # tables in quarters of an octave from here on, in halves below
_ENTRY_BITS = 6.0  # what a table entry costs on the wire and in fit, about
_SYMBOLS_PER_ENTRY = 12  # more tables than this many symbols can fill do not pay, and take time to judge


class Layout(NamedTuple):
    """How a tensor's symbols lie: ``planes`` pictures of ``rows × cols``."""

    planes: int
    rows: int
    cols: int

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "Layout":
        """The last two dimensions are the picture; planes of one value are laid out as one row."""
        num = int(np.prod(shape, dtype=np.int64))
        if len(shape) < 2:
            return cls(1, 1, num)
        rows, cols = shape[-2:]
        return cls(1, 1, num) if rows * cols == 1 else cls(num // (rows * cols), rows, cols)


def encode_static(symbols: NDArray[np.uint8], layout: Layout, bit_width: int, fill: int, max_levels: int) -> bytes:
    """Static rANS; ``max_levels`` 1 is order 0. Empty when packing the bits would be smaller."""
    num_flat = _num_flat_bits(symbols, bit_width) if max_levels > 1 else 0
    planes_of_bits = [np.packbits(symbols >> np.uint8(k) & np.uint8(1)).tobytes() for k in range(num_flat)]
    symbols, fill, num_symbols = symbols >> np.uint8(num_flat), fill >> num_flat, 1 << bit_width - num_flat
    lut, classes, hist, num_classes = _choose_contexts(symbols, layout, fill, num_symbols, max_levels)
    is_fine = symbols.size >= _SYMBOLS_PER_FINE_ENTRY * hist.size
    step, bits = 2 if is_fine else 4, 14 if hist.shape[0] == 1 else 12
    logs = static.choose_logs(hist, step)
    side = np.zeros(64 + 2 * logs.size + layout.planes, np.uint8)
    side_size, num_levels = adaptive.code_side(side, lut, classes, num_classes, logs, static.MAX_LOG // step, True)
    room = (symbols.size * bit_width) // 16 + 2 * static.NUM_STATES  # words; more than packing is of no use
    words = np.empty(room, np.uint16)
    freq = static.frequencies(logs, step, bits)
    first = static.encode(symbols, *layout, fill, lut, num_levels, classes, freq, bits, words) if side_size > 0 else -1
    if first < 0:
        return b""
    flags = is_fine | (bits == 14) << 1 | num_classes - 1 << 2 | num_flat << 4
    header = bytes((flags,)) + int(side_size).to_bytes(3, "little") + side[:side_size].tobytes()
    return b"".join((header, *planes_of_bits, words[first:].astype("<u2").tobytes()))


def decode_static(body: memoryview, layout: Layout, bit_width: int, fill: int) -> NDArray[np.uint8]:
    """Undo ``encode_static``."""
    num = layout.planes * layout.rows * layout.cols
    reader = Reader(body)
    flags = reader.byte("rANS flags")
    step, bits = 2 if flags & 1 else 4, 14 if flags & 2 else 12
    num_classes, num_flat = (flags >> 2 & 3) + 1, flags >> 4
    if num_flat > min(_MOST_FLAT_BITS, bit_width - 1):
        raise PayloadError(f"expected rANS flags for {bit_width}-bit symbols, got {flags:#x}")
    side = np.frombuffer(reader.take(int.from_bytes(reader.take(3, "size"), "little"), "tables"), np.uint8).copy()
    planes_of_bits = [np.frombuffer(reader.take((num + 7) // 8, "low bits"), np.uint8) for _ in range(num_flat)]
    coded = reader.rest()
    if len(coded) % 2:
        raise PayloadError(f"expected whole rANS words, got {len(coded)} bytes")
    words = np.zeros(len(coded) // 2 + 1, np.uint16)
    words[:-1] = np.frombuffer(coded, "<u2")
    num_symbols, fill = 1 << bit_width - num_flat, fill >> num_flat
    most = _most_tables(num, num_symbols)
    if num_classes > most:
        raise PayloadError(f"expected at most {most} tables for {num} symbols, got {num_classes} and more")
    lut = np.zeros(2 * num_symbols - 1, np.uint8)
    classes = np.zeros(layout.planes, np.uint8)
    logs = np.zeros((min(MAX_LEVELS * num_classes, most), num_symbols), np.int64)
    max_log = static.MAX_LOG // step
    num_levels = adaptive.code_side(side, lut, classes, num_classes, logs, max_log, False)[1]
    if num_levels < 0:
        raise PayloadError(f"expected at most {most} tables for {num} symbols and each plane's class, got others")
    freq = static.frequencies(logs[: num_levels * num_classes], step, bits)
    symbols = np.empty(num, np.uint8)
    if not static.decode(words, *layout, fill, lut, num_levels, classes, freq, bits, symbols):
        raise PayloadError(f"expected a whole rANS stream of {num} symbols, got a damaged one")
    symbols <<= np.uint8(num_flat)
    for k, plane in enumerate(planes_of_bits):
        symbols |= np.unpackbits(plane, count=num) << np.uint8(k)
    return symbols


def encode_adaptive(symbols: NDArray[np.uint8], layout: Layout, bit_width: int, fill: int, max_levels: int) -> bytes:
    """The adaptive coder, for small tensors. Empty when packing the bits would be smaller."""
    num_symbols = 1 << bit_width
    lut = np.zeros(2 * num_symbols - 1, np.uint8)
    if max_levels > 1:
        max_levels = min(max_levels, 2 + symbols.size // 512)
        sum_hist, _ = static.sum_histogram(symbols, *layout, fill, num_symbols, 1)
        lut = _levels(sum_hist, max_levels)
    data = np.zeros((symbols.size * bit_width + 7) // 8 + 8, np.uint8)
    size = adaptive.code_symbols(data, symbols, *layout, fill, bit_width, lut, True)
    return data[: max(size, 0)].tobytes()


def decode_adaptive(body: memoryview, layout: Layout, bit_width: int, fill: int) -> NDArray[np.uint8]:
    """Undo ``encode_adaptive``."""
    lut = np.zeros((2 << bit_width) - 1, np.uint8)
    symbols = np.zeros(layout.planes * layout.rows * layout.cols, np.uint8)
    data = np.frombuffer(body, np.uint8).copy()
    if adaptive.code_symbols(data, symbols, *layout, fill, bit_width, lut, False) < 0:
        raise PayloadError("expected the contexts of an adaptive coder, got a damaged body")
    return symbols


def _num_flat_bits(symbols: NDArray[np.uint8], bit_width: int) -> int:
    """How many low bits are too evenly spread for tables to gain anything on them: 0…2, judged on every 8th symbol."""
    sample = symbols[::8].copy()
    none, no_class = np.zeros(2 * 256 - 1, np.uint8), np.zeros(1, np.uint8)
    counts = static.context_histogram(sample, 1, 1, sample.size, 0, none, 1, no_class, 1, 1 << bit_width)[0]

    def bits_per_symbol(counts: NDArray[np.int64]) -> float:
        used = counts[counts > 0] / sample.size
        return float(-(used * np.log2(used)).sum() + (used.size - 1) * 0.72 / sample.size)  # Miller–Madow

    whole = bits_per_symbol(counts)
    for num_flat in range(min(_MOST_FLAT_BITS, bit_width - 4), 0, -1):
        if num_flat + bits_per_symbol(counts.reshape(-1, 1 << num_flat).sum(axis=1)) - whole < _FLAT_LOSS_BITS:
            return num_flat
    return 0


def _most_tables(num: int, num_symbols: int) -> int:
    """The most tables that so many symbols are coded with."""
    return max(num // (_SYMBOLS_PER_ENTRY * num_symbols), 1)


def _levels(sum_hist: NDArray[np.int64], max_levels: int) -> NDArray[np.uint8]:
    """Map left + up to about equally used levels, numbered without gaps."""
    middle = np.cumsum(sum_hist) - sum_hist / 2
    raw = (middle * (max_levels / max(int(sum_hist.sum()), 1))).astype(np.int64)
    steps = np.diff(np.minimum(raw, max_levels - 1), prepend=raw[:1]) > 0
    return np.cumsum(steps).astype(np.uint8)


def _choose_contexts(
    symbols: NDArray[np.uint8], layout: Layout, fill: int, num_symbols: int, max_levels: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64], int]:
    """The number of levels and classes whose tables and symbols together cost least."""
    lut = np.zeros(2 * num_symbols - 1, np.uint8)
    classes = np.zeros(layout.planes, np.uint8)
    most = _most_tables(symbols.size, num_symbols)
    num_classes = NUM_CLASSES if max_levels > 1 and layout.planes >= 2 * NUM_CLASSES and most >= NUM_CLASSES else 1
    if max_levels > 1:
        max_levels = min(max_levels, most // num_classes)
        stride = 2 if layout.rows >= 8 else 1  # half of the rows tell enough about where to put the levels
        sum_hist, activity = static.sum_histogram(symbols, *layout, fill, num_symbols, stride)
        lut = _levels(sum_hist, max_levels)
        rank = np.argsort(np.argsort(activity, kind="stable"), kind="stable")
        classes = (rank * num_classes // layout.planes).astype(np.uint8)
    num_levels = int(lut[-1]) + 1
    hist = static.context_histogram(symbols, *layout, fill, lut, num_levels, classes, num_classes, num_symbols)
    if hist.shape[0] == 1:
        return lut, classes, hist, 1
    hist = hist.reshape(num_classes, num_levels, num_symbols)
    costs = static.merge_costs(hist, _ENTRY_BITS)
    costs[0] += 2 * layout.planes  # the classes themselves
    merged, halvings = np.unravel_index(np.argmin(costs), costs.shape)
    if merged or num_classes == 1:
        hist, classes, num_classes = hist.sum(axis=0, keepdims=True), np.zeros_like(classes), 1
    hist = np.add.reduceat(hist, np.arange(0, num_levels, 1 << halvings), axis=1)
    return lut >> np.uint8(halvings), classes, hist.reshape(-1, num_symbols), num_classes


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
    return (head + bytes(reversed(out))).rstrip(b"\0")


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
