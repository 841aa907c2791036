"""Outbox cuts messages into fragments and sends them until acknowledged, paced and without sockets or clocks."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from math import inf

from splitsem.remote.udp import packets
from splitsem.remote.udp.packets import Datagram, Fragment, Kind
from splitsem.remote.udp.settings import Counts, Settings

IP_UDP_BYTES = 28
_FIRST_TIMEOUT_S = 0.2
_LEAST_TIMEOUT_S = 0.02  # below it, a busy machine's scheduler looks like loss


class RoundTrip:
    """Smoothed round-trip time and its deviation (RFC 6298): ``timeout_s = srtt_s + 4 · deviation_s``.

    Args:
        max_timeout_s: the longest time-out after any number of doublings.
    """

    def __init__(self, max_timeout_s: float = 2.0) -> None:
        self.max_timeout_s = max_timeout_s
        self.srtt_s: float | None = None
        self._deviation_s = 0.0

    def observe(self, rtt_s: float) -> None:
        """Update the estimate by one measured round trip."""
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
        """The earliest time at which a packet may leave, ``now_s`` or later; a debt delays the packet."""
        if math.isinf(self._bytes_per_s):
            return now_s
        self._bytes = min(self._burst_bytes, self._bytes + max(now_s - self._at_s, 0.0) * self._bytes_per_s)
        self._at_s = now_s
        return now_s if self._bytes >= 0 else now_s - self._bytes / self._bytes_per_s

    def take(self, num_bytes: int) -> None:
        """Pay for a packet; a debt makes the next packet wait."""
        self._bytes -= num_bytes


class CongestionWindow:
    """Bytes that may be under way: slow start, then additive increase; ×0.7 at most one time per round trip of losses.

    RFC 9002, appendix B, with the milder decrease of CUBIC.

    Args:
        packet_bytes: size of a full packet.
        max_bytes: largest window.
        fixed: stay at ``max_bytes`` whatever is lost (for a sender paced at a known rate).
    """

    def __init__(self, packet_bytes: int, max_bytes: int, fixed: bool) -> None:
        self._packet_bytes, self._max_bytes, self._fixed = packet_bytes, max_bytes, fixed
        self._threshold_bytes = math.inf
        self._recovered_from = 0
        self.size_bytes = max_bytes if fixed else min(max_bytes, 16 * packet_bytes)

    def arrived(self, num_bytes: int, is_full: bool) -> None:
        """Note acknowledged bytes; the window grows only while it is what limits the sender (``is_full``)."""
        if self._fixed or not is_full:
            return
        slow_start = self.size_bytes < self._threshold_bytes
        growth = num_bytes if slow_start else max(1, self._packet_bytes * num_bytes // self.size_bytes)
        self.size_bytes = min(self.size_bytes + growth, self._max_bytes)

    def lost(self, sequence: int, next_sequence: int) -> None:
        """Note a lost packet; losses of packets that were under way at the last decrease do not count again."""
        if self._fixed or sequence < self._recovered_from:
            return
        self._recovered_from = next_sequence
        self.size_bytes = max(int(0.7 * self.size_bytes), 4 * self._packet_bytes)
        self._threshold_bytes = self.size_bytes


_REORDER = 3  # a packet is lost when a packet sent so many later has arrived (RFC 9002, 6.1.1)
_FINISH = -1
_PING_BYTES = 24
_TICK_S = 0.002  # granularity of sleep, so the bucket must hold what leaves in this time


class _Message:
    """A message on its way. Each fragment is in one of four states: fresh, in flight, to be resent, or settled."""

    __slots__ = ("fragment_bytes", "has_lost", "left", "next_index", "num", "number", "purpose", "tolerant", "view")

    def __init__(self, number: int, purpose: int, payload: bytes, fragment_bytes: int, tolerant: bool) -> None:
        self.number, self.purpose, self.view, self.tolerant = number, purpose, memoryview(payload), tolerant
        self.fragment_bytes = fragment_bytes
        self.num = packets.num_fragments(len(payload), fragment_bytes)
        self.left = self.num  # neither arrived nor lost for good
        self.next_index, self.has_lost = 0, False

    def fragment(self, index: int) -> Fragment:
        start = index * self.fragment_bytes
        body = self.view[start : start + self.fragment_bytes]
        return Fragment(self.purpose, self.number, len(self.view), index, self.fragment_bytes, body)


_Flight = tuple[_Message | None, int, float, int]  # message (None: a PING), index, sent_s, bytes


class Outbox:
    """The sending half of a conversation.

    Every transmission has a new sequence number, also that of a resent fragment, so an acknowledgement is never
    ambiguous (as in QUIC, RFC 9002). A packet is lost when a packet sent three later has arrived, or 9/8 round trips
    after any later packet arrived. After a time-out without any packet from the peer, the oldest fragments are resent;
    after ``retries`` + 1 such time-outs in a row, the outbox gives up.

    Args:
        connection: the number on every packet.
        settings: how to send.
        counts: updated by the outbox.

    Attributes:
        num_unsettled: number of messages that the peer has not confirmed completely.
        num_confirmed: the peer has confirmed all messages below this number.
        has_failed: whether the peer was silent for ``retries`` + 1 time-outs.
        on_timeout: called at each time-out.
    """

    def __init__(self, connection: int, settings: Settings, counts: Counts) -> None:
        self._connection, self._settings, self._counts = connection, settings, counts
        packet_bytes = settings.fragment_bytes + packets.OVERHEAD_BYTES
        rate_bps = inf if settings.rate_bps is None else settings.rate_bps
        self.bucket = TokenBucket(rate_bps, burst_bytes=8 * packet_bytes + int((settings.rate_bps or 0) / 8 * _TICK_S))
        self.round_trip = RoundTrip()
        self._window = CongestionWindow(packet_bytes, settings.window_bytes, fixed=settings.rate_bps is not None)
        self._fresh: deque[_Message] = deque()
        self._again: deque[tuple[_Message, int]] = deque()
        self._flight: dict[int, _Flight] = {}  # by sequence, ascending
        self._flight_bytes = 0
        self._next_sequence = 0
        self._largest_arrived = -1
        self._anchor_s = 0.0
        self._loss_s = inf
        self._probes = 0
        self._num_timeouts = 0
        self.has_failed = False
        self.num_unsettled = 0
        self.num_confirmed = 0
        self._confirmed: set[int] = set()  # numbers from num_confirmed on
        self.on_timeout: Callable[[], None] = lambda: None

    def offer(self, number: int, purpose: int, payload: bytes, tolerant: bool = False) -> None:
        """Queue a message; a tolerant message is never resent."""
        self.num_unsettled += 1
        self._fresh.append(_Message(number, purpose, payload, self._settings.fragment_bytes, tolerant))

    def ping(self) -> None:
        """Send a PING with the next packets, unless packets are under way anyway."""
        if not self._flight:
            self._probes = max(self._probes, 1)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be sent or acknowledged."""
        return not (self._flight or self._fresh or self._again or self._probes)

    def take(self, now_s: float, limit: int) -> list[Datagram]:
        """At most ``limit`` datagrams that may leave now."""
        out: list[Datagram] = []
        while len(out) < limit and self.bucket.ready_s(now_s) <= now_s:
            if not self._probes and self._flight_bytes >= self._window.size_bytes:
                break
            if self._again:
                message, index = self._again.popleft()
                self._counts.fragments_resent += 1
                out.append(self._emit(message, index, now_s))
            elif self._fresh:
                message = self._fresh[0]
                out.append(self._emit(message, message.next_index, now_s))
                message.next_index += 1
                if message.next_index == message.num:
                    self._fresh.popleft()
            elif self._probes:
                out.append(self._emit(None, 0, now_s))
                self._probes = 0
            else:
                break
            self._probes = max(self._probes - 1, 0)
        return out

    def acknowledge(self, ranges: Sequence[tuple[int, int]], now_s: float) -> bool:
        """Settle arrived packets and find lost packets; False when the ranges name packets never sent."""
        largest = ranges[0][1]
        if largest >= self._next_sequence:
            return False
        flight = self._flight
        oldest = next(iter(flight), self._next_sequence)
        is_full = 2 * self._flight_bytes >= self._window.size_bytes
        num_arrived = 0
        for low, high in reversed(ranges):
            for sequence in range(max(low, oldest), high + 1):
                entry = flight.pop(sequence, None)
                if entry is not None:
                    num_arrived += 1
                    self._arrived(entry, is_full)
                    if sequence == largest:
                        self.round_trip.observe(now_s - entry[2])
        if num_arrived:
            self._num_timeouts, self._anchor_s = 0, now_s
        self._largest_arrived = max(self._largest_arrived, largest)
        self._find_losses(now_s)
        return True

    def tick(self, now_s: float) -> None:
        """Handle time thresholds of losses and time-outs that are due."""
        if now_s >= self._loss_s:
            self._find_losses(now_s)
        if self._flight and now_s >= self._timeout_s():
            self._time_out(now_s)

    def next_s(self, now_s: float) -> float:
        """When to call ``tick`` and ``take`` next, if no packet arrives before."""
        due_s = min(self._loss_s, self._timeout_s() if self._flight else inf)
        has_more = self._again or self._fresh
        if self._probes or (has_more and self._flight_bytes < self._window.size_bytes):
            due_s = min(due_s, self.bucket.ready_s(now_s))
        return due_s

    def _timeout_s(self) -> float:
        return self._anchor_s + self.round_trip.timeout_s(self._num_timeouts)

    def _emit(self, message: _Message | None, index: int, now_s: float) -> Datagram:
        sequence = self._next_sequence
        self._next_sequence += 1
        if message is None:
            datagram = packets.pack(Kind.PING, self._connection, sequence)
            num_bytes = _PING_BYTES
        elif index == _FINISH:
            datagram = packets.pack_finish(self._connection, sequence, message.fragment(0))
            num_bytes = packets.OVERHEAD_BYTES
        else:
            fragment = message.fragment(index)
            datagram = packets.pack_data(self._connection, sequence, fragment)
            num_bytes = packets.OVERHEAD_BYTES + len(fragment.body)
        self._flight[sequence] = (message, index, now_s, num_bytes)
        self._flight_bytes += num_bytes
        self._anchor_s = now_s
        self.bucket.take(num_bytes + IP_UDP_BYTES)
        return datagram

    def _arrived(self, entry: _Flight, is_full: bool) -> None:
        message, index, _, num_bytes = entry
        self._flight_bytes -= num_bytes
        self._window.arrived(num_bytes, is_full)
        if message is None:
            return
        if index != _FINISH:
            self._settle(message)
        elif message.has_lost:
            message.has_lost = False  # the peer knows
            self._confirm(message)

    def _settle(self, message: _Message) -> None:
        message.left -= 1
        if message.left:
            return
        if message.has_lost:
            self._again.append((message, _FINISH))
        else:
            self._confirm(message)

    def _confirm(self, message: _Message) -> None:
        self.num_unsettled -= 1
        self._confirmed.add(message.number)
        while self.num_confirmed in self._confirmed:
            self._confirmed.discard(self.num_confirmed)
            self.num_confirmed += 1

    def _find_losses(self, now_s: float) -> None:
        self._loss_s = inf
        delay_s = self.round_trip.loss_delay_s
        lost = []
        for sequence, entry in self._flight.items():
            if sequence > self._largest_arrived:
                break
            if sequence <= self._largest_arrived - _REORDER or now_s >= entry[2] + delay_s:
                lost.append(sequence)
            else:
                self._loss_s = entry[2] + delay_s
                break
        for sequence in lost:
            self._window.lost(sequence, self._next_sequence)
            self._lose(sequence)

    def _lose(self, sequence: int) -> None:
        message, index, _, num_bytes = self._flight.pop(sequence)
        self._flight_bytes -= num_bytes
        if message is None:
            return
        if index == _FINISH:
            if message.has_lost:
                self._again.append((message, index))
            return
        self._counts.fragments_lost += 1
        if message.tolerant:
            message.has_lost = True
            self._settle(message)
        else:
            self._again.append((message, index))

    def _time_out(self, now_s: float) -> None:
        self._counts.timeouts += 1
        self._num_timeouts += 1
        self._anchor_s = now_s
        self.on_timeout()
        if self._num_timeouts > self._settings.retries:
            self.has_failed = True
            return
        for sequence in list(self._flight)[:2]:
            message, index, _, _ = self._flight[sequence]
            # a tolerant message waits: the PING's acknowledgement tells whether it arrived
            if message is None or not message.tolerant or index == _FINISH:
                self._lose(sequence)
        self._probes = 2 if self._again else 1
