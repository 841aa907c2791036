"""Convolutional: the code of rate 1/2 and constraint length 7 (generators 171, 133 octal), decoded by soft Viterbi."""

import numpy as np

from splitsem.transport.channels.channel import Bits, Llrs
from splitsem.transport.fec.code import Code, spread_order

_GENERATORS = (0o171, 0o133)
_MEMORY = 6  # bits of state: the constraint length less one


class Convolutional(Code):
    """Two coded bits for each bit and for six closing zeros, all of them ``times`` times, in a spread order.

    Free distance 10. Where a burst would hit neighbours, it hits bits far apart, see ``spread_order``. numba compiles
    the decoder on its first use (some seconds, kept on disk). Viterbi 1967, IEEE Trans. Inf. Theory 13(2); generators:
    CCSDS 131.0-B, IEEE 802.11.

    Args:
        times: copies of the coded bits, 1…99: rate ``1 / (2·times)``.
    """

    def __init__(self, times: int = 1) -> None:
        if not 1 <= times <= 99:
            raise ValueError(f"times must be 1…99, got {times}")
        self.times = times

    def coded_bits(self, num_bits: int) -> int:
        """See Code."""
        return 2 * self.times * (num_bits + _MEMORY)

    def encode(self, bits: Bits) -> Bits:
        """See Code."""
        closed = np.concatenate([np.zeros(_MEMORY, np.uint8), bits, np.zeros(_MEMORY, np.uint8)])
        num_steps = len(bits) + _MEMORY
        pairs = np.zeros((num_steps, 2), np.uint8)
        for i, generator in enumerate(_GENERATORS):
            for delay in range(_MEMORY + 1):
                if generator >> (_MEMORY - delay) & 1:
                    pairs[:, i] ^= closed[_MEMORY - delay : _MEMORY - delay + num_steps]
        coded = np.tile(pairs.reshape(-1), self.times)
        return coded[spread_order(len(coded))]

    def decode(self, llrs: Llrs, num_bits: int) -> Bits:
        """See Code."""
        from splitsem.transport.fec import viterbi

        in_order = np.empty_like(llrs)
        in_order[spread_order(len(llrs))] = llrs
        pairs = in_order.reshape(self.times, num_bits + _MEMORY, 2).sum(0)
        return viterbi.decode(pairs, *_GENERATORS)[:num_bits]
