"""TopK: only the largest values travel, with their positions."""

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitsem.codecs import wire
from splitsem.codecs.quantise import (
    Affine,
    affine_for,
    as_finite_float32,
    check_bit_width,
    choose_range,
    from_integers,
    read_affine,
    to_integers,
    values_of,
    write_affine,
)
from splitsem.codecs.tensorwise import StraightThrough, TensorwiseCodec, saturate_to_half
from splitsem.errors import PayloadError
from splitsem_device import entropy
from splitsem_device.entropy import check_entropy

Values = Literal["float32", "float16", "quantised"]
_GAPS_FLAG = 4
_ESCAPE = 255
_SPARSE = 8  # elements for each kept one, from which on gaps can be smaller than a bitmap


class TopK(TensorwiseCodec):
    """Keeps the ``keep_ratio`` largest magnitudes of every sample and sends zero for the rest; zeros are never sent.

    Positions travel as a bitmap or as gaps between kept elements, whichever is smaller after entropy coding. Gradients
    reach the kept elements only.

    Args:
        keep_ratio: share of each sample's elements (dimension 0 counts samples), in (0, 1]; at least one is kept.
        values: how kept values travel: ``float32`` (16-bit tensors as they are, float64 rounded), ``float16``
            (saturating) or ``quantised`` (affine, min–max, one range for the tensor).
        bit_width: 1…16, for ``quantised``.
        entropy: ``none``, ``zstd``, ``rans`` or ``context``, for positions and quantised values.
    """

    codec_id = wire.CodecId.TOP_K

    def __init__(
        self, keep_ratio: float = 0.1, values: Values = "float32", bit_width: int = 8, entropy: str = "context"
    ) -> None:
        super().__init__()
        if not 0 < keep_ratio <= 1:
            raise ValueError(f"keep_ratio must be above 0 and at most 1, got {keep_ratio}")
        if values not in get_args(Values):
            raise ValueError(f"values must be one of {', '.join(get_args(Values))}, got {values!r}")
        self.keep_ratio = keep_ratio
        self.values = values
        self.is_samplewise = values != "quantised"  # whose range is one for the batch
        self.bit_width = check_bit_width(bit_width)
        self.entropy = check_entropy(entropy)

    def approximate(self, z: Tensor) -> Tensor:
        """See TensorwiseCodec."""
        detached = z.detach()
        mask = self._mask(detached)
        kept = detached[mask]
        if self.values == "quantised" and kept.numel():
            kept_1K = kept.float()[None]
            affine = self._affine(kept_1K)
            kept = from_integers(to_integers(kept_1K, affine, self.bit_width), affine, z.dtype)[0]
        else:
            kept = kept.to(_sent_dtype(z.dtype, self.values)) if self.values == "float32" else _half(kept)
        z_hat = torch.zeros_like(detached)
        z_hat[mask] = kept.to(z.dtype)
        return StraightThrough.apply(z, z_hat, mask)

    def encode_tensor(self, z: Tensor) -> bytes:
        """See TensorwiseCodec."""
        as_finite_float32(z)
        mask = self._mask(z)
        kept = z[mask]
        is_gaps, positions = _encode_positions(mask.numpy(), self.entropy)
        flags = get_args(Values).index(self.values) | (_GAPS_FLAG if is_gaps else 0)
        return bytes((flags,)) + wire.varint(len(positions)) + positions + self._encode_values(kept)

    def decode_tensor(self, part: wire.Part) -> Tensor:
        """See TensorwiseCodec; every setting is read from the bytes."""
        reader = wire.Reader(part.body)
        flags = reader.byte("top-k flags")
        if flags & ~_GAPS_FLAG >= len(get_args(Values)):
            raise PayloadError(f"expected top-k flags, got {flags:#x}")
        size = reader.varint("size of the positions", len(part.body))
        mask = torch.from_numpy(_decode_positions(reader.take(size, "positions"), part.shape, bool(flags & _GAPS_FLAG)))
        z = torch.zeros(part.shape, dtype=part.dtype)
        num_kept = int(mask.sum())
        if num_kept:
            values = _decode_values(reader, get_args(Values)[flags & ~_GAPS_FLAG], part.dtype, num_kept)
            z.masked_scatter_(mask, values)  # z[mask] = values takes eight more bytes for each value
        reader.finish()
        return z

    def _mask(self, z: Tensor) -> Tensor:
        """True where an element is kept."""
        magnitude_GN = z.abs().reshape(z.shape[0] if z.dim() >= 2 else 1, -1)
        num_kept = max(1, round(self.keep_ratio * magnitude_GN.shape[1]))
        top = magnitude_GN.topk(num_kept, dim=1, sorted=False).indices
        mask_GN = torch.zeros_like(magnitude_GN, dtype=torch.bool).scatter_(1, top, True)
        return (mask_GN & (magnitude_GN > 0)).reshape(z.shape)

    def _affine(self, kept_1K: Tensor) -> Affine:
        return affine_for(choose_range(kept_1K, self.bit_width, "minmax", 100.0), self.bit_width)

    def _encode_values(self, kept: Tensor) -> bytes:
        if not kept.numel():
            return b""
        if self.values != "quantised":
            sent = _half(kept) if self.values == "float16" else kept.to(_sent_dtype(kept.dtype, self.values))
            return bytes(wire.raw_body(sent))
        kept_1K = kept.float()[None]
        affine = self._affine(kept_1K)
        symbols = to_integers(kept_1K, affine, self.bit_width)[0].numpy()
        symbols = symbols.astype(np.uint8 if self.bit_width <= 8 else np.uint16)
        coded = entropy.encode(symbols, symbols.shape, self.bit_width, int(affine.zero_point), self.entropy)
        return write_affine(affine, self.bit_width, channelwise=False) + coded


