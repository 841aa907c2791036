"""Fixed-length bit packing of symbols of 1 to 8 bits, most significant bit first."""

import numpy as np
from numpy.typing import NDArray

from splitsem.errors import PayloadError


def packed_size(num_symbols: int, bit_width: int) -> int:
    """Bytes that ``num_symbols`` symbols of ``bit_width`` bits take."""
    return (num_symbols * bit_width + 7) // 8


def pack_bits(symbols: NDArray[np.uint8], bit_width: int) -> bytes:
    """Pack symbols below ``2^bit_width`` (1…8 bits): eight symbols share one 64-bit word."""
    if bit_width == 8:
        return symbols.tobytes()
    if bit_width == 1:
        return np.packbits(symbols).tobytes()
    num_words = (symbols.size + 7) // 8
    groups = np.zeros((num_words, 8), np.uint8)
    groups.reshape(-1)[: symbols.size] = symbols
    words = np.zeros(num_words, np.uint64)
    for k in range(8):
        words |= groups[:, k].astype(np.uint64) << np.uint64(64 - bit_width * (k + 1))
    octets = words.astype(">u8").view(np.uint8).reshape(num_words, 8)[:, :bit_width]
    return octets.tobytes()[: packed_size(symbols.size, bit_width)]


def unpack_bits(data: memoryview, num_symbols: int, bit_width: int) -> NDArray[np.uint8]:
    """Undo ``pack_bits``.

    Raises:
        PayloadError: when ``data`` is not exactly as long as the symbols need.
    """
    size = packed_size(num_symbols, bit_width)
    if len(data) != size:
        raise PayloadError(f"expected {size} bytes of packed {bit_width}-bit symbols, got {len(data)}")
    octets = np.frombuffer(data, np.uint8)
    if bit_width == 8:
        return octets.copy()
    if bit_width == 1:
        return np.unpackbits(octets, count=num_symbols)
    num_words = (num_symbols + 7) // 8
    padded = np.zeros((num_words, 8), np.uint8)
    whole = np.zeros(num_words * bit_width, np.uint8)
    whole[:size] = octets
    padded[:, :bit_width] = whole.reshape(num_words, bit_width)
    words = padded.view(">u8").astype(np.uint64).reshape(-1)
    symbols = np.empty((num_words, 8), np.uint8)
    for k in range(8):
        symbols[:, k] = (words >> np.uint64(64 - bit_width * (k + 1))).astype(np.uint8) & np.uint8((1 << bit_width) - 1)
    return symbols.reshape(-1)[:num_symbols].copy()
