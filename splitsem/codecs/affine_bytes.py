"""Affine parameters as bytes, without torch: what stands before a quantiser's symbols."""

import numpy as np
from numpy.typing import NDArray

CHANNEL_FLAG, ZEROS_FLAG = 0x10, 0x20
GRAY_FLAG, PLANES_FLAG = 0x40, 0x80  # of symbols of fixed length


def affine_bytes(
    scales: NDArray[np.float32], zero_points: NDArray[np.float32], bit_width: int, is_channelwise: bool, flags: int = 0
) -> bytes:
    """Bit width, scales (float32, or bfloat16 for channels) and, unless all are zero, zero points.

    Args:
        scales: one a group, any shape.
        zero_points: one a group, integral.
        bit_width: 1…16.
        is_channelwise: groups are channels; their scales have 16 significant bits.
        flags: further ones for the first byte.
    """
    scales, zero_points = scales.reshape(-1).astype("<f4"), zero_points.reshape(-1)
    has_zeros = bool(zero_points.any())
    flags |= bit_width - 1 | (CHANNEL_FLAG if is_channelwise else 0) | (ZEROS_FLAG if has_zeros else 0)
    coded = (scales.view("<u4") >> 16).astype("<u2") if is_channelwise else scales
    zero_bytes = zero_points.astype(zero_dtype(bit_width)).tobytes() if has_zeros else b""
    return bytes((flags,)) + coded.tobytes() + zero_bytes


def zero_dtype(bit_width: int) -> str:
    """In what zero points travel."""
    return "u1" if bit_width <= 8 else "<u2"
