"""Rayleigh: modulated symbols through flat fading and white Gaussian noise."""

import numpy as np
from scipy import special

from splitsem.transport.channels import modulation as modulations
from splitsem.transport.channels.bernoulli import packed_bits_by_run
from splitsem.transport.channels.channel import Bits, Channel, Hard, Llrs, Octets, Soft
from splitsem.transport.channels.snr import from_db, to_db


class Rayleigh(Channel):
    """Symbols scaled by a gain of Rayleigh distribution and mean power 1, plus noise; the receiver knows the gain.

    The gain holds for a block of symbols and is drawn anew for the next. The reported ``snr_db`` is that of the
    payload: mean power of its gains times the mean Eb/N0.

    Args:
        ebn0_db: mean Eb/N0 of a channel bit, −40…60 dB.
        esn0_db: or mean Es/N0 of a symbol.
        modulation: ``bpsk``, ``qpsk`` or ``qam16``.
        block_symbols: symbols of one gain; 1: each its own; null: one gain for each payload.
    """

    def __init__(
        self,
        ebn0_db: float | None = None,
        esn0_db: float | None = None,
        modulation: str = "bpsk",
        block_symbols: int | None = 100,
    ) -> None:
        self.scheme = modulations.modulation(modulation)
        self.mean_snr_db = modulations.chosen_ebn0_db(self.scheme, ebn0_db, esn0_db)
        self.n0 = modulations.noise_density(self.scheme, self.mean_snr_db)
        if block_symbols is not None and block_symbols < 1:
            raise ValueError(f"block_symbols must be at least 1 or null, got {block_symbols}")
        self.block_symbols = block_symbols

    @property
    def ber_theory(self) -> float:
        """See Channel."""
        return self.scheme.ber_rayleigh(from_db(self.mean_snr_db))

    def hard(self, octets: Octets, rng: np.random.Generator) -> Hard:
        """See Channel. With one bit an axis, the noise enters as the error rate that each block's gain leaves."""
        num_bits = 8 * len(octets)
        powers = self._powers(num_bits, rng)
        if self.scheme.bits_per_axis == 1:
            rates = 0.5 * special.erfc(np.sqrt(powers * from_db(self.mean_snr_db)))
            run = self.scheme.num_axes * self.block_symbols if self.block_symbols else max(num_bits, 1)
            return Hard(octets ^ packed_bits_by_run(rates, run, num_bits, rng), self._snr_db(powers))
        levels, gains = self._levels(np.unpackbits(octets), powers, rng)
        return Hard(np.packbits(self.scheme.decide(levels, gains, num_bits)), self._snr_db(powers))

    def soft(self, bits: Bits, rng: np.random.Generator) -> Soft:
        """See Channel."""
        powers = self._powers(len(bits), rng)
        levels, gains = self._levels(bits, powers, rng)
        return Soft(self.scheme.llrs(levels, gains, self.n0, len(bits)), self._snr_db(powers))

    def _powers(self, num_bits: int, rng: np.random.Generator) -> np.ndarray:
        num_symbols = -(-num_bits // self.scheme.bits_per_symbol)
        num_blocks = -(-num_symbols // self.block_symbols) if self.block_symbols else 1
        return rng.standard_exponential(num_blocks)

    def _spread(self, blocks: np.ndarray, num_axes: int) -> np.ndarray:
        """A block's value for each of its axes, of which there are ``num_axes`` in all."""
        if self.block_symbols is None:
            return np.broadcast_to(blocks, num_axes)
        return np.repeat(blocks, self.block_symbols * self.scheme.num_axes)[:num_axes]

    def _levels(self, bits: Bits, powers: np.ndarray, rng: np.random.Generator) -> tuple[Llrs, Llrs]:
        levels = self.scheme.levels(bits)
        gains = self._spread(np.sqrt(powers).astype(np.float32), len(levels))
        noise = np.float32((self.n0 / 2) ** 0.5) * rng.standard_normal(len(levels), np.float32)
        return levels * gains + noise, gains

    def _snr_db(self, powers: np.ndarray) -> float:
        return self.mean_snr_db + to_db(max(float(powers.mean()), 1e-9)) if len(powers) else self.mean_snr_db
