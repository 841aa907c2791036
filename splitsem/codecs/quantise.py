"""Quantise: affine quantisation to 1…16 bits, entropy-coded.

Shapes: G groups (samples, or samples × channels), N values in each.
"""

from math import isfinite
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from splitsem.codecs import wire
from splitsem.codecs.tensorwise import StraightThrough, TensorwiseCodec
from splitsem.errors import PayloadError
from splitsem_device import entropy
from splitsem_device.entropy import check_entropy
from splitsem_device.fields import CHANNEL_FLAG, ZEROS_FLAG, affine_bytes, zero_dtype

Clipping = Literal["minmax", "percentile", "mse"]
_NUM_FRACTIONS = 32
_TINY = torch.finfo(torch.float32).tiny
_HUGE_BFLOAT16 = torch.finfo(torch.bfloat16).max
_HUGE = torch.finfo(torch.float32).max


class Affine(NamedTuple):
    """``x ≈ (q − zero_point) · scale`` with q in 0…2^b − 1; float32 ``(G, 1)`` each, ``zero_point`` integral."""

    scale: Tensor
    zero_point: Tensor


class Range(NamedTuple):
    """Values that are represented without clipping, ``low ≤ 0 ≤ high``, each ``(G, 1)``."""

    low: Tensor
    high: Tensor


def choose_range(x_GN: Tensor, bit_width: int, clipping: Clipping, percentile: float) -> Range:
    """The range to represent: all values, all but the outermost, or the range of least squared error."""
    low, high = x_GN.amin(1, keepdim=True).clamp(max=0), x_GN.amax(1, keepdim=True).clamp(min=0)
    if clipping == "percentile":
        outside = int(x_GN.shape[1] * (1 - percentile / 100))
        clipped_low = x_GN.topk(1 + outside, 1, largest=False).values[:, -1:].clamp(max=0)
        clipped_high = x_GN.topk(1 + outside, 1).values[:, -1:].clamp(min=0)
        nothing_left = (clipped_low == 0) & (clipped_high == 0)  # fewer outliers than activity: keep them
        low, high = torch.where(nothing_left, low, clipped_low), torch.where(nothing_left, high, clipped_high)
    elif clipping == "mse":
        fraction = _best_fraction(x_GN, low, high, bit_width)
        low, high = low * fraction, high * fraction
    return Range(low, high)


def affine_for(range_: Range, bit_width: int, short_scale: bool = False) -> Affine:
    """Scale and zero point for a range; zero is always represented exactly.

    Args:
        range_: what to represent.
        bit_width: b; the integers are 0…2^b − 1.
        short_scale: round the scale up to what 16 bits (bfloat16) hold.
    """
    levels = (1 << bit_width) - 1
    low, high = range_.low.double(), range_.high.double()
    scale = (high / levels - low / levels).clamp(_TINY, _HUGE).float()
    if short_scale:
        upper_half = (scale.view(torch.int32) + 0xFFFF) & -0x10000
        scale = upper_half.view(torch.float32).clamp(max=_HUGE_BFLOAT16)
    return Affine(scale, (-low / scale).round().clamp(0, levels).float())


def to_integers(x: Tensor, affine: Affine, bit_width: int) -> Tensor:
    """q as float32 (exact up to 2^24), clipped to 0…2^b − 1."""
    return ((x / affine.scale).round() + affine.zero_point).clamp(0, (1 << bit_width) - 1)


def from_integers(q: Tensor, affine: Affine, dtype: torch.dtype) -> Tensor:
    """x_hat in ``dtype``; levels just outside the dtype's range become its largest value."""
    most = min(torch.finfo(dtype).max, _HUGE)
    return ((q - affine.zero_point) * affine.scale).clamp(-most, most).to(dtype)


def values_of(symbols: entropy.Symbols, affine: Affine, dtype: torch.dtype) -> Tensor:
    """``from_integers``, ``(groups, values)``, in the memory of one float32 tensor."""
    most = min(torch.finfo(dtype).max, _HUGE)
    x_GN = torch.from_numpy(symbols.astype(np.float32)).reshape(affine.scale.shape[0], -1)
    return x_GN.sub_(affine.zero_point).mul_(affine.scale).clamp_(-most, most).to(dtype)


