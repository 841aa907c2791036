"""Channels that damage bits: the interface, its arithmetic of bits and decibels, and Bsc, Erasure and GilbertElliott.

``ebn0_db`` is the energy of a channel bit over the noise density, and ``esn0_db`` that of a symbol: ``ebn0_db +
10·log10(bits a symbol)``. ``snr_db`` (link reports, codecs, metrics) means Eb/N0; for BPSK, Es/N0 equals Eb/N0.
"""

import math
from abc import ABC, abstractmethod
from math import isfinite
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Octets = NDArray[np.uint8]
Bits = NDArray[np.uint8]
Llrs = NDArray[np.float32]


class Hard(NamedTuple):
    """Bits as the receiver decided them, eight to a byte.

    Attributes:
        octets: ``(bytes,)``, most significant bit first.
        snr_db: Eb/N0 that the receiver saw, dB; for a channel without noise, the Eb/N0 at which BPSK has this bit
            error rate; None where no such figure makes sense.
    """

    octets: Octets
    snr_db: float | None


class Soft(NamedTuple):
    """What the receiver knows of each bit.

    Attributes:
        llrs: ``(bits,)`` log-likelihood ratios ln P(0)/P(1): above zero means 0, zero means erased.
        snr_db: as in ``Hard``.
    """

    llrs: Llrs
    snr_db: float | None


class Channel(ABC):
    """Carries bits and damages some. A channel has no state: all randomness comes from the generator of each call."""

    @abstractmethod
    def hard(self, octets: Octets, rng: np.random.Generator) -> Hard:
        """Carry packed bits and decide each (an erased bit arrives as 0): the fast way, without error correction."""

    @abstractmethod
    def soft(self, bits: Bits, rng: np.random.Generator) -> Soft:
        """Carry bits, each 0 or 1, ``(bits,)``, and say how sure the receiver is of each: for error correction."""

    @property
    @abstractmethod
    def ber_theory(self) -> float | None:
        """Bit error rate of ``hard`` in closed form, averaged over states and fading; None if there is no such form."""


def check_probability(name: str, value: float, most: float = 1.0) -> float:
    """Return a value in 0…``most``, else raise ValueError."""
    if not (isfinite(value) and 0 <= value <= most):
        raise ValueError(f"{name} must be 0…{most:g}, got {value}")
    return value


def hard_decisions(llrs: Llrs) -> Bits:
    """The likelier value of each bit."""
    return (llrs < 0).astype(np.uint8)


def certain(bits: Bits, ber: float) -> Llrs:
    """LLRs of decided bits that are wrong with probability ``ber``; 0 counts as one wrong bit in 10^12."""
    odds = np.log1p(-max(ber, 1e-12)) - np.log(max(ber, 1e-12))
    return np.where(bits == 0, odds, -odds).astype(np.float32)


_RARE = 1 / 64  # for a smaller p the gaps between ones are drawn, for a larger p the bits
_SHORT_BYTES = 4096  # up to so many, one call that draws 32 bits a bit is faster than 24 calls that draw one
_CHUNK_BITS = 1 << 16  # a chunk that stays in a processor's cache is several times as fast
_PRECISION = 24  # binary digits of a p that is not rare


