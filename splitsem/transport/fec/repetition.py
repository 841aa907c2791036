"""Repetition: every bit several times, decided together."""

import numpy as np

from splitsem.transport.channels.channel import Bits, Llrs
from splitsem.transport.fec.code import Code


class Repetition(Code):
    """Sends the bits ``times`` times over; the receiver adds up what it knows (on flipped bits: the majority).

    Args:
        times: copies, odd, 1…99.
    """

    def __init__(self, times: int = 3) -> None:
        if not (1 <= times <= 99 and times % 2):
            raise ValueError(f"times must be odd and 1…99, got {times}")
        self.times = times

    def coded_bits(self, num_bits: int) -> int:
        """See Code."""
        return self.times * num_bits

    def encode(self, bits: Bits) -> Bits:
        """See Code."""
        return np.tile(bits, self.times)

    def decode(self, llrs: Llrs, num_bits: int) -> Bits:
        """See Code."""
        return (llrs.reshape(self.times, num_bits).sum(0) < 0).astype(np.uint8)
