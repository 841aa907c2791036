"""Error-correcting codes: the interface, no code, repetition, a convolutional code, and the order of coded bits."""

import functools
from abc import ABC, abstractmethod
from math import gcd

import numba
import numpy as np
from numpy.typing import NDArray

from splitsem.links.channel import Bits, Llrs


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

    The free distance is 10. numba compiles the decoder on its first use (some seconds, kept on disk). Viterbi 1967,
    IEEE Trans. Inf. Theory 13(2); generators: CCSDS 131.0-B, IEEE 802.11.

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
        return decode(pairs, *_GENERATORS)[:num_bits]


@numba.njit(cache=True)
def decode(llrs: Llrs, generator_0: int, generator_1: int) -> Bits:
    """The likeliest bits, closing zeros included.

    Args:
        llrs: ``(steps, 2)``, ln P(0)/P(1) of each coded bit.
        generator_0: taps of the first coded bit; the top one of 7 bits is the newest.
        generator_1: taps of the second coded bit.
    """
    num_steps = llrs.shape[0]
    output = np.zeros(128, np.uint8)  # by register: newest bit on top, then the state
    for register in range(128):
        a, b = register & generator_0, register & generator_1
        parity_a = parity_b = 0
        for k in range(7):
            parity_a ^= a >> k & 1
            parity_b ^= b >> k & 1
        output[register] = 2 * parity_a + parity_b
    metrics = np.full(64, np.float32(-1e30), np.float32)
    metrics[0] = 0
    after = np.empty(64, np.float32)
    gain = np.empty(4, np.float32)
    older = np.zeros((num_steps, 64), np.uint8)  # the bit that the best way into a state has shifted out
    for step in range(num_steps):
        first, second = llrs[step, 0], llrs[step, 1]
        gain[0], gain[1], gain[2], gain[3] = first + second, first - second, second - first, -first - second
        for state in range(64):
            register = state << 1
            before = register & 63
            with_0 = metrics[before] + gain[output[register]]
            with_1 = metrics[before + 1] + gain[output[register + 1]]
            if with_1 > with_0:
                after[state] = with_1
                older[step, state] = 1
            else:
                after[state] = with_0
        best = after.max() if step % 16 == 0 else np.float32(0)  # small metrics keep their differences in float32
        for state in range(64):
            metrics[state] = after[state] - best
    bits = np.empty(num_steps, np.uint8)
    state = 0
    for step in range(num_steps - 1, -1, -1):
        bits[step] = state >> 5
        state = (state << 1 & 63) | older[step, state]
    return bits
