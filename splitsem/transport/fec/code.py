"""Code: the interface to whatever adds redundancy to bits; and the order in which coded bits leave."""

import functools
from abc import ABC, abstractmethod
from math import gcd

import numpy as np
from numpy.typing import NDArray

from splitsem.transport.channels.channel import Bits, Llrs


class Code(ABC):
    """Makes more bits of bits, and the likeliest bits of what the channel left of them."""

    @abstractmethod
    def coded_bits(self, num_bits: int) -> int:
        """How many bits ``encode`` makes of so many."""

    @abstractmethod
    def encode(self, bits: Bits) -> Bits:
        """The coded bits, each 0 or 1, ``(coded_bits,)``."""

    @abstractmethod
    def decode(self, llrs: Llrs, num_bits: int) -> Bits:
        """``num_bits`` bits from the log-likelihood ratios of their coded bits, ``(coded_bits,)``."""


class Uncoded(Code):
    """The bits as they are."""

    def coded_bits(self, num_bits: int) -> int:
        """See Code."""
        return num_bits

    def encode(self, bits: Bits) -> Bits:
        """See Code."""
        return bits

    def decode(self, llrs: Llrs, num_bits: int) -> Bits:
        """See Code."""
        return (llrs < 0).astype(np.uint8)


@functools.lru_cache(maxsize=64)
def spread_order(num_bits: int) -> NDArray[np.int64]:
    """A fixed order of so many bits in which neighbours end up far apart: steps of about 0.618 of the whole, in a ring.

    A burst thereby hits bits that a decoder meets far from each other; both ends know the order.
    """
    step = max(1, round(0.6180339887 * num_bits))
    while gcd(step, num_bits) > 1:
        step += 1
    order = np.arange(num_bits, dtype=np.int64) * step % max(num_bits, 1)
    order.setflags(write=False)  # shared by all that ask
    return order
