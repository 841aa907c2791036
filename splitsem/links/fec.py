"""Error-correcting codes: the interface, no code, repetition, a convolutional code, and the order of coded bits."""

import functools
from abc import ABC, abstractmethod
from math import gcd

import numpy as np
from numpy.typing import NDArray

from splitsem.links.channel import Bits, Llrs
from splitsem_device import convolutional


class Code(ABC):
    """Adds redundancy to bits, and finds the likeliest bits from what the channel left of the coded ones."""

    @abstractmethod
    def coded_bits(self, num_bits: int) -> int:
        """How many bits ``encode`` makes of ``num_bits``."""

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
    """An order of ``num_bits`` bits in which neighbours end up far apart: steps of about 0.618 of the whole, in a ring.

    A burst thereby hits bits that the decoder meets far from each other. The order is fixed, so both ends know it.
    """
    step = max(1, round(0.6180339887 * num_bits))
    while gcd(step, num_bits) > 1:
        step += 1
    order = np.arange(num_bits, dtype=np.int64) * step % max(num_bits, 1)
    order.setflags(write=False)  # all callers share this array
    return order


class Repetition(Code):
    """Sends all bits ``times`` times; the receiver adds up their log-likelihoods (decided bits: the majority wins).

    Args:
        times: number of copies, odd, 1…99.
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


_GENERATORS = (0o171, 0o133)
_MEMORY = 6  # bits of state: the constraint length less one


class Convolutional(Code):
    """Sends two coded bits for each bit and for each of six closing zeros, ``times`` times, in the ``spread_order``.

    The free distance is 10. Viterbi 1967, IEEE Trans. Inf. Theory 13(2); generators: CCSDS 131.0-B, IEEE 802.11.

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
        in_order = np.empty_like(llrs)
        in_order[spread_order(len(llrs))] = llrs
        pairs = in_order.reshape(self.times, num_bits + _MEMORY, 2).sum(0)
        return convolutional.decode(pairs, *_GENERATORS)[:num_bits]
