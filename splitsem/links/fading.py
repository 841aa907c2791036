"""Awgn and Rayleigh: channels of modulated symbols with white Gaussian noise, without and with flat fading."""

import numpy as np

from splitsem.links import modulation as modulations
from splitsem.links.channel import (
    Bits,
    Channel,
    Hard,
    Llrs,
    Octets,
    Soft,
    from_db,
    packed_bits,
    packed_bits_by_run,
    to_db,
)
from splitsem.links.modulation import errors_of_noise, errors_of_tails

_SHORT_RUN = 8  # axes of a block
_CHUNK_BITS = 16 * 3 * 5 * 7 * 8  # a multiple of all short runs, so that pieces begin with a block


class Rayleigh(Channel):
    """Symbols scaled by a gain of Rayleigh distribution and mean power 1, plus noise; the receiver knows the gain.

    The gain holds for a block of symbols and is drawn anew for the next block. The reported ``snr_db`` is the mean
    power of the payload's gains times the mean Eb/N0.

    Args:
        ebn0_db: mean Eb/N0 of a channel bit, −40…60 dB.
        esn0_db: instead of ``ebn0_db``, mean Es/N0 of a symbol.
        modulation: ``bpsk``, ``qpsk`` or ``qam16``.
        block_symbols: symbols that share a gain; 1: each symbol has its own; null: one gain for each payload.
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
        """See Channel. No symbols are made: wrong bits are drawn directly, as often as each block's gain makes them."""
        num_bits, is_single = 8 * len(octets), self.scheme.bits_per_axis == 1
        powers = self._powers(num_bits, rng)
        run = self.scheme.num_axes * self.block_symbols if self.block_symbols else max(num_bits, 1)
        if run < _SHORT_RUN:  # noise for each axis costs less than three error rates for each block
            levels = np.sqrt(powers * np.float32(self.scheme.unit**2 * 2 / self.n0))
            wrong = self._flips(levels, run, num_bits, rng) if is_single else errors_of_noise(octets, levels, run, rng)
        else:
            tails = self.scheme.tails(powers * from_db(self.mean_snr_db))
            wrong = (
                packed_bits_by_run(tails[0], run, num_bits, rng)
                if is_single
                else errors_of_tails(octets, tails, run, rng)
            )
        return Hard(octets ^ wrong, self._snr_db(powers))

    def soft(self, bits: Bits, rng: np.random.Generator) -> Soft:
        """See Channel."""
        powers = self._powers(len(bits), rng)
        levels, gains = self._levels(bits, powers, rng)
        return Soft(self.scheme.llrs(levels, gains, self.n0, len(bits)), self._snr_db(powers))

    def _powers(self, num_bits: int, rng: np.random.Generator) -> np.ndarray:
        num_symbols = -(-num_bits // self.scheme.bits_per_symbol)
        num_blocks = -(-num_symbols // self.block_symbols) if self.block_symbols else 1
        return rng.standard_exponential(num_blocks, np.float32)

    def _flips(self, levels: Llrs, run: int, num_bits: int, rng: np.random.Generator) -> Octets:
        """Errors of one bit an axis, packed: where the noise is below minus the level of the axis."""
        pieces = []
        for start in range(0, num_bits, _CHUNK_BITS):
            num = min(_CHUNK_BITS, num_bits - start)
            first, last = start // run, (start + num - 1) // run
            of_axes = self._spread(levels[first : last + 1], num)
            pieces.append(np.packbits(rng.standard_normal(num, np.float32) < -of_axes))
        return np.concatenate(pieces) if pieces else np.empty(0, np.uint8)

    def _spread(self, blocks: np.ndarray, num_axes: int) -> np.ndarray:
        """A block's value for each of its axes, of which there are ``num_axes`` in all."""
        if self.block_symbols is None:
            return np.broadcast_to(blocks, num_axes)
        return np.repeat(blocks, self.block_symbols * self.scheme.num_axes)[:num_axes]

    def _levels(self, bits: Bits, powers: np.ndarray, rng: np.random.Generator) -> tuple[Llrs, Llrs]:
        levels = self.scheme.levels(bits)
        gains = self._spread(np.sqrt(powers), len(levels))
        noise = rng.standard_normal(len(levels), np.float32)
        noise *= np.float32((self.n0 / 2) ** 0.5)
        levels *= gains
        levels += noise
        return levels, gains

    def _snr_db(self, powers: np.ndarray) -> float:
        mean_power = float(powers.mean(dtype=np.float64)) if len(powers) else 1.0
        return self.mean_snr_db + to_db(max(mean_power, 1e-9))


class Awgn(Channel):
    """Gray-mapped symbols of mean energy 1 plus noise of variance N0/2 on each axis, decided one by one.

    Args:
        ebn0_db: Eb/N0 of a channel bit, −40…60 dB.
        esn0_db: instead of ``ebn0_db``, Es/N0 of a symbol: ``ebn0_db + 10·log10(bits a symbol)``.
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
