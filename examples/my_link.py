"""PYTHONPATH=examples python run.py --config-dir=examples/conf transport=serial transport.baud=921600"""

from splitsem.links.link import Link, LinkReport

BITS_PER_BYTE = 10  # a start bit, eight data bits, a stop bit


class SerialLine(Link):
    """``link_busy_s = 10 · bytes / baud``; nothing is lost, and the line is short."""

    def __init__(self, baud: float = 115200, active_w: float = 0.05) -> None:
        self.baud, self.active_w = baud, active_w

    def send(self, payload: bytes, protected_bytes: int | None = None) -> LinkReport:
        """What arrives, and the seconds, joules and bytes that it costs."""
        busy_s = BITS_PER_BYTE * len(payload) / self.baud
        return LinkReport(payload, busy_s, link_delay_s=0.0, energy_j=busy_s * self.active_w, wire_bytes=len(payload))