def _best_fraction(x_GN: Tensor, low: Tensor, high: Tensor, bit_width: int) -> Tensor:
    """Share of the min–max range of least squared error, among 1/32…32/32, judged on a histogram: ``(G, 1)``."""
    num_groups = x_GN.shape[0]
    num_bins = 512 if x_GN.shape[1] >= 4096 else 128  # depends on the group alone: a sample is coded alike in any batch
    width = (high / num_bins - low / num_bins).clamp(min=_TINY)
    bins = ((x_GN - low) / width).long().clamp(0, num_bins - 1)
    bins += torch.arange(num_groups, device=x_GN.device)[:, None] * num_bins
    counts = _counts(bins.reshape(-1), num_groups * num_bins).reshape(num_groups, 1, num_bins)
    middles = (low + width * (torch.arange(num_bins, device=x_GN.device) + 0.5))[:, None, :]
    fractions = torch.arange(1, _NUM_FRACTIONS + 1, device=x_GN.device)[None, :, None] / _NUM_FRACTIONS
    affine = affine_for(Range(low[:, None] * fractions, high[:, None] * fractions), bit_width)
    errors = from_integers(to_integers(middles, affine, bit_width), affine, torch.float32) - middles
    errors = errors / width[:, None]  # squares of an attention mask's values, near −3.4e38, are beyond float32
    return fractions[0, (counts * errors.square()).sum(2).argmin(1)]


def _counts(bins: Tensor, num_bins: int) -> Tensor:
    if torch.compiler.is_compiling():  # an exported graph needs a shape that does not depend on the values
        return torch.zeros(num_bins, dtype=torch.int64, device=bins.device).scatter_add(0, bins, torch.ones_like(bins))
    return torch.bincount(bins, minlength=num_bins)  # bincount is four times as fast


Granularity = Literal["tensor", "channel"]
_CLIPPINGS = ("auto", *get_args(Clipping))
_MSE_BELOW_BITS = 6  # where clipping outliers starts to pay in accuracy at a given bit width


def check_bit_width(bit_width: int) -> int:
    """Return a bit width in 1…16, else raise ValueError."""
    if not (isinstance(bit_width, int) and 1 <= bit_width <= 16):
        raise ValueError(f"bit_width must be 1…16, got {bit_width}")
    return bit_width


def as_finite_float32(z: Tensor) -> Tensor:
    """The tensor as float32; ValueError when a value is not finite there."""
    x = z.float()
    least, most = x.aminmax()  # each is NaN where a value is; a tenth of the time that to look at every value takes
    if not (isfinite(least.item()) and isfinite(most.item())):
        raise ValueError(f"only finite float32 values can be quantised, got NaN or infinity in {tuple(z.shape)}")
    return x


