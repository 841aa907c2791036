"""When to send again and how fast to send: round-trip estimate, token bucket, congestion window."""

import math

IP_UDP_BYTES = 28
_FIRST_TIMEOUT_S = 0.2
_LEAST_TIMEOUT_S = 0.02  # below it, a busy machine's scheduler looks like loss


class RoundTrip:
    """Smoothed round-trip time and its deviation (RFC 6298): ``timeout_s = srtt_s + 4 · deviation_s``.

    Args:
        max_timeout_s: the longest time-out, however often it was doubled.
    """

    def __init__(self, max_timeout_s: float = 2.0) -> None:
        self.max_timeout_s = max_timeout_s
        self.srtt_s: float | None = None
        self._deviation_s = 0.0

    def observe(self, rtt_s: float) -> None:
        """Take one sample into account."""
        if self.srtt_s is None:
            self.srtt_s, self._deviation_s = rtt_s, rtt_s / 2
        else:
            self._deviation_s += (abs(self.srtt_s - rtt_s) - self._deviation_s) / 4
            self.srtt_s += (rtt_s - self.srtt_s) / 8

    def timeout_s(self, num_timeouts: int = 0) -> float:
        """How long to wait for an acknowledgement after so many time-outs in a row."""
        if self.srtt_s is None:
            first_s = _FIRST_TIMEOUT_S
        else:
            first_s = max(self.srtt_s + 4 * self._deviation_s, _LEAST_TIMEOUT_S)
        return min(first_s * 2 ** min(num_timeouts, 16), self.max_timeout_s)

    @property
    def loss_delay_s(self) -> float:
        """How long after a later packet's arrival an earlier one counts as lost: 9/8 round trips (RFC 9002, 6.1.2)."""
        return max(1.125 * (self.srtt_s or _FIRST_TIMEOUT_S), 0.001)


class TokenBucket:
    """Lets ``rate_bps`` bits a second through, after a pause at most ``burst_bytes`` at once.

    Args:
        rate_bps: bits per second, IP and UDP headers included; infinity never waits.
        burst_bytes: size of the bucket.
    """

    def __init__(self, rate_bps: float, burst_bytes: int) -> None:
        self._bytes_per_s = rate_bps / 8
        self._burst_bytes = float(burst_bytes)
        self._bytes, self._at_s = self._burst_bytes, 0.0

    def ready_s(self, now_s: float) -> float:
        """From when on a packet may leave (``now_s`` when it may at once). Debts are paid first."""
        if math.isinf(self._bytes_per_s):
            return now_s
        self._bytes = min(self._burst_bytes, self._bytes + max(now_s - self._at_s, 0.0) * self._bytes_per_s)
        self._at_s = now_s
        return now_s if self._bytes >= 0 else now_s - self._bytes / self._bytes_per_s

    def take(self, num_bytes: int) -> None:
        """Pay for a packet; may leave a debt, which makes the next one wait."""
        self._bytes -= num_bytes


class CongestionWindow:
    """Bytes that may be under way: slow start, then additive increase, ×0.7 at most once a round trip of losses.

    RFC 9002, appendix B, with the milder decrease of CUBIC.

    Args:
        packet_bytes: size of a full packet.
        max_bytes: never more than this.
        fixed: stay at ``max_bytes`` whatever is lost (for a sender paced at a known rate).
    """

    def __init__(self, packet_bytes: int, max_bytes: int, fixed: bool) -> None:
        self._packet_bytes, self._max_bytes, self._fixed = packet_bytes, max_bytes, fixed
        self._threshold_bytes = math.inf
        self._recovered_from = 0
        self.size_bytes = max_bytes if fixed else min(max_bytes, 16 * packet_bytes)

    def arrived(self, num_bytes: int, is_full: bool) -> None:
        """So many bytes were acknowledged; the window grows only while it is what holds the sender back."""
        if self._fixed or not is_full:
            return
        slow_start = self.size_bytes < self._threshold_bytes
        growth = num_bytes if slow_start else max(1, self._packet_bytes * num_bytes // self.size_bytes)
        self.size_bytes = min(self.size_bytes + growth, self._max_bytes)

    def lost(self, sequence: int, next_sequence: int) -> None:
        """A packet was lost; losses among the packets that were under way at the last decrease count once."""
        if self._fixed or sequence < self._recovered_from:
            return
        self._recovered_from = next_sequence
        self.size_bytes = max(int(0.7 * self.size_bytes), 4 * self._packet_bytes)
        self._threshold_bytes = self.size_bytes
