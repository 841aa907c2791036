"""BPSK, QPSK and 16-QAM with Gray mapping: levels, likelihoods, error rates, and bit errors drawn without symbols.

A symbol of mean energy 1 has one axis (BPSK) or two (QPSK, 16-QAM), each with white noise of variance N0/2. An axis
carries one bit as ``±a`` or two as ``±a, ±3a``: the first bit is the sign (0: positive), the second is 1 on ``±3a``.
With s = a / (deviation of the noise), noise towards zero beyond s makes the sign of an inner level wrong, and beyond 3s
the sign of an outer level. The second bit is wrong on an inner level for noise beyond 3s, or beyond s away from zero,
and on an outer level for noise from s to 5s towards zero.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from splitsem.links.channel import Bits, Llrs, Octets, check_db, from_db, to_db, uniform32

_erfc = np.vectorize(math.erfc, otypes=[np.float64])  # scipy's is 140 MB that no other part of a link needs


@dataclass(frozen=True)
class Modulation:
    """How bits become levels on real axes.

    Attributes:
        name: the name that configurations use.
        num_axes: axes of a symbol.
        bits_per_axis: 1 or 2.
        unit: a, the amplitude of the inner level.
        ber_terms: ``(w, c)``: the exact bit error rate in white noise is ``Σ w·Q(√(c·Eb/N0))``.
    """

    name: str
    num_axes: int
    bits_per_axis: int
    unit: float
    ber_terms: tuple[tuple[float, float], ...]

    @property
    def bits_per_symbol(self) -> int:
        """Bits that one symbol carries."""
        return self.num_axes * self.bits_per_axis

    def levels(self, bits: Bits) -> Llrs:
        """Amplitudes on consecutive axes, ``(ceil(bits / bits_per_axis),)``; a missing last bit counts as 0."""
        if self.bits_per_axis == 1:
            return np.array([self.unit, -self.unit], np.float32).take(bits)
        pairs = np.zeros((-(-len(bits) // 2), 2), np.uint8)
        pairs.reshape(-1)[: len(bits)] = bits
        levels = self.unit * np.array([1, 3, -1, -3], np.float32)
        return levels.take(2 * pairs[:, 0] + pairs[:, 1])

    def llrs(self, levels: Llrs, gains: Llrs | float, n0: float, num_bits: int) -> Llrs:
        """Exact log-likelihood ratios ln P(0)/P(1) of the bits for received levels, ``gains`` known."""
        if self.bits_per_axis == 1:
            return (4 * self.unit / n0 * gains * levels).astype(np.float32, copy=False)
        # common terms of the squared distances cancel: with x and e below, a level k·unit has the metric k·x − k²·e,
        # and what is left of logarithms of sums of their exponentials has terms of 2·x and 8·e only
        pairs = np.empty((len(levels), 2), np.float32)
        twice_x = (4 * self.unit / n0 * gains * levels).astype(np.float32, copy=False)
        eight_e = np.float32(8 * self.unit**2 / n0) * np.square(gains, dtype=np.float32)
        pairs[:, 0] = twice_x + _softplus(twice_x - eight_e) - _softplus(-twice_x - eight_e)
        size = np.abs(twice_x)
        pairs[:, 1] = eight_e - size + _softplus(-size) - _softplus(-3 * size)
        return pairs.reshape(-1)[:num_bits]

    def tails(self, ebn0: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability that the noise of an axis exceeds 1, 3 and 5 times the inner level (with one bit an axis: the
        level): a row for each of ``ber_terms``, a column for each Eb/N0."""
        halves = np.array([[c / 2] for _, c in self.ber_terms])
        return 0.5 * _erfc(np.sqrt(halves * ebn0))

    def ber(self, ebn0: float) -> float:
        """Bit error rate in white Gaussian noise at this Eb/N0 (a ratio, not dB)."""
        return sum(w * 0.5 * math.erfc(math.sqrt(c * ebn0 / 2)) for w, c in self.ber_terms)

    def ber_rayleigh(self, ebn0: float) -> float:
        """Bit error rate averaged over flat Rayleigh fading of mean power 1: Q(√(c·γ)) becomes ½·(1 − √(m/(1+m))),
        m = c·γ/2 (Proakis, Digital Communications, section on fading multipath channels)."""
        halves = ((w, c * ebn0 / 2) for w, c in self.ber_terms)
        return sum(w * 0.5 * (1 - math.sqrt(m / (1 + m))) for w, m in halves)


def _softplus(t: Llrs) -> Llrs:
    """``ln(1 + e^t)`` in single precision, for which numpy vectorises exponentials and logarithms."""
    grown = np.exp(-np.abs(t))
    grown += np.float32(1)
    return np.maximum(t, np.float32(0)) + np.log(grown, out=grown)


_ALL = {
    m.name: m
    for m in (
        Modulation("bpsk", 1, 1, 1.0, ((1.0, 2.0),)),
        Modulation("qpsk", 2, 1, math.sqrt(1 / 2), ((1.0, 2.0),)),
        Modulation("qam16", 2, 2, math.sqrt(1 / 10), ((0.75, 0.8), (0.5, 7.2), (-0.25, 20.0))),
    )
}