class Quantise(TensorwiseCodec):
    """``x ≈ (q − zero_point) · scale`` with q in 0…2^b − 1; zero is exact, and ReLU features use the whole range.

    Every sample (dimension 0 of tensors with two or more dimensions) has its own range, so a batch decodes to what its
    samples alone would decode to. Gradients pass straight through inside the clipping range and are zero outside.

    Args:
        bit_width: b, 1…16.
        granularity: ``tensor`` = one range a sample; ``channel`` = one range for each channel (dimension 1) of tensors
            with four or more dimensions, and as ``tensor`` with fewer.
        clipping: ``minmax`` represents every value; ``percentile`` clips outliers; ``mse`` takes the range of least
            squared error; ``auto`` is ``mse`` below 6 bits and ``minmax`` from there on.
        percentile: share of the values, in percent, that ``percentile`` clips neither above nor below.
        entropy: ``none`` (bits packed), ``zstd``, ``rans`` or ``context``; ``auto`` takes for each payload ``context``
            where the bytes that it saves would take longer on the link than it does, else ``none``.
        rate_bps: the link's rate, for ``auto``.
    """

    is_samplewise = True
    codec_id = wire.CodecId.QUANTISE

    def __init__(
        self,
        bit_width: int = 8,
        granularity: Granularity = "tensor",
        clipping: Literal["auto", "minmax", "percentile", "mse"] = "auto",
        percentile: float = 99.9,
        entropy: str = "context",
        rate_bps: float | None = None,
    ) -> None:
        super().__init__()
        if granularity not in get_args(Granularity):
            raise ValueError(f"granularity must be one of {', '.join(get_args(Granularity))}, got {granularity!r}")
        if clipping not in _CLIPPINGS:
            raise ValueError(f"clipping must be one of {', '.join(_CLIPPINGS)}, got {clipping!r}")
        if not 50 < percentile <= 100:
            raise ValueError(f"percentile must be above 50 and at most 100, got {percentile}")
        self.bit_width = check_bit_width(bit_width)
        self.granularity = granularity
        self.clipping: Clipping
        if clipping == "auto":
            self.clipping = "mse" if bit_width < _MSE_BELOW_BITS else "minmax"
        else:
            self.clipping = clipping
        self.percentile = percentile
        self.entropy = check_entropy(entropy, rate_bps, may_choose=True)
        self.rate_bps = rate_bps

    def approximate(self, z: Tensor) -> Tensor:
        """See TensorwiseCodec."""
        x_GN = z.detach().float().reshape(self._num_groups(tuple(z.shape)), -1)
        range_, affine = self._fit(x_GN, tuple(z.shape))
        z_hat = from_integers(to_integers(x_GN, affine, self.bit_width), affine, z.dtype)
        inside = (x_GN >= range_.low) & (x_GN <= range_.high)
        return StraightThrough.apply(z, z_hat.reshape(z.shape), inside.reshape(z.shape))

    def encode_tensor(self, z: Tensor) -> bytes:
        """See TensorwiseCodec."""
        shape = tuple(z.shape)
        symbols, affine = self.symbols(z)
        fill = int(affine.zero_point[0, 0])
        coded = entropy.encode(symbols, shape, self.bit_width, fill, self.entropy, self.rate_bps)
        return write_affine(affine, self.bit_width, self.is_channelwise(shape)) + coded

    def decode_tensor(self, part: wire.Part) -> Tensor:
        """See TensorwiseCodec; every setting is read from the bytes."""
        reader = wire.Reader(part.body)
        affine, bit_width = read_affine(reader, part.shape)
        symbols = entropy.decode(reader.rest(), part.shape, bit_width, int(affine.zero_point[0, 0]))
        return self.values(symbols, affine, part.dtype, part.shape)

    def symbols(self, z: Tensor) -> tuple[entropy.Symbols, Affine]:
        """The integers of one tensor, row-major, uint8 or, above 8 bits, uint16; and what they mean."""
        q_GN, affine = self.integers(as_finite_float32(z))
        integers = q_GN.reshape(-1).numpy()
        return (integers.astype(np.uint8) if self.bit_width <= 8 else integers.astype(np.uint16)), affine

    def integers(self, z: Tensor) -> tuple[Tensor, Affine]:
        """The integers of a finite tensor as float32, ``(groups, values)``, and what they mean; can be exported."""
        x_GN = z.float().reshape(self._num_groups(tuple(z.shape)), -1)
        _, affine = self._fit(x_GN, tuple(z.shape))
        return to_integers(x_GN, affine, self.bit_width), affine

    @staticmethod
    def values(symbols: entropy.Symbols, affine: Affine, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """Undo ``symbols``."""
        return values_of(symbols, affine, dtype).reshape(shape)

    def _fit(self, x_GN: Tensor, shape: tuple[int, ...]) -> tuple[Range, Affine]:
        range_ = choose_range(x_GN, self.bit_width, self.clipping, self.percentile)
        return range_, affine_for(range_, self.bit_width, short_scale=self.is_channelwise(shape))

    def is_channelwise(self, shape: tuple[int, ...]) -> bool:
        """Whether each channel of a tensor of this shape has a range of its own."""
        return self.granularity == "channel" and len(shape) >= 4

    def _num_groups(self, shape: tuple[int, ...]) -> int:
        return num_groups(shape, self.is_channelwise(shape))


def num_groups(shape: tuple[int, ...], channelwise: bool) -> int:
    """How many ranges a tensor of this shape has."""
    if channelwise:
        return shape[0] * shape[1]
    return shape[0] if len(shape) >= 2 else 1


def write_affine(affine: Affine, bit_width: int, channelwise: bool) -> bytes:
    """See ``affine_bytes``."""
    return affine_bytes(affine.scale.numpy(), affine.zero_point.numpy(), bit_width, channelwise)


def read_affine(reader: wire.Reader, shape: tuple[int, ...]) -> tuple[Affine, int]:
    """Undo ``write_affine``; returns the parameters and the bit width."""
    flags = reader.byte("quantiser flags")
    bit_width, channelwise = (flags & 15) + 1, bool(flags & CHANNEL_FLAG)
    if flags > CHANNEL_FLAG | ZEROS_FLAG | 15 or (channelwise and len(shape) < 4):
        raise PayloadError(f"expected quantiser flags that fit shape {shape}, got {flags:#x}")
    groups = num_groups(shape, channelwise)
    if channelwise:
        short = np.frombuffer(reader.take(2 * groups, "scales"), "<u2")
        scales = (short.astype(np.uint32) << 16).view(np.float32)
    else:
        scales = np.frombuffer(reader.take(4 * groups, "scales"), "<f4").astype(np.float32)
    zeros = np.zeros(groups, np.float32)
    if flags & ZEROS_FLAG:
        dtype = np.dtype(zero_dtype(bit_width))
        zeros = np.frombuffer(reader.take(dtype.itemsize * groups, "zero points"), dtype).astype(np.float32)
    if not (np.isfinite(scales).all() and (scales > 0).all() and (zeros < 1 << bit_width).all()):
        raise PayloadError(f"expected positive scales and zero points below {1 << bit_width}, got others")
    return Affine(torch.from_numpy(scales)[:, None], torch.from_numpy(zeros)[:, None]), bit_width
