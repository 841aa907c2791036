"""Coders of whole tensors, with the choice of their contexts and tables; and a coder of integers by given tables.

The coder of integers (``encode``, ``decode``) is rANS with a 24-bit state, by bytes (Duda 2014, arXiv 1311.2540): exact
on every machine. A table's frequencies sum to ``2^SCALE_BITS``; its last entry is the escape to 16 raw bits.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from splitsem_device.entropy import kernels
from splitsem_device.entropy.kernels import MAX_LOG, NUM_STATES, Contexts, Counts, Grid, Layout, Octets
from splitsem_device.errors import PayloadError
from splitsem_device.fields import Reader

ADAPTIVE_UP_TO = 32_768  # symbols; above, tables cost less than the adaptive coder's time
NUM_CLASSES = 4
_MOST_FLAT_BITS = 2
_FLAT_LOSS_BITS = 0.004  # bits a symbol that may be lost by not modelling low bits: it buys smaller tables
_SYMBOLS_PER_FINE_ENTRY = 128  # tables in quarters of an octave from here on, in halves below
_ENTRY_BITS = 6.0  # what a table entry costs on the wire and in fit, about
_SYMBOLS_PER_ENTRY = 12  # more tables than this many symbols can fill do not pay, and take time to judge


def encode_static(symbols: Octets, layout: Layout, bit_width: int, fill: int, max_levels: int) -> bytes:
    """Static rANS; ``max_levels`` 1 is order 0. Empty when packing the bits would be smaller."""
    num_flat = _num_flat_bits(symbols, bit_width) if max_levels > 1 else 0
    planes_of_bits = [np.packbits(symbols >> np.uint8(k) & np.uint8(1)).tobytes() for k in range(num_flat)]
    grid = Grid(symbols >> np.uint8(num_flat), layout, bit_width - num_flat, fill >> num_flat)
    contexts, hist = _choose_contexts(grid, max_levels)
    is_fine = symbols.size >= _SYMBOLS_PER_FINE_ENTRY * hist.size
    step, bits = 2 if is_fine else 4, 14 if len(hist) == 1 else 12
    logs = kernels.choose_logs(hist, step)
    side = kernels.encode_side(contexts, logs, MAX_LOG // step)
    most_words = (symbols.size * bit_width) // 16 + 2 * NUM_STATES  # more than packing is of no use
    words = kernels.encode_static(grid, contexts, kernels.frequencies(logs, step, bits), bits, most_words)
    if not (side and words):
        return b""
    flags = is_fine | (bits == 14) << 1 | contexts.num_classes - 1 << 2 | num_flat << 4
    return b"".join((bytes((flags,)), len(side).to_bytes(3, "little"), side, *planes_of_bits, words))


def decode_static(body: memoryview, layout: Layout, bit_width: int, fill: int) -> Octets:
    """Undo ``encode_static``."""
    num = layout.num_symbols
    reader = Reader(body)
    flags = reader.byte("rANS flags")
    step, bits = 2 if flags & 1 else 4, 14 if flags & 2 else 12
    num_classes, num_flat = (flags >> 2 & 3) + 1, flags >> 4
    if num_flat > min(_MOST_FLAT_BITS, bit_width - 1):
        raise PayloadError(f"expected rANS flags for {bit_width}-bit symbols, got {flags:#x}")
    side = np.frombuffer(reader.take(int.from_bytes(reader.take(3, "size"), "little"), "tables"), np.uint8)
    planes_of_bits = [np.frombuffer(reader.take((num + 7) // 8, "low bits"), np.uint8) for _ in range(num_flat)]
    coded = reader.rest()
    if len(coded) % 2:
        raise PayloadError(f"expected whole rANS words, got {len(coded)} bytes")
    num_values, fill = 1 << bit_width - num_flat, fill >> num_flat
    most = _most_tables(num, num_values)
    if num_classes > most:
        raise PayloadError(f"expected at most {most} tables for {num} symbols, got {num_classes} and more")
    found = kernels.decode_side(side, layout.planes, num_classes, most, num_values, MAX_LOG // step)
    if found is None:
        raise PayloadError(f"expected at most {most} tables for {num} symbols and each plane's class, got others")
    contexts, logs = found
    symbols = kernels.decode_static(coded, layout, fill, contexts, kernels.frequencies(logs, step, bits), bits)
    if symbols is None:
        raise PayloadError(f"expected a whole rANS stream of {num} symbols, got a damaged one")
    symbols <<= np.uint8(num_flat)
    for k, plane in enumerate(planes_of_bits):
        symbols |= np.unpackbits(plane, count=num) << np.uint8(k)
    return symbols


def encode_adaptive(symbols: Octets, layout: Layout, bit_width: int, fill: int, max_levels: int) -> bytes:
    """The adaptive coder, for small tensors. Empty when packing the bits would be smaller."""
    grid = Grid(symbols, layout, bit_width, fill)
    lut = np.zeros(2 * grid.num_values - 1, np.uint8)
    if max_levels > 1:
        lut, _ = kernels.choose_levels(grid, 1, min(max_levels, 2 + symbols.size // 512))
    return kernels.encode_symbols(grid, lut)


def decode_adaptive(body: memoryview, layout: Layout, bit_width: int, fill: int) -> Octets:
    """Undo ``encode_adaptive``."""
    symbols = kernels.decode_symbols(np.frombuffer(body, np.uint8), layout, bit_width, fill)
    if symbols is None:
        raise PayloadError("expected the contexts of an adaptive coder, got a damaged body")
    return symbols


def _num_flat_bits(symbols: Octets, bit_width: int) -> int:
    """How many low bits are too evenly spread for tables to gain anything on them: 0…2, judged on every 8th symbol."""
    sample = symbols[::8]
    counts = np.bincount(sample, minlength=1 << bit_width)

    def bits_per_symbol(counts: Counts) -> float:
        used = counts[counts > 0] / sample.size
        return float(-(used * np.log2(used)).sum() + (used.size - 1) * 0.72 / sample.size)  # Miller–Madow

    whole = bits_per_symbol(counts)
    for num_flat in range(min(_MOST_FLAT_BITS, bit_width - 4), 0, -1):
        if num_flat + bits_per_symbol(counts.reshape(-1, 1 << num_flat).sum(axis=1)) - whole < _FLAT_LOSS_BITS:
            return num_flat
    return 0


def _most_tables(num: int, num_values: int) -> int:
    """The most tables that so many symbols of so many values are coded with."""
    return max(num // (_SYMBOLS_PER_ENTRY * num_values), 1)


def _choose_contexts(grid: Grid, max_levels: int) -> tuple[Contexts, Counts]:
    """The levels and classes whose tables and symbols together cost least, and each table's histogram."""
    layout, num_values = grid.layout, grid.num_values
    lut = np.zeros(2 * num_values - 1, np.uint8)
    classes = np.zeros(layout.planes, np.uint8)
    most = _most_tables(grid.symbols.size, num_values)
    num_classes = NUM_CLASSES if max_levels > 1 and layout.planes >= 2 * NUM_CLASSES and most >= NUM_CLASSES else 1
    if max_levels > 1:
        stride = 2 if layout.rows >= 8 else 1  # half of the rows tell enough about where to put the levels
        lut, activity = kernels.choose_levels(grid, stride, min(max_levels, most // num_classes))
        rank = np.argsort(np.argsort(activity, kind="stable"), kind="stable")
        classes = (rank * num_classes // layout.planes).astype(np.uint8)
    num_levels = int(lut[-1]) + 1
    contexts = Contexts(lut, num_levels, classes, num_classes)
    hist = kernels.context_histogram(grid, contexts)
    if len(hist) == 1:
        return contexts, hist
    hist = hist.reshape(num_classes, num_levels, num_values)
    costs = kernels.merge_costs(hist, _ENTRY_BITS)
    costs[0] += 2 * layout.planes  # the classes themselves
    merged, halvings = np.unravel_index(np.argmin(costs), costs.shape)
    if merged or num_classes == 1:
        hist, classes, num_classes = hist.sum(axis=0, keepdims=True), np.zeros_like(classes), 1
    hist = np.add.reduceat(hist, np.arange(0, num_levels, 1 << halvings), axis=1)
    lut = lut >> np.uint8(halvings)
    return Contexts(lut, int(lut[-1]) + 1, classes, num_classes), hist.reshape(-1, num_values)


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
