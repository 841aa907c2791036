"""The decoder of the convolutional code that ``splitsem.links.fec`` describes."""

import ctypes

import numpy as np
from numpy.typing import NDArray

from splitsem_device.compiled import Array, Function

_INT = ctypes.c_int64
_decode = Function(
    "decode_convolutional",
    *(Array(np.float32), _INT, _INT, _INT, Array(np.uint64, is_written=True), Array(np.uint8, is_written=True)),
)


def decode(llrs: NDArray[np.float32], generator_0: int, generator_1: int) -> NDArray[np.uint8]:
    """The likeliest bits, closing zeros included: ``(steps,)``.

    Args:
        llrs: ``(steps, 2)``, ln P(0)/P(1) of each coded bit.
        generator_0: taps of the first coded bit; the top one of 7 bits is the newest.
        generator_1: taps of the second coded bit.
    """
    num_steps, num_coded = llrs.shape
    if num_coded != 2:
        raise ValueError(f"llrs must be (steps, 2), got {llrs.shape}")
    older, bits = np.empty(num_steps, np.uint64), np.empty(num_steps, np.uint8)
    _decode(np.ascontiguousarray(llrs, np.float32), num_steps, generator_0, generator_1, older, bits)
    return bits
