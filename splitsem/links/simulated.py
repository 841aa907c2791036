"""SimulatedLink: a loss-free link of constant rate and delay, computed, not waited for."""

from math import ceil, isfinite

from splitsem.links.link import Link, LinkReport


class SimulatedLink(Link):
    """``link_s = rtt_s / 2 + 8 · wire_bytes / bandwidth_bps``: half a round trip, then the bits one after the other.

    ``wire_bytes`` is the payload plus ``overhead_bytes`` for each packet of at most ``packet_bytes`` payload bytes; an
    empty payload still takes one packet. Nothing is lost, and payloads do not disturb each other (each one finds the
    link idle). The energy is the sender's: ``8 · wire_bytes · energy_j_per_bit``.

    Args:
        bandwidth_bps: bits per second. With ``overhead_bytes=0`` the rate that an application sees (goodput);
            otherwise the rate at which packets, headers included, leave the sender.
        rtt_s: round-trip time of the idle link, in seconds.
        energy_j_per_bit: joules the sender spends on each bit on the wire.
        packet_bytes: payload bytes that fit into one packet.
        overhead_bytes: headers, checksums, gaps and acknowledgements of one packet, as bytes at ``bandwidth_bps``.

    >>> SimulatedLink(bandwidth_bps=8e6, rtt_s=0.01, energy_j_per_bit=1e-7).send(bytes(1000)).link_s
    0.006
    """

    def __init__(
        self,
        bandwidth_bps: float,
        rtt_s: float,
        energy_j_per_bit: float,
        packet_bytes: int = 1500,
        overhead_bytes: int = 0,
    ) -> None:
        if not (isfinite(bandwidth_bps) and bandwidth_bps > 0):
            raise ValueError(f"bandwidth_bps must be positive and finite, got {bandwidth_bps}")
        _check_not_negative(rtt_s=rtt_s, energy_j_per_bit=energy_j_per_bit, overhead_bytes=overhead_bytes)
        if packet_bytes < 1:
            raise ValueError(f"packet_bytes must be at least 1, got {packet_bytes}")
        self.bandwidth_bps = bandwidth_bps
        self.rtt_s = rtt_s
        self.energy_j_per_bit = energy_j_per_bit
        self.packet_bytes = packet_bytes
        self.overhead_bytes = overhead_bytes

    def wire_bytes(self, payload_bytes: int) -> int:
        """Bytes that occupy the link for a payload of this size, packet overhead included."""
        num_packets = max(1, ceil(payload_bytes / self.packet_bytes))
        return payload_bytes + num_packets * self.overhead_bytes

    def send(self, payload: bytes, protected_bytes: int | None = None) -> LinkReport:
        """Deliver the payload unchanged and report its time and energy."""
        wire_bytes = self.wire_bytes(len(payload))
        num_bits = 8 * wire_bytes
        return LinkReport(
            payload=payload,
            link_s=self.rtt_s / 2 + num_bits / self.bandwidth_bps,
            energy_j=num_bits * self.energy_j_per_bit,
            wire_bytes=wire_bytes,
        )


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not (isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and not negative, got {value}")
