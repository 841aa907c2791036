"""TraceLink: a link of varying rate that replays a Mahimahi packet-delivery trace."""

from math import ceil, isfinite

import numpy as np

from splitsem.links.link import Link, LinkReport
from splitsem.traces import PACKET_BYTES, read_mahimahi


class TraceLink(Link):
    """Replays a Mahimahi trace: a payload occupies the next ``ceil(bytes / 1500)`` delivery opportunities.

    Each line of the file is the millisecond at which 1,500 bytes can leave; after the last line the trace starts
    again, shifted by that last line's time (Mahimahi's own rule, Netravali et al., USENIX ATC 2015). ``read_mahimahi``
    says what a file may hold: a silence is an outage, and a start beyond a minute is subtracted.

    The link keeps a clock. A payload is offered when the one before it has left (the first at ``start_s``), so
    consecutive payloads see later parts of the trace, alike in every run. Payloads never share an opportunity:
    the rest of a payload's last one is lost, and so are all opportunities before ``start_s``. An empty payload takes
    one opportunity. The link is busy from the offer to the payload's last opportunity; ``rtt_s / 2`` delays it further.
    Answers come back over a trace of their own with its own clock.

    Args:
        path: the trace file.
        rtt_s: round-trip time of the idle link, in seconds.
        energy_j_per_bit: joules the sender spends on each payload bit.
        start_s: where in the (looping) trace the first payload is offered, in seconds.
        down_path: the trace file of the way back; None: as the way up.

    Raises:
        ConfigError: the file is missing, or no trace; the message has the number of the wrong line.
    """

    rtt_s: float

    def __init__(
        self, path: str, rtt_s: float, energy_j_per_bit: float, start_s: float = 0.0, down_path: str | None = None
    ) -> None:
        for name, value in {"rtt_s": rtt_s, "energy_j_per_bit": energy_j_per_bit, "start_s": start_s}.items():
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        self.rtt_s = rtt_s
        self.energy_j_per_bit = energy_j_per_bit
        self._times_ms = read_mahimahi(path)
        self._clock_ms = (start_s * 1000) % self.period_ms
        self._next = int(np.searchsorted(self._times_ms, self._clock_ms))
        if down_path is not None:
            read_mahimahi(down_path)  # what is wrong with it is said before any work
        self._down_path = down_path or path
        self._down: TraceLink | None = None

    @property
    def period_ms(self) -> int:
        """After how many milliseconds the trace repeats."""
        return int(self._times_ms[-1])

    @property
    def mean_bandwidth_bps(self) -> float:
        """Mean rate over one period, in bits per second."""
        return 8 * PACKET_BYTES * len(self._times_ms) / (self.period_ms / 1000)

    @property
    def clock_s(self) -> float:
        """Seconds since the beginning of the trace at which the next payload will be offered."""
        return self._clock_ms / 1000

    def wait_until(self, clock_s: float) -> None:
        """Offer nothing before this time; opportunities until then are lost. A time in the past changes nothing."""
        if 1000 * clock_s > self._clock_ms:
            self._clock_ms = 1000 * clock_s
            num_loops, rest_ms = divmod(self._clock_ms, self.period_ms)
            place = int(num_loops) * len(self._times_ms) + int(np.searchsorted(self._times_ms, rest_ms))
            self._next = max(self._next, place)

    def send(self, payload: bytes, protected_bytes: int | None = None) -> LinkReport:
        """Deliver the payload unchanged and advance the clock to the moment its last byte left."""
        last = self._next + max(1, ceil(len(payload) / PACKET_BYTES)) - 1
        num_loops, index = divmod(last, len(self._times_ms))
        left_ms = num_loops * self.period_ms + int(self._times_ms[index])
        waited_s = (left_ms - self._clock_ms) / 1000
        self._next, self._clock_ms = last + 1, float(left_ms)
        return LinkReport(
            payload=payload,
            link_busy_s=waited_s,
            link_delay_s=self.rtt_s / 2,
            energy_j=8 * len(payload) * self.energy_j_per_bit,
            wire_bytes=len(payload),
        )

    def send_back(self, answer: bytes) -> LinkReport:
        """See Link; the first answer is offered when the first payload has arrived."""
        if self._down is None:
            begin_s = self.clock_s + self.rtt_s / 2
            self._down = TraceLink(self._down_path, self.rtt_s, self.energy_j_per_bit, begin_s)
        return self._down.send(answer)
