"""Conversation joins a connection's inbox, outbox and acknowledgements; no socket, no clock, no thread."""

from splitsem.remote.udp import packets
from splitsem.remote.udp.inbox import Inbox, Message
from splitsem.remote.udp.outbox import IP_UDP_BYTES, Outbox
from splitsem.remote.udp.packets import ACKED_KINDS, Datagram, Fragment, Kind, Packet
from splitsem.remote.udp.settings import Counts, Settings


class SequenceRanges:
    """The sequence numbers seen, as at most ``max_ranges`` inclusive ranges; older ranges are forgotten.

    A forgotten number counts as seen: its sender counts the packet as lost and has resent the content.

    >>> seen = SequenceRanges(max_ranges=64)
    >>> [seen.add(n) for n in (0, 1, 4, 1)], seen.highest_first()
    ([True, True, True, False], [(4, 4), (0, 1)])
    """

    def __init__(self, max_ranges: int) -> None:
        self.max_ranges = max_ranges
        self._ranges: list[list[int]] = []  # ascending, apart
        self._floor = 0

    def __contains__(self, sequence: int) -> bool:
        if not self._ranges or sequence > self._ranges[-1][1]:
            return sequence < self._floor
        return sequence < self._floor or any(low <= sequence <= high for low, high in reversed(self._ranges))

    def add(self, sequence: int) -> bool:
        """Note an arrival; False for a number that was seen before."""
        ranges = self._ranges
        if ranges and sequence == ranges[-1][1] + 1:
            ranges[-1][1] = sequence
            return True
        if sequence in self:
            return False
        place = len(ranges)
        while place and ranges[place - 1][0] > sequence:
            place -= 1
        ranges.insert(place, [sequence, sequence])
        if place + 1 < len(ranges) and ranges[place + 1][0] == sequence + 1:
            ranges[place][1] = ranges.pop(place + 1)[1]
        if place and ranges[place - 1][1] == sequence - 1:
            ranges[place - 1][1] = ranges.pop(place)[1]
        if len(ranges) > self.max_ranges:
            self._floor = ranges.pop(0)[1] + 1
        return True

    def highest_first(self) -> list[tuple[int, int]]:
        """The ranges as an ACK lists them."""
        return [(low, high) for low, high in reversed(self._ranges)]


class Conversation:
    """One end of a connection: messages of any size within the limits go both ways, each delivered one time.

    Args:
        connection: the number that every packet of the connection carries.
        settings: how to send and how much to keep.
        counts: updated by the conversation.
        now_s: the time, on the caller's clock.
    """

    def __init__(self, connection: int, settings: Settings, counts: Counts, now_s: float) -> None:
        self.connection = connection
        self.heard_s = now_s
        self.outbox = Outbox(connection, settings, counts)
        self.inbox = Inbox(settings, counts)
        self._counts = counts
        self._max_unsettled = 2 * settings.window + 2  # answers whose acknowledgement may be under way
        self._seen = SequenceRanges(packets.max_ack_ranges(settings.fragment_bytes))
        self._num_owed = 0  # packets taken in since the last ACK
        self._acks: list[Datagram] = []

    @property
    def has_failed(self) -> bool:
        """Whether the peer was silent for ``retries`` + 1 time-outs."""
        return self.outbox.has_failed

    def receive(self, packet: Packet, now_s: float) -> Message | None:
        """Take in an ACK, PING, DATA or FINISH; returns the message that the packet completes."""
        if packet.kind is Kind.ACK:
            ranges = packets.parse_ack(packet)
            if ranges is None or not self.outbox.acknowledge(ranges, now_s):
                self._counts.malformed += 1
            else:
                self.heard_s = now_s
            return None
        if packet.kind not in ACKED_KINDS:
            self._counts.malformed += 1
            return None
        fragment = None if packet.kind is Kind.PING else packets.parse_fragment(packet)
        if fragment is None and packet.kind is not Kind.PING:
            self._counts.malformed += 1
            return None
        self.heard_s = now_s
        return self._take_in(packet, fragment, now_s)

    def outgoing(self, now_s: float, limit: int = 64) -> list[Datagram]:
        """About ``limit`` datagrams that may leave now, acknowledgements first."""
        if self._num_owed:
            self._write_ack()
        out, self._acks = self._acks, []
        self.outbox.tick(now_s)
        out.extend(self.outbox.take(now_s, limit))
        return out

    def next_s(self, now_s: float) -> float:
        """When to call ``outgoing`` next, if no packet arrives before."""
        return now_s if self._acks or self._num_owed else self.outbox.next_s(now_s)

    def _take_in(self, packet: Packet, fragment: Fragment | None, now_s: float) -> Message | None:
        if packet.sequence in self._seen:
            self._counts.duplicates += 1
            self._owe_ack()
            return None
        message, is_taken = None, True
        if fragment is not None and self.outbox.num_unsettled > self._max_unsettled:
            self._counts.refused += 1  # a peer that acknowledges no answers gets none
            is_taken = False
        elif fragment is not None:
            take = self.inbox.finish if packet.kind is Kind.FINISH else self.inbox.accept
            is_taken, message = take(fragment, now_s)
        if is_taken:  # a refused fragment is not acknowledged, so it is resent
            self._seen.add(packet.sequence)
            self._owe_ack()
        return message

    def _owe_ack(self) -> None:
        self._num_owed += 1
        if self._num_owed >= self._seen.max_ranges:  # so that every range is sent before it is forgotten
            self._write_ack()

    def _write_ack(self) -> None:
        self._num_owed = 0
        ack = packets.pack_ack(self.connection, self._seen.highest_first())
        self.outbox.bucket.take(len(ack[0]) + IP_UDP_BYTES)
        self._acks.append(ack)
