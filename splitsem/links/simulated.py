"""SimulatedLink: a loss-free link of constant rate and delay, computed, not waited for."""

from math import ceil, isfinite

from splitsem.links.link import Link, LinkReport


class SimulatedLink(Link):
    """``link_busy_s = 8 · wire_bytes / bandwidth_bps / duty_cycle`` and ``link_delay_s = rtt_s / 2``.

    The bits leave one after the other and keep the link busy; on their way, the next payload can follow. ``wire_bytes``
    is the payload plus ``overhead_bytes`` for each packet of at most ``packet_bytes`` payload bytes; an empty payload
    still takes one packet. Nothing is lost. Where rules bound the share of time on the air, each packet is followed by
    silence; the silence after the last packet keeps the link from the next payload and does not delay this one.

    Args:
        bandwidth_bps: bits per second to the server. With ``overhead_bytes=0`` the rate that an application sees
            (goodput); otherwise the rate at which packets, headers included, leave the sender.
        rtt_s: round-trip time of the idle link, in seconds.
        energy_j_per_bit: joules the edge spends on sending a bit on the wire.
        packet_bytes: payload bytes that fit into one packet.
        overhead_bytes: headers, checksums, gaps and acknowledgements of one packet, as bytes at ``bandwidth_bps``.
        down_bandwidth_bps: bits per second from the server to the edge; None: as to the server.
        receive_j_per_bit: joules the edge spends on receiving a bit on the wire; None: as on sending.
        duty_cycle: largest share of time that the edge may send, above 0 and at most 1.

    >>> report = SimulatedLink(bandwidth_bps=8e6, rtt_s=0.01, energy_j_per_bit=1e-7).send(bytes(1000))
    >>> report.link_busy_s, report.link_delay_s, report.link_s
    (0.001, 0.005, 0.006)
    """

    bandwidth_bps: float
    rtt_s: float

    def __init__(
        self,
        bandwidth_bps: float,
        rtt_s: float,
        energy_j_per_bit: float,
        packet_bytes: int = 1500,
        overhead_bytes: int = 0,
        down_bandwidth_bps: float | None = None,
        receive_j_per_bit: float | None = None,
        duty_cycle: float = 1.0,
    ) -> None:
        self.down_bandwidth_bps = bandwidth_bps if down_bandwidth_bps is None else down_bandwidth_bps
        self.receive_j_per_bit = energy_j_per_bit if receive_j_per_bit is None else receive_j_per_bit
        for name, value in {"bandwidth_bps": bandwidth_bps, "down_bandwidth_bps": self.down_bandwidth_bps}.items():
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        _check_not_negative(
            rtt_s=rtt_s,
            energy_j_per_bit=energy_j_per_bit,
            overhead_bytes=overhead_bytes,
            receive_j_per_bit=self.receive_j_per_bit,
        )
        if packet_bytes < 1:
            raise ValueError(f"packet_bytes must be at least 1, got {packet_bytes}")
        if not 0 < duty_cycle <= 1:
            raise ValueError(f"duty_cycle must be above 0 and at most 1, got {duty_cycle}")
        self.bandwidth_bps = bandwidth_bps
        self.rtt_s = rtt_s
        self.energy_j_per_bit = energy_j_per_bit
        self.packet_bytes = packet_bytes
        self.overhead_bytes = overhead_bytes
        self.duty_cycle = duty_cycle

    def wire_bytes(self, payload_bytes: int) -> int:
        """Bytes that occupy the link for a payload of this size, packet overhead included."""
        num_packets = max(1, ceil(payload_bytes / self.packet_bytes))
        return payload_bytes + num_packets * self.overhead_bytes

    def send(self, payload: bytes, protected_bytes: int | None = None) -> LinkReport:
        """Deliver the payload unchanged and report its time and energy."""
        report = self._carry(payload, self.bandwidth_bps, self.energy_j_per_bit)
        if self.duty_cycle == 1:
            return report
        num_before = max(1, ceil(len(payload) / self.packet_bytes)) - 1
        last_bytes = len(payload) - num_before * self.packet_bytes + self.overhead_bytes
        silence = 1 / self.duty_cycle - 1  # seconds for each second on the air
        return LinkReport(
            payload=payload,
            link_busy_s=report.link_busy_s / self.duty_cycle,
            link_delay_s=report.link_delay_s,
            energy_j=report.energy_j,
            wire_bytes=report.wire_bytes,
            pause_s=silence * 8 * last_bytes / self.bandwidth_bps,
        )

    def send_back(self, answer: bytes) -> LinkReport:
        """See Link; at the rate of the way back, and with the energy of receiving."""
        return self._carry(answer, self.down_bandwidth_bps, self.receive_j_per_bit)

    def _carry(self, payload: bytes, bandwidth_bps: float, j_per_bit: float) -> LinkReport:
        wire_bytes = self.wire_bytes(len(payload))
        num_bits = 8 * wire_bytes
        return LinkReport(
            payload=payload,
            link_busy_s=num_bits / bandwidth_bps,
            link_delay_s=self.rtt_s / 2,
            energy_j=num_bits * j_per_bit,
            wire_bytes=wire_bytes,
        )


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        if not (isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and not negative, got {value}")
