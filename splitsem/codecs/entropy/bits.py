"""Bit packing of symbols of fixed length, most significant bit first, symbol by symbol or plane by plane; Gray code."""

from typing import Any

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


def pack_symbols(symbols: NDArray[np.integer], bit_width: int, as_planes: bool = False) -> bytes:
    """The low ``bit_width`` bits of each symbol, most significant first: symbol by symbol, or plane by plane.

    >>> pack_symbols(np.array([0b10, 0b11, 0b00, 0b01], np.uint16), 2).hex()
    'b1'
    >>> pack_symbols(np.array([0b10, 0b11, 0b00, 0b01], np.uint16), 2, as_planes=True).hex()
    'c5'
    """
    bits = (symbols[:, None] >> np.arange(bit_width - 1, -1, -1, dtype=np.uint16) & 1).astype(np.uint8)
    return np.packbits(bits.T if as_planes else bits).tobytes()


def unpack_symbols(
    body: bytes | memoryview, num_symbols: int, bit_width: int, as_planes: bool = False
) -> NDArray[np.uint16]:
    """Undo ``pack_symbols``. Raises PayloadError when the body has not the size that so many symbols need."""
    expected = -(-num_symbols * bit_width // 8)
    if len(body) != expected:
        raise PayloadError(f"expected {expected} bytes of {bit_width}-bit symbols, got {len(body)}")
    flat = np.unpackbits(np.frombuffer(body, np.uint8), count=num_symbols * bit_width)
    bits_NB = flat.reshape(bit_width, num_symbols).T if as_planes else flat.reshape(num_symbols, bit_width)
    symbols = np.zeros(num_symbols, np.uint16)
    for k in range(bit_width):
        symbols |= bits_NB[:, k].astype(np.uint16) << np.uint16(bit_width - 1 - k)
    return symbols


def to_gray(symbols: NDArray[Any]) -> NDArray[Any]:
    """Gray-coded: neighbouring symbols differ in one bit."""
    return symbols ^ (symbols >> 1)


def from_gray(symbols: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Undo ``to_gray``."""
    for shift in (8, 4, 2, 1):
        symbols = (symbols ^ symbols >> shift).astype(np.uint16)
    return symbols
