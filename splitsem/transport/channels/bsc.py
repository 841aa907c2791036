"""Bsc: the binary symmetric channel, which flips each bit with the same probability."""

import numpy as np

from splitsem.transport.channels.bernoulli import packed_bits
from splitsem.transport.channels.channel import Bits, Channel, Hard, Octets, Soft, certain, check_probability
from splitsem.transport.channels.snr import bpsk_ber, bpsk_snr_db, check_db


class Bsc(Channel):
    """Flips every bit with probability ``ber``, independently.

    Args:
        ber: flip probability, 0…0.5.
        ebn0_db: or the Eb/N0 of the BPSK that it stands for: ``ber = ½·erfc(√(Eb/N0))``.
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