def packed_bits(num_bytes: int, p: float, rng: np.random.Generator) -> Octets:
    """``(num_bytes,)``: each of the 8 · num_bytes bits is 1 with probability ``p``, independently.

    Rare ones are drawn by their geometric gaps. Otherwise each binary digit of p, the last one first, folds in a random
    word: OR for a digit 1, AND for a 0. P(1) thereby goes from q to (digit + q) / 2, and p is exact to 2^−24.
    """
    if p <= 0 or num_bytes == 0:
        return np.zeros(num_bytes, np.uint8)
    if p >= 1:
        return np.full(num_bytes, 255, np.uint8)
    if p < _RARE:
        return _by_gaps(8 * num_bytes, p, rng)
    if num_bytes <= _SHORT_BYTES:
        return packed_bits_by_run(np.array([p]), 8 * num_bytes, 8 * num_bytes, rng)
    digits = round(p * 2**_PRECISION)
    num_words = -(-num_bytes // 8)
    words = np.zeros(num_words, np.uint64)
    is_first = True
    for k in range(_PRECISION):
        if digits >> k & 1:
            random = rng.integers(0, 2**64, num_words, np.uint64)
            words = random if is_first else np.bitwise_or(words, random, out=words)
            is_first = False
        elif not is_first:
            np.bitwise_and(words, rng.integers(0, 2**64, num_words, np.uint64), out=words)
    return words.view(np.uint8)[:num_bytes]


def _by_gaps(num_bits: int, p: float, rng: np.random.Generator) -> Octets:
    mask = np.zeros(num_bits, np.uint8)
    start = -1
    while start < num_bits:
        expected = (num_bits - start) * p
        gaps = rng.geometric(p, int(expected + 4 * expected**0.5) + 4)
        positions = start + np.cumsum(np.minimum(gaps, num_bits + 1))
        mask[positions[positions < num_bits]] = 1
        start = int(positions[-1])
    return np.packbits(mask)


def packed_bits_by_run(probabilities: NDArray[np.float64], run: int, num_bits: int, rng: np.random.Generator) -> Octets:
    """Packed bits in runs of ``run`` bits, each with one of the ``(runs,)`` probabilities; the last may be cut off."""
    run = min(run, max(num_bits, 1))
    thresholds = np.minimum(probabilities * 2.0**32, 2.0**32 - 1).astype(np.uint32)
    at_once = 8 * max(1, _CHUNK_BITS // (8 * run))  # runs; a multiple of 8, so that each chunk fills its bytes
    pieces = []
    for start in range(0, len(thresholds), at_once):
        chunk = thresholds[start : start + at_once, None]
        is_one = uniform32(len(chunk) * run, rng).reshape(-1, run) < chunk
        pieces.append(np.packbits(is_one.reshape(-1)[: num_bits - start * run]))
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint8)


def uniform32(num: int, rng: np.random.Generator) -> NDArray[np.uint32]:
    """Uniform 32-bit integers, two from each 64-bit word of the generator: several times as fast as one from each."""
    return rng.integers(0, 2**64, -(-num // 2), np.uint64).view(np.uint32)[:num]


LEAST_DB, MOST_DB = -40.0, 60.0


def check_db(name: str, value: float) -> float:
    """Return a ratio in −40…60 dB, else raise ValueError."""
    if not (math.isfinite(value) and LEAST_DB <= value <= MOST_DB):
        raise ValueError(f"{name} must be {LEAST_DB:g}…{MOST_DB:g} dB, got {value}")
    return value


def from_db(value_db: float) -> float:
    """The ratio of a value in dB: ``10^(dB/10)``.

    >>> from_db(10.0)
    10.0
    """
    return float(10 ** (value_db / 10))


def to_db(ratio: float) -> float:
    """The value in dB of a ratio: ``10·log10(ratio)``."""
    return 10 * math.log10(ratio)


def bpsk_ber(snr_db: float) -> float:
    """``½·erfc(√(Eb/N0))``, the bit error rate of BPSK (and Gray-mapped QPSK) in white Gaussian noise.

    >>> round(bpsk_ber(0.0), 4)
    0.0786
    """
    return 0.5 * math.erfc(math.sqrt(from_db(snr_db)))


def bpsk_snr_db(ber: float) -> float:
    """Eb/N0 at which BPSK has this bit error rate, within −40…60 dB; the inverse of ``bpsk_ber``.

    >>> round(bpsk_snr_db(bpsk_ber(-3.0)), 6)
    -3.0
    """
    if ber <= 0:
        return MOST_DB
    root = -NormalDist().inv_cdf(ber) / math.sqrt(2) if ber < 0.5 else 0.0  # erfc⁻¹(2·ber)
    return min(max(2 * to_db(root), LEAST_DB), MOST_DB) if root > 0 else LEAST_DB


class Bsc(Channel):
    """Flips every bit with probability ``ber``, independently.

    Args:
        ber: flip probability, 0…0.5.
        ebn0_db: instead of ``ber``, the Eb/N0 of the BPSK that the channel stands for: ``ber = ½·erfc(√(Eb/N0))``.
    """

    def __init__(self, ber: float | None = None, ebn0_db: float | None = None) -> None:
        if (ber is None) == (ebn0_db is None):
            raise ValueError(f"give one of ber and ebn0_db and leave the other null, got {ber} and {ebn0_db}")
        if ebn0_db is not None:
            ber = bpsk_ber(check_db("ebn0_db", ebn0_db))
        assert ber is not None
        self.ber = check_probability("ber", ber, 0.5)
        self.snr_db = bpsk_snr_db(self.ber)

    @property
    def ber_theory(self) -> float:
        """See Channel."""
        return self.ber

    def hard(self, octets: Octets, rng: np.random.Generator) -> Hard:
        """See Channel."""
        return Hard(octets ^ packed_bits(len(octets), self.ber, rng), self.snr_db)

    def soft(self, bits: Bits, rng: np.random.Generator) -> Soft:
        """See Channel."""
        flips = np.unpackbits(packed_bits(-(-len(bits) // 8), self.ber, rng), count=len(bits))
        return Soft(certain(bits ^ flips, self.ber), self.snr_db)


class Erasure(Channel):
    """Loses each packet of ``packet_bytes`` bytes with probability ``rate``; the receiver knows which.

    Lost bytes of a body arrive as zeros. Consecutive packets are lost independently.

    Args:
        rate: loss probability of a packet, 0…1.
        packet_bytes: bytes of a packet, as they are on the air.
    """

    def __init__(self, rate: float, packet_bytes: int = 64) -> None:
        self.rate = check_probability("rate", rate)
        if packet_bytes < 1:
            raise ValueError(f"packet_bytes must be at least 1, got {packet_bytes}")
        self.packet_bytes = packet_bytes

    @property
    def ber_theory(self) -> None:
        """None: bits are lost, not wrong."""
        return None

    def hard(self, octets: Octets, rng: np.random.Generator) -> Hard:
        """See Channel."""
        return Hard(np.where(self._lost(len(octets), self.packet_bytes, rng), 0, octets).astype(np.uint8), None)

    def soft(self, bits: Bits, rng: np.random.Generator) -> Soft:
        """See Channel."""
        lost = self._lost(len(bits), 8 * self.packet_bytes, rng)
        return Soft(np.where(lost, np.float32(0), certain(bits, 0.0)), None)

    def _lost(self, size: int, packet: int, rng: np.random.Generator) -> np.ndarray:
        lost = rng.random(-(-size // packet)) < self.rate
        return np.repeat(lost, packet)[:size]


class GilbertElliott(Channel):
    """A Markov chain of two states, which moves before each bit; each state flips bits at a rate of its own.

    Bad spells last ``1 / bad_to_good`` bits on average and take the share ``good_to_bad / (good_to_bad +
    bad_to_good)`` of the time. A payload meets the chain in equilibrium. The receiver does not know the state.
    Gilbert 1960, Elliott 1963 (Bell System Technical Journal 39 and 42).

    Args:
        good_ber: bit error rate of the good state, 0…0.5.
        bad_ber: bit error rate of the bad state, 0…0.5.
        good_to_bad: probability of going bad, per bit, above 0 and at most 1.
        bad_to_good: probability of recovering, per bit, above 0 and at most 1.
    """

    def __init__(self, good_ber: float, bad_ber: float, good_to_bad: float, bad_to_good: float) -> None:
        self.good_ber = check_probability("good_ber", good_ber, 0.5)
        self.bad_ber = check_probability("bad_ber", bad_ber, 0.5)
        if not (0 < good_to_bad <= 1 and 0 < bad_to_good <= 1):
            raise ValueError(
                f"good_to_bad and bad_to_good must be above 0 and at most 1, got {good_to_bad} and {bad_to_good}"
            )
        self.good_to_bad, self.bad_to_good = good_to_bad, bad_to_good
        self.bad_share = good_to_bad / (good_to_bad + bad_to_good)
        self.snr_db = bpsk_snr_db(self.ber_theory)

    @property
    def ber_theory(self) -> float:
        """See Channel."""
        return self.bad_share * self.bad_ber + (1 - self.bad_share) * self.good_ber

    def hard(self, octets: Octets, rng: np.random.Generator) -> Hard:
        """See Channel."""
        return Hard(octets ^ self._flips(len(octets), rng), self.snr_db)

    def soft(self, bits: Bits, rng: np.random.Generator) -> Soft:
        """See Channel."""
        flips = np.unpackbits(self._flips(-(-len(bits) // 8), rng), count=len(bits))
        return Soft(certain(bits ^ flips, self.ber_theory), self.snr_db)

    def _flips(self, num_bytes: int, rng: np.random.Generator) -> Octets:
        is_bad = np.packbits(self.states(8 * num_bytes, rng))
        good = packed_bits(num_bytes, self.good_ber, rng)
        bad = packed_bits(num_bytes, self.bad_ber, rng)
        return good & ~is_bad | bad & is_bad

    def states(self, num_bits: int, rng: np.random.Generator) -> np.ndarray:
        """``(num_bits,)`` bool, true where the channel is bad: spells of geometric length, in turn."""
        is_bad = bool(rng.random() < self.bad_share)
        leave = (self.bad_to_good, self.good_to_bad) if is_bad else (self.good_to_bad, self.bad_to_good)
        num_pairs = int(num_bits / (1 / leave[0] + 1 / leave[1]) * 1.1) + 8
        lengths = np.empty((0, 2), np.int64)
        while int(lengths.sum()) < num_bits:
            pairs = np.stack([rng.geometric(p, num_pairs) for p in leave], 1)
            lengths = np.concatenate([lengths, np.minimum(pairs, num_bits)])
        ends = np.minimum(np.cumsum(lengths.reshape(-1)), num_bits)
        ends = ends[: int(np.searchsorted(ends, num_bits)) + 1]
        spells = np.arange(len(ends)) % 2 == (0 if is_bad else 1)
        return np.repeat(spells, np.diff(ends, prepend=0))
