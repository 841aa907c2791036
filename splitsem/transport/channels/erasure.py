"""Erasure: packets that arrive whole or not at all."""

import numpy as np

from splitsem.transport.channels.channel import Bits, Channel, Hard, Octets, Soft, certain, check_probability


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
