"""Awgn: modulated symbols in additive white Gaussian noise."""

import numpy as np

from splitsem.transport.channels import modulation as modulations
from splitsem.transport.channels.bernoulli import packed_bits
from splitsem.transport.channels.channel import Bits, Channel, Hard, Llrs, Octets, Soft
from splitsem.transport.channels.pairs import errors_of_tails
from splitsem.transport.channels.snr import from_db


class Awgn(Channel):
    """Gray-mapped symbols of mean energy 1 plus noise of variance N0/2 on each axis, decided one by one.

    Args:
        ebn0_db: Eb/N0 of a channel bit, −40…60 dB.
        esn0_db: or Es/N0 of a symbol: ``ebn0_db + 10·log10(bits a symbol)``.
        modulation: ``bpsk``, ``qpsk`` or ``qam16``.
    """

    def __init__(self, ebn0_db: float | None = None, esn0_db: float | None = None, modulation: str = "bpsk") -> None:
        self.scheme = modulations.modulation(modulation)
        self.snr_db = modulations.chosen_ebn0_db(self.scheme, ebn0_db, esn0_db)
        self.n0 = modulations.noise_density(self.scheme, self.snr_db)

    @property
    def ber_theory(self) -> float:
        """See Channel."""
        return self.scheme.ber(from_db(self.snr_db))

    def hard(self, octets: Octets, rng: np.random.Generator) -> Hard:
        """See Channel. No symbols are made: wrong bits are drawn directly, as often as deciding would make them."""
        if self.scheme.bits_per_axis == 1:
            return Hard(octets ^ packed_bits(len(octets), self.ber_theory, rng), self.snr_db)
        tails = self.scheme.tails(np.array([from_db(self.snr_db)]))
        return Hard(octets ^ errors_of_tails(octets, tails, 1, rng), self.snr_db)

    def soft(self, bits: Bits, rng: np.random.Generator) -> Soft:
        """See Channel."""
        return Soft(self.scheme.llrs(self._levels(bits, rng), 1.0, self.n0, len(bits)), self.snr_db)

    def _levels(self, bits: Bits, rng: np.random.Generator) -> Llrs:
        levels = self.scheme.levels(bits)
        noise = rng.standard_normal(len(levels), np.float32)
        noise *= np.float32((self.n0 / 2) ** 0.5)
        noise += levels
        return noise
