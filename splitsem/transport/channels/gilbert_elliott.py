"""GilbertElliott: errors in bursts, from a channel that is at times good and at times bad."""

import numpy as np

from splitsem.transport.channels.bernoulli import packed_bits
from splitsem.transport.channels.channel import Bits, Channel, Hard, Octets, Soft, certain, check_probability
from splitsem.transport.channels.snr import bpsk_snr_db


class GilbertElliott(Channel):
    """A Markov chain of two states, which moves before each bit; each state flips bits at a rate of its own.

    Bad spells last ``1 / bad_to_good`` bits on average and take the share ``good_to_bad / (good_to_bad +
    bad_to_good)`` of the time. A payload meets the chain in equilibrium. The receiver does not know the state.
    Gilbert 1960, Elliott 1963 (Bell System Technical Journal 39 and 42).

    Args:
        good_ber: bit error rate of the good state, 0…0.5.
        bad_ber: of the bad state, 0…0.5.
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
