"""Bit packing of symbols of fixed length, most significant bit first, symbol by symbol or plane by plane; Gray code."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitsem_device.errors import PayloadError

_CHUNK = 1 << 16


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
    octets = np.frombuffer(body, np.uint8)
    symbols = np.zeros(num_symbols, np.uint16)
    if as_planes:
        for k in range(bit_width):
            first = k * num_symbols
            bits = np.unpackbits(octets[first // 8 : -(-(first + num_symbols) // 8)])[first % 8 :][:num_symbols]
            symbols |= bits.astype(np.uint16) << np.uint16(bit_width - 1 - k)
        return symbols
    for start in range(0, num_symbols, _CHUNK):  # a bit takes a byte here: not of all symbols at once
        part = symbols[start : start + _CHUNK]
        flat = np.unpackbits(octets[start * bit_width // 8 :][: _CHUNK * bit_width // 8], count=part.size * bit_width)
        bits_NB = flat.reshape(part.size, bit_width)
        for k in range(bit_width):
            part |= bits_NB[:, k].astype(np.uint16) << np.uint16(bit_width - 1 - k)
    return symbols


def to_gray(symbols: NDArray[Any]) -> NDArray[Any]:
    """Gray-coded: neighbouring symbols differ in one bit."""
    return symbols ^ (symbols >> 1)


def from_gray(symbols: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Undo ``to_gray``."""
    for shift in (8, 4, 2, 1):
        symbols = (symbols ^ symbols >> shift).astype(np.uint16)
    return symbols
