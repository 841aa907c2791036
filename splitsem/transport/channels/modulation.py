"""Modulation: BPSK, QPSK and 16-QAM with Gray mapping, of mean symbol energy 1, taken apart into real axes.

A symbol has one axis (BPSK) or two (QPSK, 16-QAM), each with white noise of variance N0/2. An axis carries one bit as
``±a`` or two as ``±a, ±3a``: the first bit is the sign (0: positive), the second is 1 on the outer levels.
"""

import math
from dataclasses import dataclass

import numpy as np

from splitsem.transport.channels.channel import Bits, Llrs
from splitsem.transport.channels.snr import check_db, from_db, to_db


@dataclass(frozen=True)
class Modulation:
    """How bits become levels on real axes.

    Attributes:
        name: as in configurations.
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
            return (self.unit * (1 - 2 * bits.astype(np.float32))).astype(np.float32)
        pairs = np.zeros((-(-len(bits) // 2), 2), np.float32)
        pairs.reshape(-1)[: len(bits)] = bits
        return (self.unit * (1 - 2 * pairs[:, 0]) * (1 + 2 * pairs[:, 1])).astype(np.float32)

    def decide(self, levels: Llrs, gains: Llrs | float, num_bits: int) -> Bits:
        """The likeliest bits for received levels, ``gains`` known."""
        if self.bits_per_axis == 1:
            return (levels < 0).astype(np.uint8)
        pairs = np.stack([levels < 0, np.abs(levels) > 2 * self.unit * gains], 1)
        return pairs.reshape(-1)[:num_bits].astype(np.uint8)

    def llrs(self, levels: Llrs, gains: Llrs | float, n0: float, num_bits: int) -> Llrs:
        """Exact log-likelihood ratios ln P(0)/P(1) of the bits for received levels, ``gains`` known."""
        if self.bits_per_axis == 1:
            return (4 * self.unit / n0 * gains * levels).astype(np.float32)
        # unsaid common terms of the squared distances cancel: what is left is (2·y·g·s − g²·s²) / n0
        inner = 2 * self.unit / n0 * gains * levels
        inner_energy = self.unit**2 / n0 * gains * gains
        metrics = {k: k * inner - k * k * inner_energy for k in (1, -1, 3, -3)}
        sign = np.logaddexp(metrics[1], metrics[3]) - np.logaddexp(metrics[-1], metrics[-3])
        outer = np.logaddexp(metrics[1], metrics[-1]) - np.logaddexp(metrics[3], metrics[-3])
        return np.stack([sign, outer], 1).reshape(-1)[:num_bits].astype(np.float32)

    def ber(self, ebn0: float) -> float:
        """Bit error rate in white Gaussian noise at this Eb/N0 (a ratio, not dB)."""
        return sum(w * 0.5 * math.erfc(math.sqrt(c * ebn0 / 2)) for w, c in self.ber_terms)

    def ber_rayleigh(self, ebn0: float) -> float:
        """Bit error rate averaged over flat Rayleigh fading of mean power 1: Q(√(c·γ)) becomes ½·(1 − √(m/(1+m))),
        m = c·γ/2 (Proakis, Digital Communications, section on fading multipath channels)."""
        halves = ((w, c * ebn0 / 2) for w, c in self.ber_terms)
        return sum(w * 0.5 * (1 - math.sqrt(m / (1 + m))) for w, m in halves)


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
    """The Eb/N0 that one of the two gives. Raises ValueError unless exactly one is given, within −40…60 dB."""
    if (ebn0_db is None) == (esn0_db is None):
        raise ValueError(f"give one of ebn0_db and esn0_db and leave the other null, got {ebn0_db} and {esn0_db}")
    if ebn0_db is not None:
        return check_db("ebn0_db", ebn0_db)
    assert esn0_db is not None
    return check_db("esn0_db", esn0_db) - to_db(scheme.bits_per_symbol)


def noise_density(scheme: Modulation, ebn0_db: float) -> float:
    """N0 for symbols of mean energy 1."""
    return 1 / (scheme.bits_per_symbol * from_db(ebn0_db))
