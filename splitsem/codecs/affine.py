"""Affine quantisation of grouped values: ranges, integers and back; the same code on both codec paths.

Shapes: G groups (samples, or samples × channels), N values in each.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Clipping = Literal["minmax", "percentile", "mse"]
_NUM_FRACTIONS = 32
_TINY = torch.finfo(torch.float32).tiny
_HUGE_BFLOAT16 = torch.finfo(torch.bfloat16).max
_HUGE = torch.finfo(torch.float32).max


class Affine(NamedTuple):
    """``x ≈ (q − zero_point) · scale`` with q in 0…2^b − 1; both ``(G, 1)``, float32, ``zero_point`` integral."""

    scale: Tensor
    zero_point: Tensor


class Range(NamedTuple):
    """Values that are represented without clipping, ``low ≤ 0 ≤ high``, each ``(G, 1)``."""

    low: Tensor
    high: Tensor


def choose_range(x_GN: Tensor, bit_width: int, clipping: Clipping, percentile: float) -> Range:
    """The range to represent: all values, all but the outermost, or the one of least squared error."""
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


def _best_fraction(x_GN: Tensor, low: Tensor, high: Tensor, bit_width: int) -> Tensor:
    """Share of the min–max range of least squared error, among 1/32…32/32, judged on a histogram: ``(G, 1)``."""
    num_groups = x_GN.shape[0]
    num_bins = 512 if x_GN.shape[1] >= 4096 else 128  # by the group alone: a sample is coded alike in any batch
    width = ((high - low) / num_bins).clamp(min=_TINY)
    bins = ((x_GN - low) / width).long().clamp(0, num_bins - 1)
    bins += torch.arange(num_groups, device=x_GN.device)[:, None] * num_bins
    counts = _counts(bins.reshape(-1), num_groups * num_bins).reshape(num_groups, 1, num_bins)
    middles = (low + width * (torch.arange(num_bins, device=x_GN.device) + 0.5))[:, None, :]
    fractions = torch.arange(1, _NUM_FRACTIONS + 1, device=x_GN.device)[None, :, None] / _NUM_FRACTIONS
    affine = affine_for(Range(low[:, None] * fractions, high[:, None] * fractions), bit_width)
    errors = from_integers(to_integers(middles, affine, bit_width), affine, torch.float32) - middles
    return fractions[0, (counts * errors.square()).sum(2).argmin(1)]


def _counts(bins: Tensor, num_bins: int) -> Tensor:
    if torch.compiler.is_compiling():  # an exported graph needs a shape that does not depend on the values
        return torch.zeros(num_bins, dtype=torch.int64, device=bins.device).scatter_add(0, bins, torch.ones_like(bins))
    return torch.bincount(bins, minlength=num_bins)  # four times as fast
