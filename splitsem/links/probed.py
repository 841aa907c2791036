"""ProbedLink: a link as probes found it, computed, not waited for."""

from collections import defaultdict
from collections.abc import Sequence
from math import isfinite, log

import numpy as np

from splitsem.links.link import NO_WORK, FrameWork, Link, LinkReport

NO_RATE_BPS = 1e15
"""The bandwidth of a link on which more bytes take no more time than fewer."""


class ProbedLink(Link):
    """Takes the median time of the probes of each size, and straight lines between sizes, whatever the link's shape.

    The times thereby hold what the link does at a size: a token bucket, say, lets short payloads through faster than
    its rate, or a window opens slowly. A probe goes the way of a frame, so its time holds the software's share at both
    ends and the answer's way back. Beyond the largest size, the time grows at the fitted rate. A payload keeps the link
    busy for its bytes at that rate, and for what a stream of probes took beyond it: headers, and the software's work on
    each; a burst that goes faster is caught up on in a pause afterwards.

    Args:
        probes: bytes sent and seconds until the answer was there, for each probe; any order.
        energy_j_per_bit: joules the sender spends on each payload bit.
        down_bandwidth_bps: bits per second of the way back, which bound its pace; None: answers are next to nothing.
        paced: bytes of each probe of a stream, and seconds from one's answer to the next one's.
        edge_work: of the transport's software on the edge, see Link.
        server_work: the same on the server.

    Attributes:
        rtt_s: median time of the smallest probes.
        bandwidth_bps: rate of the least-squares line through the medians.

    >>> link = ProbedLink([(0, 0.001), (0, 0.003), (0, 0.002), (1000, 0.010), (3000, 0.026)])
    >>> link.rtt_s, round(link.bandwidth_bps / 1e6, 6), round(link.link_s(2000), 6)
    (0.002, 1.0, 0.018)
    """

    def __init__(
        self,
        probes: Sequence[tuple[int, float]],
        energy_j_per_bit: float = 0.0,
        down_bandwidth_bps: float | None = None,
        paced: tuple[int, float] = (0, 0.0),
        edge_work: FrameWork = NO_WORK,
        server_work: FrameWork = NO_WORK,
    ) -> None:
        if not probes:
            raise ValueError("probes must hold at least one probe, got none")
        if any(num_bytes < 0 or not (isfinite(took_s) and took_s >= 0) for num_bytes, took_s in probes):
            raise ValueError("probes must have sizes and times that are finite and not negative")
        groups: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for num_bytes, took_s in probes:  # sizes within 5 % of each other count as one
            groups[round(log(num_bytes + 1) / log(1.05))].append((num_bytes, took_s))
        medians = np.array([np.median(np.array(groups[key]), axis=0) for key in sorted(groups)])
        self.energy_j_per_bit, self.down_bandwidth_bps = energy_j_per_bit, down_bandwidth_bps
        self.edge_work, self.server_work = edge_work, server_work
        self._sizes, self._times_s = medians[:, 0], medians[:, 1]
        self.rtt_s = float(self._times_s[0])
        self._slope = self._fitted_slope()
        self.bandwidth_bps = 8 / self._slope if self._slope > 8 / NO_RATE_BPS else NO_RATE_BPS
        self._base_busy_s = max(0.0, paced[1] - paced[0] * self._slope)

    def link_s(self, payload_bytes: float) -> float:
        """Seconds for a payload of this size to the server and its answer back."""
        beyond = max(0.0, payload_bytes - self._sizes[-1])
        return float(np.interp(payload_bytes, self._sizes, self._times_s)) + beyond * self._slope

    def send(self, payload: bytes, protected_bytes: int | None = None) -> LinkReport:
        """Deliver the payload unchanged and report its time and energy."""
        num_bytes = len(payload)
        energy_j = 8 * num_bytes * self.energy_j_per_bit
        link_s, busy_s = self.link_s(num_bytes), self._base_busy_s + num_bytes * self._slope
        delay_s, pause_s = max(0.0, link_s - busy_s), max(0.0, busy_s - link_s)
        return LinkReport(payload, busy_s, delay_s, energy_j, wire_bytes=num_bytes, pause_s=pause_s)

    def send_back(self, answer: bytes) -> LinkReport:
        """See Link; delays nothing, since the probes' times hold the way back, but keeps it busy."""
        busy_s = 8 * len(answer) / self.down_bandwidth_bps if self.down_bandwidth_bps else 0.0
        return LinkReport(answer, busy_s, 0.0, 0.0, wire_bytes=len(answer), pause_s=busy_s)

    def _fitted_slope(self) -> float:
        """Seconds a byte, not negative."""
        if len(self._sizes) < 2:
            return 0.0
        deviations = self._sizes - self._sizes.mean()
        return max(0.0, float(deviations @ self._times_s / (deviations @ deviations)))
