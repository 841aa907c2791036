"""Entropy coding of quantised symbols: ``none``, ``zstd``, ``rans`` (order 0) or ``context`` (context-adaptive)."""

import math
from collections.abc import Callable

import numpy as np
import zstandard
from numpy.typing import NDArray

from splitsem_device.entropy import choice, maps
from splitsem_device.entropy.bits import pack_bits, packed_size, unpack_bits
from splitsem_device.entropy.maps import Octets
from splitsem_device.errors import PayloadError

AUTO = "auto"
Symbols = Octets | NDArray[np.uint16]
_Stage = Callable[[Octets, tuple[int, ...], int, int], tuple[int, bytes]]
_PACKED, _ZSTD, _MAP = 0, 1, 5  # first byte of a coded body; 2, 3 and 4 were earlier coders


def check_entropy(name: str, rate_bps: float | None = None, *, may_choose: bool = False) -> str:
    """Return ``name`` when it is an entropy stage, else raise ValueError.

    Args:
        name: of a stage, or ``auto``.
        rate_bps: the link's rate, needed by ``auto``.
        may_choose: ``auto`` is one of the stages.
    """
    known = (*_STAGES, AUTO) if may_choose else tuple(_STAGES)
    if name not in known:
        raise ValueError(f"entropy must be one of {', '.join(known)}, got {name!r}")
    if name == AUTO and rate_bps is None:
        raise ValueError("entropy=auto needs the link's rate: give rate_bps, e.g. 20e6, or another entropy stage")
    if name == AUTO and not 0 < (rate_bps or 0) < math.inf:
        raise ValueError(f"rate_bps must be positive and finite, got {rate_bps}")
    return name


def encode(
    symbols: Symbols, shape: tuple[int, ...], bit_width: int, fill: int, entropy: str, rate_bps: float | None = None
) -> bytes:
    """Code symbols below ``2^bit_width``; never more than one byte larger than packing their bits.

    Args:
        symbols: 1-d, uint8, or uint16 where ``bit_width`` is above 8; row-major of ``shape``.
        shape: the tensor's shape, from which the context coder knows each symbol's neighbours.
        bit_width: 1…16. Above 8 only the upper 8 bits are modelled; the lower ones are packed.
        fill: the symbol of the value zero, known to both ends.
        entropy: ``none``, ``zstd``, ``rans`` or ``context``; ``auto`` is ``context`` where that pays, else ``none``.
        rate_bps: bits a second of the link, for ``auto``.
    """
    if bit_width > 8:
        low_bits = bit_width - 8
        low = pack_bits((symbols & ((1 << low_bits) - 1)).astype(np.uint8), low_bits)
        high = (symbols >> low_bits).astype(np.uint8)
        return low + encode(high, shape, 8, fill >> low_bits, entropy, rate_bps)
    octets = np.ascontiguousarray(symbols, np.uint8)
    if entropy == AUTO:
        check_entropy(entropy, rate_bps, may_choose=True)
        entropy = "context" if octets.size and choice.pays(octets, bit_width, rate_bps or 0) else "none"
    mode, body = _STAGES[entropy](octets, shape, bit_width, fill)
    if mode == _PACKED or not body or len(body) >= packed_size(symbols.size, bit_width):
        mode, body = _PACKED, pack_bits(octets, bit_width)
    return bytes((mode,)) + body


def decode(body: memoryview, shape: tuple[int, ...], bit_width: int, fill: int) -> Symbols:
    """Undo ``encode``; the body says itself how it was coded.

    Raises:
        PayloadError: when the body is not one that ``encode`` makes.
    """
    num = math.prod(shape)
    if bit_width > 8:
        low_bits = bit_width - 8
        low_size = packed_size(num, low_bits)
        low = unpack_bits(body[:low_size], num, low_bits)
        high = decode(body[low_size:], shape, 8, fill >> low_bits)
        return np.left_shift(high, low_bits, dtype=np.uint16) | low
    if len(body) == 0:
        raise PayloadError("expected an entropy-coded body, got no bytes")
    mode, coded = body[0], body[1:]
    if mode == _PACKED:
        return unpack_bits(coded, num, bit_width)
    if mode == _ZSTD:
        return _decode_zstd(coded, num, bit_width)
    if mode != _MAP:
        raise PayloadError(f"expected entropy mode {_PACKED}, {_ZSTD} or {_MAP}, got {mode}")
    return maps.decode(coded, shape, bit_width, fill)


def _encode_packed(symbols: Octets, shape: tuple[int, ...], bit_width: int, fill: int) -> tuple[int, bytes]:
    return _PACKED, b""


def _encode_zstd(symbols: Octets, shape: tuple[int, ...], bit_width: int, fill: int) -> tuple[int, bytes]:
    # whole symbols in a byte let zstd's Huffman stage spend fractions of a bit on each
    plain = pack_bits(symbols, bit_width) if 8 % bit_width == 0 else symbols.tobytes()
    return _ZSTD, zstandard.ZstdCompressor(level=3).compress(plain)


def _decode_zstd(coded: memoryview, num: int, bit_width: int) -> Octets:
    expected = packed_size(num, bit_width) if 8 % bit_width == 0 else num
    try:
        if (size := zstandard.frame_content_size(coded)) != expected:  # checked before anything is allocated
            raise PayloadError(f"expected a zstd frame of {expected} bytes, got one of {size}")
        plain = zstandard.ZstdDecompressor().decompress(coded, max_output_size=expected, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise PayloadError(f"expected a zstd frame, got: {exc}") from exc
    if 8 % bit_width == 0:
        return unpack_bits(memoryview(plain), num, bit_width)
    symbols = np.frombuffer(plain, np.uint8).copy()
    if symbols.size != num or int(symbols.max(initial=0)) >> bit_width:
        raise PayloadError(f"expected {num} symbols below {1 << bit_width}, got {symbols.size} up to {symbols.max()}")
    return symbols


def _encode_order_0(symbols: Octets, shape: tuple[int, ...], bit_width: int, fill: int) -> tuple[int, bytes]:
    return _MAP, maps.encode(symbols, shape, bit_width, fill, is_order_0=True)


def _encode_context(symbols: Octets, shape: tuple[int, ...], bit_width: int, fill: int) -> tuple[int, bytes]:
    return _MAP, maps.encode(symbols, shape, bit_width, fill)


_STAGES: dict[str, _Stage] = {
    "none": _encode_packed,
    "zstd": _encode_zstd,
    "rans": _encode_order_0,
    "context": _encode_context,
}
