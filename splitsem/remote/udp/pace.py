"""Pace says when the next datagram may leave: at a rate that is known, or at one that it finds.

The rate is found as BBR does (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 2016): the highest
rate of delivery in ten round trips, at which the line's queue stays short, and which single losses do not lower.
"""

import math
from collections import deque
from typing import NamedTuple

from splitsem.remote.udp.packets import Report

_BURST_S = 0.005  # what a sleep may be too long
_FIRST_BPS, _FIRST_PACKETS = 10e6, 16
_STARTUP_GAIN, _DRAIN_GAIN, _CYCLE = 2.9, 0.75, (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
_IS_FULL_GROWTH, _IS_FULL_ROUNDS = 1.25, 3
_ROUNDS = 10
_MIN_RTT_S = 10.0  # how long the shortest round trip is believed
_BEARABLE_LOSS = 0.2  # of a round trip's datagrams; beyond it the line's queue is too short for this rate
_MOST_FLIGHTS = 1 << 16
_REPORTED_PACKETS = 32  # that may be under way unreported, beside what the line holds


class _Flight(NamedTuple):
    """A datagram under way: its number, the bytes sent up to it, and how things stood when it left."""

    number: int
    sent_bytes: int
    sent_s: float
    first_sent_s: float
    delivered_bytes: int
    delivered_s: float
    is_limited: bool


class Pace:
    """Paces one sender. Times are of one monotonic clock.

    Args:
        rate_bps: the rate to keep, headers of IP and UDP included; None finds it.
        packet_bytes: size of a full datagram.
    """

    def __init__(self, rate_bps: float | None, packet_bytes: int) -> None:
        self._fixed_bps, self._packet_bytes = rate_bps, packet_bytes
        self._next_s = 0.0
        self._flights: deque[_Flight] = deque(maxlen=_MOST_FLIGHTS)
        self._sent_bytes = self._delivered_bytes = self._settled_bytes = 0
        self._delivered_s = self._first_sent_s = 0.0
        self._limited_until = 0
        self._rates: deque[tuple[int, float]] = deque()  # round, bits per second; falling
        self._round, self._round_ends, self._cycle = 0, 0, 0
        self._full_bps, self._full_rounds = 0.0, 0
        self._last = Report(-1, 0, 0, 0.0)
        self._min_rtt_s, self._min_rtt_at_s = math.inf, 0.0
        self.srtt_s: float | None = None
        self._deviation_s = 0.0

    @property
    def rate_bps(self) -> float:
        """The rate as known, or as found so far."""
        if self._fixed_bps is not None:
            return self._fixed_bps
        return self._rates[0][1] if self._rates else _FIRST_BPS

    @property
    def timeout_s(self) -> float:
        """How long an answer or a report may take (RFC 6298), before it is asked for."""
        return 0.2 if self.srtt_s is None else min(max(self.srtt_s + 4 * self._deviation_s, 0.02), 2.0)

    @property
    def num_under_way(self) -> int:
        """Bytes that have left and that no report speaks of."""
        return self._sent_bytes - self._settled_bytes

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next datagram may leave; infinity: not before a report."""
        if self._fixed_bps is None and self.num_under_way >= self._most_under_way():
            if now_s - self._flights[-1].sent_s < 4 * self.timeout_s:
                self._next_s = max(self._next_s, now_s)  # else this would look like a pause of the sender's own
                return math.inf
            self._give_up_reports(now_s)
        return max(0.0, self._next_s - now_s)

    def sent(self, number: int, num_bytes: int, now_s: float) -> None:
        """Note a datagram that leaves."""
        if self.num_under_way <= 0:
            self._delivered_s = self._first_sent_s = now_s
        if self._next_s < now_s - _BURST_S:  # nothing was there to be sent: this tells nothing of the line
            self._limited_until = self._delivered_bytes + self.num_under_way
        self._next_s = max(self._next_s, now_s - _BURST_S) + 8 * num_bytes / self._paced_bps()
        self._sent_bytes += num_bytes
        is_limited = self._delivered_bytes <= self._limited_until
        self._flights.append(
            _Flight(number, self._sent_bytes, now_s, self._first_sent_s, self._delivered_bytes, self._delivered_s,
                    is_limited)
        )  # fmt: skip

    def report(self, report: Report, now_s: float) -> None:
        """Note what the other end has received."""
        flight = None
        while self._flights and self._flights[0].number <= report.highest:
            flight = self._flights.popleft()
        if flight is None or flight.number != report.highest:
            return  # an older report, or of what was given up
        self._settled_bytes = flight.sent_bytes
        self._delivered_bytes, self._delivered_s = max(report.num_bytes, self._delivered_bytes), now_s
        self._first_sent_s = flight.sent_s
        self._note_rtt(max(now_s - flight.sent_s - report.held_s, 1e-6), now_s)
        elapsed_s = max(now_s - flight.delivered_s, flight.sent_s - flight.first_sent_s, 1e-6)
        self._note_rate(8 * (self._delivered_bytes - flight.delivered_bytes) / elapsed_s, flight.is_limited)
        if flight.delivered_bytes >= self._round_ends:
            self._end_round(report, flight.is_limited)

    def _note_rtt(self, rtt_s: float, now_s: float) -> None:
        if rtt_s <= self._min_rtt_s or now_s - self._min_rtt_at_s > _MIN_RTT_S:
            self._min_rtt_s, self._min_rtt_at_s = rtt_s, now_s
        if self.srtt_s is None:
            self.srtt_s, self._deviation_s = rtt_s, rtt_s / 2
        else:
            self._deviation_s += (abs(self.srtt_s - rtt_s) - self._deviation_s) / 4
            self.srtt_s += (rtt_s - self.srtt_s) / 8

    def _note_rate(self, rate_bps: float, is_limited: bool) -> None:
        if is_limited and self._rates and rate_bps < self._rates[0][1]:
            return
        while self._rates and self._rates[-1][1] <= rate_bps:
            self._rates.pop()
        self._rates.append((self._round, rate_bps))

    def _end_round(self, report: Report, is_limited: bool) -> None:
        self._round += 1
        self._round_ends = self._delivered_bytes
        while len(self._rates) > 1 and self._rates[0][0] < self._round - _ROUNDS:
            self._rates.popleft()
        num_sent, num_came = report.highest - self._last.highest, report.num_packets - self._last.num_packets
        self._last = report
        if num_sent > _FIRST_PACKETS and num_came < (1 - _BEARABLE_LOSS) * num_sent:
            self._slow_down(0.7)
        self._cycle += 1
        if self._full_rounds < _IS_FULL_ROUNDS and not is_limited:
            if self.rate_bps >= _IS_FULL_GROWTH * self._full_bps:
                self._full_bps, self._full_rounds = self.rate_bps, 0
            else:
                self._full_rounds += 1

    def _paced_bps(self) -> float:
        if self._fixed_bps is not None or not self._rates:
            return self.rate_bps
        if self._full_rounds < _IS_FULL_ROUNDS:  # a frame of a few datagrams tells little, and may leave at once
            return max(_STARTUP_GAIN * self.rate_bps, 8 * _FIRST_PACKETS * self._packet_bytes / self._min_rtt_s)
        gain = _CYCLE[self._cycle % len(_CYCLE)]
        has_queue = self.num_under_way > self._on_line_bytes + _REPORTED_PACKETS / 2 * self._packet_bytes
        return self.rate_bps * (min(gain, _DRAIN_GAIN) if has_queue and gain <= 1 else gain)

    @property
    def _on_line_bytes(self) -> float:
        """What the line holds without a queue."""
        return self.rate_bps / 8 * self._min_rtt_s

    def _most_under_way(self) -> float:
        if not self._rates:
            return _FIRST_PACKETS * self._packet_bytes
        return 2 * self._on_line_bytes + _REPORTED_PACKETS * self._packet_bytes

    def _give_up_reports(self, now_s: float) -> None:
        self._settled_bytes = self._sent_bytes
        self._flights.clear()
        self._slow_down(0.5)

    def _slow_down(self, factor: float) -> None:
        self._rates = deque((round_, factor * rate_bps) for round_, rate_bps in self._rates)