def modulation(name: str) -> Modulation:
    """``bpsk``, ``qpsk`` or ``qam16``. Raises ValueError for another name."""
    if name not in _ALL:
        raise ValueError(f"modulation must be one of {', '.join(_ALL)}, got {name!r}")
    return _ALL[name]


def chosen_ebn0_db(scheme: Modulation, ebn0_db: float | None, esn0_db: float | None) -> float:
    """The Eb/N0 from either argument. Raises ValueError unless exactly one is given, within −40…60 dB."""
    if (ebn0_db is None) == (esn0_db is None):
        raise ValueError(f"give one of ebn0_db and esn0_db and leave the other null, got {ebn0_db} and {esn0_db}")
    if ebn0_db is not None:
        return check_db("ebn0_db", ebn0_db)
    assert esn0_db is not None
    return check_db("esn0_db", esn0_db) - to_db(scheme.bits_per_symbol)


def noise_density(scheme: Modulation, ebn0_db: float) -> float:
    """N0 for symbols of mean energy 1."""
    return 1 / (scheme.bits_per_symbol * from_db(ebn0_db))


_CHUNK_BYTES = 1 << 16  # the fastest of 2^12 … 2^16: fits a processor's cache, and needs few calls
_TOP = np.uint32(2**32 - 1)
Flags = NDArray[np.bool_]
Number = TypeVar("Number", np.uint32, np.float32)


def errors_of_tails(octets: Octets, tails: NDArray[np.float64], run: int, rng: np.random.Generator) -> Octets:
    """Which decided bits are wrong, drawn from the probabilities of each block: fast where blocks are long.

    Args:
        octets: the sent bits, eight to a byte.
        tails: what ``Modulation.tails`` gives, ``(3, blocks)``.
        run: axes of a block.
        rng: draws 32 bits for each axis.
    """
    wrong = np.zeros_like(octets)
    for k, sent, out, (first, third, fifth) in _planes(octets, wrong, (tails * 2.0**32).astype(np.uint32), run):
        draw = uniform32(len(sent), rng)
        _mark(out, k, sent, draw < first, draw < third, draw < fifth, draw > _TOP - first)
    return wrong


def errors_of_noise(octets: Octets, levels: NDArray[np.float32], run: int, rng: np.random.Generator) -> Octets:
    """Which decided bits are wrong, drawn as noise: fast where there are about as many blocks as axes.

    Args:
        octets: the sent bits, eight to a byte.
        levels: s of each block, ``(blocks,)``.
        run: axes of a block.
        rng: draws the noise of each axis.
    """
    wrong = np.zeros_like(octets)
    for k, sent, out, (level,) in _planes(octets, wrong, levels[None], run):
        noise = rng.standard_normal(len(sent), np.float32)
        _mark(out, k, sent, noise < -level, noise < -3 * level, noise < -5 * level, noise > level)
    return wrong


def _planes(
    octets: Octets, wrong: Octets, of_blocks: NDArray[Number], run: int
) -> Iterator[tuple[int, Octets, Octets, NDArray[Number]]]:
    """Cut the bytes into pieces that fit a cache, and give the k-th axes of each piece, k = 0…3.

    Yields:
        k, the bytes, their errors so far, and the columns of ``of_blocks`` ``(rows, blocks)`` that belong to the axes.
    """
    of_axes = of_blocks[:, :1]  # one block serves all axes
    for start in range(0, len(octets), _CHUNK_BYTES):
        sent, out = octets[start : start + _CHUNK_BYTES], wrong[start : start + _CHUNK_BYTES]
        for k in range(4):
            if of_blocks.shape[1] > 1 and 4 % run == 0:
                of_axes = of_blocks[:, (4 * start + k) // run :: 4 // run][:, : len(sent)]
            elif of_blocks.shape[1] > 1 and run % 4:  # blocks end within a byte
                of_axes = of_blocks.take((4 * np.arange(start, start + len(sent)) + k) // run, 1)
            elif of_blocks.shape[1] > 1 and k == 0:
                begin, skip = divmod(start, run // 4)
                end = (start + len(sent) - 1) // (run // 4) + 1
                of_axes = np.repeat(of_blocks[:, begin:end], run // 4, 1)[:, skip : skip + len(sent)]
            yield k, sent, out, of_axes


def _mark(wrong: Octets, k: int, sent: Octets, first: Flags, third: Flags, fifth: Flags, above: Flags) -> None:
    """Add the errors of the k-th axes of some bytes."""
    is_outer = (sent >> (6 - 2 * k) & 1).view(np.bool_)
    sign = third | (first & ~is_outer)
    outer = np.where(is_outer, first ^ fifth, third | above)
    wrong |= sign.view(np.uint8) << (7 - 2 * k)
    wrong |= outer.view(np.uint8) << (6 - 2 * k)
