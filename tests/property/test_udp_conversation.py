"""Properties of the datagram protocol over a made-up network with its own clock: loss, disorder, damage."""

import heapq
import itertools
import random
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitsem.remote.udp import packets
from splitsem.remote.udp.conversation import Conversation
from splitsem.remote.udp.inbox import Message
from splitsem.remote.udp.settings import Counts, Settings

QUICK = settings(deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
CONNECTION = 7


@dataclass
class Network:
    """Carries datagrams between conversations 0 and 1 in virtual time."""

    seed: int
    loss: float = 0.0
    duplicate: float = 0.0
    jitter_s: float = 0.0
    damage: float = 0.0
    settings: Settings = field(default_factory=Settings)
    now_s: float = 100.0
    line_bps: float = 1e12
    queue_s: float = 1.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.counts = (Counts(), Counts())
        self.ends = tuple(Conversation(CONNECTION, self.settings, c, self.now_s) for c in self.counts)
        self.under_way: list[tuple[float, int, int, bytes]] = []
        self.num_sent = self.longest = self.num_dropped = 0
        self.free_s = [self.now_s, self.now_s]
        self.num_bytes_sent = [0, 0]
        self.received: tuple[list[Message], list[Message]] = ([], [])

    def run(self, until_s: float, release: bool = True) -> None:
        """Let time go by until nothing is left to do."""
        until_s += self.now_s
        while self.now_s < until_s:
            for end in (0, 1):
                for datagram in self.ends[end].outgoing(self.now_s):
                    self.send(1 - end, b"".join(datagram))
            if all(end.outbox.is_idle for end in self.ends) and not self.under_way:
                return
            self.now_s = min(
                self.under_way[0][0] if self.under_way else until_s,
                max(min(end.next_s(self.now_s) for end in self.ends), self.now_s),
            )
            while self.under_way and self.under_way[0][0] <= self.now_s:
                _, _, end, datagram = heapq.heappop(self.under_way)
                packet = packets.parse(datagram)
                if packet is not None and (message := self.ends[end].receive(packet, self.now_s)):
                    self.received[end].append(message)
                    if release:
                        self.ends[end].inbox.release(len(message.payload))

    def send(self, to: int, datagram: bytes) -> None:
        self.num_bytes_sent[1 - to] += len(datagram)
        self.longest = max(self.longest, len(datagram))
        if self.free_s[to] > self.now_s + self.queue_s:
            self.num_dropped += 1
            return
        self.free_s[to] = max(self.free_s[to], self.now_s) + 8 * len(datagram) / self.line_bps
        for _ in range(2 if self.random.random() < self.duplicate else 1):
            if self.random.random() < self.loss:
                continue
            self.num_sent += 1
            at_s = self.free_s[to] + 0.01 + self.random.random() * self.jitter_s
            if self.random.random() < self.damage:
                place = self.random.randrange(len(datagram))
                datagram = (
                    datagram[:place] + bytes((datagram[place] ^ 1 << self.random.randrange(8),)) + datagram[place + 1 :]
                )
            heapq.heappush(self.under_way, (at_s, self.num_sent, to, datagram))


def message(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


networks = st.builds(
    Network,
    seed=st.integers(0, 1 << 32),
    loss=st.sampled_from((0.0, 0.02, 0.1, 0.3)),
    duplicate=st.sampled_from((0.0, 0.2)),
    jitter_s=st.sampled_from((0.0, 0.002, 0.05)),
    damage=st.sampled_from((0.0, 0.05)),
    settings=st.builds(
        Settings,
        fragment_bytes=st.sampled_from((64, 300, 1400)),
        rate_bps=st.sampled_from((None, 1e6)),
        retries=st.just(30),
    ),
)
sizes = st.lists(st.sampled_from((0, 1, 63, 64, 65, 1399, 1400, 1401, 5000, 20_000)), min_size=1, max_size=12)


@QUICK
@given(networks, sizes)
def test_every_message_arrives_once_and_unchanged_whatever_the_network_does(network, sizes):
    messages = [message(i, size) for i, size in enumerate(sizes)]
    for number, payload in enumerate(messages):
        network.ends[0].outbox.offer(number, 1, payload)
        network.ends[1].outbox.offer(number, 2, payload[::-1])
    network.run(until_s=600)
    for end, expected in ((1, messages), (0, [m[::-1] for m in messages])):
        received = sorted(network.received[end])
        assert [m.payload for m in received] == expected
        assert [m.number for m in received] == list(range(len(expected)))
        assert not any(m.missing for m in received)
        assert network.ends[end].inbox.held_bytes == network.ends[end].outbox.num_unsettled == 0


@QUICK
@given(networks, sizes)
def test_tolerated_messages_are_all_reported_and_what_arrived_is_right(network, sizes):
    messages = [message(i, size) for i, size in enumerate(sizes)]
    for number, payload in enumerate(messages):
        network.ends[0].outbox.offer(number, 1, payload, tolerant=True)
    network.run(until_s=600)
    received = sorted(network.received[1])
    assert [m.number for m in received] == list(range(len(messages)))
    for expected, got in zip(messages, received, strict=True):
        if not got.payload and got.missing:
            assert 2 * sum(length for _, length in got.missing) > len(expected)
            continue
        assert len(got.payload) == len(expected)
        patched = bytearray(got.payload)
        for start, length in got.missing:
            assert not any(patched[start : start + length])
            patched[start : start + length] = expected[start : start + length]
        assert patched == expected
    assert network.ends[0].outbox.num_unsettled == 0
    assert network.counts[0].fragments_resent <= len(messages) * 40  # FINISH only, never data


def test_n_retries_are_n_retries_with_waits_that_double():
    for retries in (0, 1, 4):
        network = Network(seed=0, loss=1.0, settings=Settings(retries=retries))
        network.ends[0].outbox.offer(0, 1, b"anyone?")
        times_s = []
        while not network.ends[0].has_failed:
            if network.ends[0].outgoing(network.now_s):
                times_s.append(network.now_s)
            network.now_s = network.ends[0].next_s(network.now_s)
        assert len(times_s) == 1 + retries
        waits_s = [b - a for a, b in itertools.pairwise(times_s)]
        assert all(abs(wait_s - 0.2 * 2**i) < 1e-6 for i, wait_s in enumerate(waits_s))


def test_a_peer_that_answers_is_never_given_up_however_much_is_lost():
    network = Network(seed=3, loss=0.5, settings=Settings(retries=30))
    network.ends[0].outbox.offer(0, 1, message(0, 200_000))
    network.run(until_s=3600)
    assert bytes(network.received[1][0].payload) == message(0, 200_000)
    assert not network.ends[0].has_failed


def test_the_rate_is_kept_with_headers_resends_and_all():
    network = Network(seed=1, loss=0.1, settings=Settings(rate_bps=1e6, retries=30))
    network.ends[0].outbox.offer(0, 1, message(0, 500_000))
    began_s = network.now_s
    network.run(until_s=3600)
    took_s = network.now_s - began_s
    assert 8 * network.num_bytes_sent[0] / took_s < 1e6
    assert 8 * 500_000 / took_s > 0.8e6  # 10 % loss and 5 % headers leave 0.86


def test_a_line_of_unknown_rate_is_filled_and_not_flooded():
    network = Network(seed=0, line_bps=10e6, queue_s=0.03)
    network.ends[0].outbox.offer(0, 1, message(0, 4_000_000))
    began_s = network.now_s
    network.run(until_s=60)
    assert 8 * 4_000_000 / (network.now_s - began_s) > 0.9 * 10e6 * 1400 / 1443
    assert 0 < network.num_dropped < 0.05 * 4_000_000 / 1400


def test_a_clean_network_sees_every_fragment_once():
    network = Network(seed=0)
    network.ends[0].outbox.offer(0, 1, message(0, 1_000_000))
    network.run(until_s=60)
    assert network.counts[0].fragments_resent == network.counts[0].fragments_lost == 0
    assert network.counts[1].duplicates == 0


def test_a_receiver_that_is_full_makes_the_sender_wait_not_fail_for_ever():
    limits = Settings(max_message_bytes=30_000, buffer_bytes=50_000, window_bytes=20_000, retries=30)
    network = Network(seed=0, settings=limits)
    for number in range(3):
        network.ends[0].outbox.offer(number, 1, message(number, 20_000))
    network.run(until_s=1.0, release=False)
    assert len(network.received[1]) == 2
    assert network.ends[1].inbox.held_bytes <= 50_000
    for taken in network.received[1]:
        network.ends[1].inbox.release(len(taken.payload))
    network.run(until_s=60)
    assert [bytes(m.payload) for m in network.received[1]] == [message(n, 20_000) for n in range(3)]


def test_a_burst_with_many_holes_is_acknowledged_whole():
    """With every third packet lost, one ACK could not name all ranges of a large burst."""
    network = Network(seed=0, settings=Settings(rate_bps=1e9))
    network.ends[0].outbox.offer(0, 1, message(0, 600_000), tolerant=True)
    burst = []
    while datagrams := network.ends[0].outgoing(network.now_s):
        burst += datagrams
        network.now_s += 1e-3
    kept = [b"".join(d) for i, d in enumerate(burst) if i % 3]
    assert len(kept) > 4 * packets.MAX_ACK_RANGES
    for datagram in kept:
        network.ends[1].receive(packets.parse(datagram), network.now_s)
    for ack in network.ends[1].outgoing(network.now_s):
        network.ends[0].receive(packets.parse(b"".join(ack)), network.now_s)
    assert abs(network.counts[0].fragments_lost - (len(burst) - len(kept))) <= 3


def test_no_packet_is_longer_than_a_full_fragments():
    for fragment_bytes in (64, 200, 1400):
        limits = Settings(fragment_bytes=fragment_bytes, retries=30)
        network = Network(seed=0, loss=0.3, duplicate=0.3, jitter_s=0.02, settings=limits)
        network.ends[0].outbox.offer(0, 1, message(0, 50_000))
        network.run(until_s=600)
        assert len(network.received[1]) == 1
        assert network.longest == fragment_bytes + packets.OVERHEAD_BYTES


def test_parts_that_stand_still_are_given_up_and_their_memory_is_free():
    network = Network(seed=0)
    fragment = packets.Fragment(1, 0, 5000, 0, 1400, memoryview(bytes(1400)))
    packet = packets.parse(b"".join(packets.pack_data(CONNECTION, 0, fragment)))
    network.ends[1].receive(packet, network.now_s)
    inbox = network.ends[1].inbox
    assert inbox.held_bytes == 1400
    assert inbox.expire(network.now_s + 29) == 0
    assert inbox.expire(network.now_s + 31) == 1
    assert (inbox.held_bytes, network.counts[1].expired) == (0, 1)