def _half(kept: Tensor) -> Tensor:
    return kept if kept.element_size() == 2 else saturate_to_half(kept)


def _sent_dtype(dtype: torch.dtype, values: Values) -> torch.dtype:
    if dtype.itemsize == 2:
        return dtype
    return torch.float16 if values == "float16" else torch.float32


def _decode_values(reader: wire.Reader, values: Values, dtype: torch.dtype, num_kept: int) -> Tensor:
    if values != "quantised":
        sent = _sent_dtype(dtype, values)
        body = reader.take(num_kept * sent.itemsize, "kept values")
        return wire.tensor_from_raw(wire.Part(sent, (num_kept,), body)).to(dtype)
    affine, bit_width = read_affine(reader, (num_kept,))
    symbols = entropy.decode(reader.rest(), (num_kept,), bit_width, int(affine.zero_point))
    return values_of(symbols, affine, dtype)[0]


def _encode_positions(mask: NDArray[np.bool_], stage: str) -> tuple[bool, bytes]:
    """Whether gaps are smaller than a bitmap, and the smaller code."""
    bitmap = entropy.encode(mask.reshape(-1).view(np.uint8), mask.shape, 1, 0, stage)
    where = np.flatnonzero(mask)
    if where.size * _SPARSE >= mask.size:  # a gap takes a byte or more before it is coded
        return False, bitmap
    gaps = np.diff(where, prepend=-1) - 1
    escapes = gaps // _ESCAPE
    symbols = np.full(gaps.size + int(escapes.sum()), _ESCAPE, np.uint8)
    symbols[np.arange(gaps.size) + np.cumsum(escapes)] = gaps % _ESCAPE
    coded = wire.varint(symbols.size)
    if symbols.size:
        coded += entropy.encode(symbols, symbols.shape, 8, 0, stage)
    return (True, coded) if len(coded) < len(bitmap) else (False, bitmap)


def _decode_positions(coded: memoryview, shape: tuple[int, ...], is_gaps: bool) -> NDArray[np.bool_]:
    num = int(np.prod(shape, dtype=np.int64))
    if not is_gaps:
        return entropy.decode(coded, shape, 1, 0).view(np.bool_).reshape(shape)
    reader = wire.Reader(coded)
    num_symbols = reader.varint("number of gaps", num // _SPARSE + num // _ESCAPE + 1)
    mask = np.zeros(num, np.bool_)
    if num_symbols:
        symbols = entropy.decode(reader.rest(), (num_symbols,), 8, 0).astype(np.int64)
        where = np.cumsum(symbols + (symbols != _ESCAPE)) - 1
        where = where[symbols != _ESCAPE]
        if where.size and where[-1] >= num:
            raise PayloadError(f"expected kept positions below {num}, got {where[-1]}")
        mask[where] = True
    return mask.reshape(shape)
