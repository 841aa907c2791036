"""FixedLength: affine quantisation whose symbols keep their length, so that a wrong bit damages one value only."""

import math
from typing import Literal, get_args

import numpy as np
import torch

from splitsem.codecs import tolerant, wire
from splitsem.codecs.codec import Tensors
from splitsem.codecs.quantise import Affine, Quantise, read_affine
from splitsem.errors import PayloadError
from splitsem_device.entropy.bits import from_gray, pack_symbols, packed_size, to_gray, unpack_symbols
from splitsem_device.fields import GRAY_FLAG, PLANES_FLAG, affine_bytes

Mapping = Literal["natural", "gray"]
Order = Literal["symbols", "planes"]


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
            shape = tuple(t.shape)
            scales, zeros = affine.scale.numpy(), affine.zero_point.numpy()
            settings = affine_bytes(scales, zeros, self.bit_width, self.is_channelwise(shape), self.flags)
            mapped = to_gray(symbols) if self.mapping == "gray" else symbols
            body = pack_symbols(mapped, self.bit_width, self._is_planes)
            parts.append(tolerant.TolerantPart(t.dtype, shape, settings, body))
        return tolerant.pack(self.codec_id, parts)

    @torch.no_grad()
    def decode(self, payload: bytes) -> Tensors:
        """See Codec; only damage to the header raises. Every setting is read from the bytes."""
        return tuple(
            self._decode_part(part)
            if part.dtype.is_floating_point
            else wire.tensor_from_raw(wire.Part(part.dtype, part.shape, part.settings))
            for part in tolerant.unpack(payload, self.codec_id, self.expected.num_tensors, self.expected.check_heads)
        )

    def protected_bytes(self, payload: bytes) -> int:
        """See Codec: the header."""
        return tolerant.header_bytes(payload)

    @staticmethod
    def zero_bodies(payload: bytes | memoryview) -> bytes:
        """The bodies of a payload with this payload's header in which every value is zero, to fill gaps from.

        Raises PayloadError when the header is damaged.
        """
        bodies = []
        for part in tolerant.unpack(payload, wire.CodecId.FIXED_LENGTH):
            if part.body:
                affine, bit_width, flags = _read_settings(part)
                if len(part.body) != packed_size(math.prod(part.shape), bit_width):  # before memory is taken for it
                    raise PayloadError(f"expected a body that fits shape {part.shape}, got {len(part.body)} bytes")
                zeros = affine.zero_point.numpy().astype(np.uint16)
                symbols = np.broadcast_to(zeros, (len(zeros), math.prod(part.shape) // len(zeros))).ravel()
                mapped = to_gray(symbols) if flags & GRAY_FLAG else symbols
                bodies.append(pack_symbols(mapped, bit_width, bool(flags & PLANES_FLAG)))
        return b"".join(bodies)

    def _decode_part(self, part: tolerant.TolerantPart) -> torch.Tensor:
        affine, bit_width, flags = _read_settings(part)
        symbols = unpack_symbols(part.body, wire.Part(*part[:2], b"").numel, bit_width, bool(flags & PLANES_FLAG))
        if flags & GRAY_FLAG:
            symbols = from_gray(symbols)
        return self.values(symbols, affine, part.dtype, part.shape)

    @property
    def flags(self) -> int:
        """Mapping and order as they stand in the settings' first byte."""
        return (GRAY_FLAG if self.mapping == "gray" else 0) | (PLANES_FLAG if self._is_planes else 0)

    @property
    def _is_planes(self) -> bool:
        return self.order == "planes"


def _read_settings(part: tolerant.TolerantPart) -> tuple[Affine, int, int]:
    """The quantiser's parameters, its bit width, and the flags of mapping and order."""
    if not part.settings:
        raise PayloadError("expected a quantiser's settings, got none")
    flags = part.settings[0]
    reader = wire.Reader(bytes((flags & ~(GRAY_FLAG | PLANES_FLAG),)) + bytes(part.settings[1:]))
    affine, bit_width = read_affine(reader, part.shape)
    reader.finish()
    return affine, bit_width, flags
