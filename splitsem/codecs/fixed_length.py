"""FixedLength: affine quantisation whose symbols keep their length, so that a wrong bit damages one value only."""

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from splitsem.codecs import entropy, tolerant, wire
from splitsem.codecs.codec import Tensors
from splitsem.codecs.quantise import Quantise, read_affine, write_affine
from splitsem.errors import PayloadError

Mapping = Literal["natural", "gray"]
Order = Literal["symbols", "planes"]
_GRAY_FLAG, _PLANES_FLAG = 0x40, 0x80  # beside the quantiser's own


class FixedLength(Quantise):
    """``Quantise`` without entropy coding, in the tolerant wire format: the baseline where links damage bits.

    Header, scales and integer tensors are protected; every other bit may arrive wrong. A wrong bit moves a value by
    ``2^k`` steps (natural mapping).

    Args:
        bit_width: b, 1…16.
        granularity: see Quantise.
        clipping: see Quantise.
        percentile: see Quantise.
        mapping: ``natural`` binary, or ``gray``: neighbouring values differ in one bit, but one wrong bit can move a
            value farther.
        order: ``symbols``: value after value. ``planes``: the most significant bits of all values first, then the next
            ones: bits in order of importance, which is what a link's ``priority_share`` protects from the front.
    """

    codec_id = wire.CodecId.FIXED_LENGTH

    def __init__(
        self,
        bit_width: int = 8,
        granularity: Literal["tensor", "channel"] = "tensor",
        clipping: Literal["auto", "minmax", "percentile", "mse"] = "auto",
        percentile: float = 99.9,
        mapping: Mapping = "natural",
        order: Order = "symbols",
    ) -> None:
        super().__init__(bit_width, granularity, clipping, percentile, entropy="none")
        if mapping not in get_args(Mapping):
            raise ValueError(f"mapping must be one of {', '.join(get_args(Mapping))}, got {mapping!r}")
        if order not in get_args(Order):
            raise ValueError(f"order must be one of {', '.join(get_args(Order))}, got {order!r}")
        self.mapping, self.order = mapping, order

    @torch.no_grad()
    def encode(self, z: Tensors) -> bytes:
        """See Codec."""
        parts = []
        for t in z:
            t = t.detach().cpu().contiguous()
            if not t.is_floating_point():
                parts.append(tolerant.TolerantPart(t.dtype, tuple(t.shape), wire.raw_body(t), b""))
                continue
            symbols, affine = self.symbols(t)
            settings = bytearray(write_affine(affine, self.bit_width, self._is_channelwise(tuple(t.shape))))
            settings[0] |= (_GRAY_FLAG if self.mapping == "gray" else 0) | (_PLANES_FLAG if self._is_planes else 0)
            mapped = symbols ^ (symbols >> 1) if self.mapping == "gray" else symbols
            body = pack_symbols(mapped, self.bit_width, self._is_planes)
            parts.append(tolerant.TolerantPart(t.dtype, tuple(t.shape), bytes(settings), body))
        return tolerant.pack(self.codec_id, parts)

    @torch.no_grad()
    def decode(self, payload: bytes) -> Tensors:
        """See Codec; only damage to the header raises. Every setting is read from the bytes."""
        return tuple(
            self._decode_part(part)
            if part.dtype.is_floating_point
            else wire.tensor_from_raw(wire.Part(part.dtype, part.shape, part.settings))
            for part in tolerant.unpack(payload, self.codec_id)
        )

    def protected_bytes(self, payload: bytes) -> int:
        """See Codec: the header."""
        return tolerant.header_bytes(payload)

    def _decode_part(self, part: tolerant.TolerantPart) -> torch.Tensor:
        if not part.settings:
            raise PayloadError("expected a quantiser's settings, got none")
        flags = part.settings[0]
        reader = wire.Reader(bytes((flags & ~(_GRAY_FLAG | _PLANES_FLAG),)) + bytes(part.settings[1:]))
        affine, bit_width = read_affine(reader, part.shape)
        reader.finish()
        symbols = unpack_symbols(part.body, wire.Part(*part[:2], b"").numel, bit_width, bool(flags & _PLANES_FLAG))
        if flags & _GRAY_FLAG:
            symbols = _from_gray(symbols)
        return self.values(symbols, affine, part.dtype, part.shape)

    @property
    def _is_planes(self) -> bool:
        return self.order == "planes"


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
) -> entropy.Symbols:
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


def _from_gray(symbols: entropy.Symbols) -> entropy.Symbols:
    for shift in (8, 4, 2, 1):
        symbols = (symbols ^ symbols >> shift).astype(np.uint16)
    return symbols
