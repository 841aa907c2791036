"""Awgn: modulated symbols in additive white Gaussian noise."""

import numpy as np

from splitsem.transport.channels import modulation as modulations
from splitsem.transport.channels.bernoulli import packed_bits
from splitsem.transport.channels.channel import Bits, Channel, Hard, Llrs, Octets, Soft
from splitsem.transport.channels.snr import from_db

_CHUNK_BYTES = 1 << 13  # what stays in a processor's cache is several times as fast


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
        """See Channel. With one bit an axis, deciding is a binary symmetric channel: its flips are drawn directly."""
        if self.scheme.bits_per_axis == 1:
            return Hard(octets ^ packed_bits(len(octets), self.ber_theory, rng), self.snr_db)
        pieces = []
        for start in range(0, len(octets), _CHUNK_BYTES):
            bits = np.unpackbits(octets[start : start + _CHUNK_BYTES])
            pieces.append(np.packbits(self.scheme.decide(self._levels(bits, rng), 1.0, len(bits))))
        return Hard(np.concatenate(pieces) if pieces else octets, self.snr_db)

    def soft(self, bits: Bits, rng: np.random.Generator) -> Soft:
        """See Channel."""
        return Soft(self.scheme.llrs(self._levels(bits, rng), 1.0, self.n0, len(bits)), self.snr_db)

    def _levels(self, bits: Bits, rng: np.random.Generator) -> Llrs:
        levels = self.scheme.levels(bits)
        noise = rng.standard_normal(len(levels), np.float32)
        noise *= np.float32((self.n0 / 2) ** 0.5)
        noise += levels
        return noise
