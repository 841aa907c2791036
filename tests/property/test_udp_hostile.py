"""Whatever datagrams come, the server and the client ignore what makes no sense, count it, and keep little."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitsem.remote.ends import Counters
from splitsem.remote.udp import packets
from splitsem.remote.udp.caller import Caller
from splitsem.remote.udp.packets import Fragment, Hello, Kind, Limits, Purpose
from splitsem.remote.udp.sessions import Sessions
from splitsem.remote.udp.settings import Settings

QUICK = settings(deadline=None, max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SMALL = Settings(max_message_bytes=20_000, buffer_bytes=60_000, window_bytes=20_000, window=4, fragment_bytes=500)
HERE, THERE = ("127.0.0.1", 1111), ("127.0.0.1", 2222)
TOKEN, CONNECTION, NOW_S = bytes(16), 77, 1000.0

numbers = st.one_of(st.integers(0, 9), st.integers(0, (1 << 64) - 1))
small = st.one_of(st.integers(0, 9), st.integers(0, (1 << 32) - 1))
fragments = st.builds(
    Fragment,
    purpose=st.integers(0, 255),
    number=numbers,
    size=st.one_of(st.integers(0, 30_000), small),
    place=small,
    fragment_bytes=st.one_of(st.just(500), st.integers(0, 65_535)),
    body=st.binary(max_size=600).map(memoryview),
)
data = st.builds(packets.pack_data, st.sampled_from((CONNECTION, 5)), numbers, fragments)
others = st.builds(
    packets.pack,
    st.sampled_from(Kind),
    st.sampled_from((CONNECTION, 5)),
    numbers,
    st.one_of(st.binary(max_size=80), st.binary(min_size=8, max_size=8), st.binary(max_size=1)),
)
datagrams = st.one_of(data, others, st.binary(max_size=300).map(lambda b: (b,))).map(b"".join)


def connected_sessions() -> Sessions:
    sessions = Sessions(SMALL, max_clients=3, idle_s=10.0)
    cookie = ask(sessions, Hello(bytes(16), TOKEN, 0)).body
    assert ask(sessions, Hello(bytes(cookie), TOKEN, 0)).kind is Kind.WELCOME
    return sessions


def give(side: Sessions | Caller, datagram: memoryview | bytes, address: tuple = HERE) -> None:
    with side.lock:
        side.receive(memoryview(datagram), address, NOW_S)


def ask(sessions: Sessions, hello: Hello, address=HERE, connection=CONNECTION) -> packets.Packet:
    give(sessions, packets.pack(Kind.HELLO, connection, 0, hello.pack())[0], address)
    [(_, [answer])] = [out for out in sessions.outgoing(NOW_S) if out[0] == address]
    return packets.parse(b"".join(answer))


@QUICK
@given(st.lists(datagrams, max_size=40))
def test_no_datagram_harms_the_server_and_it_keeps_little(received):
    sessions = connected_sessions()
    for datagram in received:
        for address in (HERE, THERE):
            give(sessions, datagram, address)
        assert sessions.held_bytes <= 2 * min(SMALL.buffer_bytes, sum(map(len, received)))
        list(sessions.outgoing(NOW_S))
        sessions.next_s(NOW_S)
    assert sessions.num_clients <= 3
    assert connected_sessions().num_clients == 1


@QUICK
@given(st.lists(datagrams, max_size=40), st.booleans())
def test_no_datagram_harms_the_client(received, is_connected):
    caller = Caller("server", SMALL, "{}", Counters())
    caller._connection = CONNECTION
    if is_connected:
        for kind, body in ((Kind.CHALLENGE, b"c" * 16), (Kind.WELCOME, Limits(4, 20_000, 60_000).pack())):
            give(caller, packets.pack(kind, CONNECTION, 0, body)[0])
        assert caller._conversation is not None
    for datagram in received:
        give(caller, datagram)
        list(caller.outgoing(NOW_S))
        caller.next_s(NOW_S)


def test_100_000_mutated_datagrams_are_ignored_and_counted_and_memory_stays_flat():
    rng = random.Random(0)
    sessions = connected_sessions()
    good = [
        b"".join(
            packets.pack_data(CONNECTION, i, Fragment(Purpose.FRAME, i, 20_000, i % 40, 500, memoryview(bytes(500))))
        )
        for i in range(50)
    ]
    for _ in range(100_000):
        datagram = bytearray(rng.choice(good))
        for place in rng.sample(range(len(datagram)), rng.randint(1, 4)):
            datagram[place] ^= rng.randint(1, 255)
        del datagram[rng.randint(1, 2 * len(datagram)) :]
        give(sessions, datagram, HERE)
    assert sessions.counts.malformed == 100_000
    assert sessions.held_bytes == 0
    assert list(sessions.outgoing(NOW_S)) == []


def test_forged_addresses_leave_nothing_behind_and_are_sent_less_than_they_sent():
    sessions = Sessions(SMALL, max_clients=3, idle_s=10.0)
    hello = packets.pack(Kind.HELLO, CONNECTION, 0, Hello(bytes(16), TOKEN, 0).pack())[0]
    for port in range(1, 2000):
        give(sessions, hello, ("127.0.0.1", port))
    assert sessions.num_clients == 0
    answers = [b"".join(d) for _, ds in sessions.outgoing(NOW_S) for d in ds]
    assert 0 < len(answers) <= 2000
    assert all(len(answer) < len(hello) for answer in answers)


def test_a_cookie_of_another_address_is_not_taken():
    sessions = Sessions(SMALL, max_clients=3, idle_s=10.0)
    cookie = bytes(ask(sessions, Hello(bytes(16), TOKEN, 0)).body)
    assert ask(sessions, Hello(cookie, TOKEN, 0), address=THERE).kind is Kind.CHALLENGE
    assert ask(sessions, Hello(cookie, TOKEN, 0), connection=CONNECTION + 1).kind is Kind.CHALLENGE
    assert ask(sessions, Hello(cookie, TOKEN, 0)).kind is Kind.WELCOME


def test_a_client_that_floods_is_held_to_its_share_and_what_does_not_fit_is_not_acknowledged():
    sessions = connected_sessions()
    for i in range(1000):
        fragment = Fragment(Purpose.FRAME, i % 5, 20_000, i // 5 % 40, 500, memoryview(bytes(500)))
        give(sessions, b"".join(packets.pack_data(CONNECTION, i, fragment)), HERE)
    assert sessions.held_bytes <= SMALL.buffer_bytes
    assert sessions.counts.refused > 0
    acked = {
        n
        for _, out in sessions.outgoing(NOW_S)
        for d in out
        if (p := packets.parse(d[0])) and p.kind is Kind.ACK
        for low, high in packets.parse_ack(p)
        for n in range(low, high + 1)
    }
    assert 0 < len(acked) < 1000


def test_messages_beyond_the_window_are_refused_however_small():
    sessions = connected_sessions()
    for i in range(1000):
        fragment = Fragment(Purpose.FRAME, i, 1, 0, 500, memoryview(b"x"))
        give(sessions, b"".join(packets.pack_data(CONNECTION, i, fragment)), HERE)
    assert sessions.counts.refused >= 1000 - SMALL.window - 2
    assert sessions.held_bytes <= SMALL.window + 2


def test_a_client_that_asks_on_but_takes_no_answers_is_not_served_without_end():
    sessions = connected_sessions()
    for i in range(1000):
        fragment = Fragment(Purpose.FRAME, i, 1, 0, 500, memoryview(b"x"))
        give(sessions, b"".join(packets.pack_data(CONNECTION, i, fragment)))
        with sessions.lock:
            if sessions._turns:
                sessions.done(sessions.next_job(), Purpose.ANSWER, bytes(10_000))
    conversation = sessions._by_connection[CONNECTION].conversation
    assert conversation.outbox.num_unsettled <= 2 * SMALL.window + 3
    assert sessions.counts.refused > 900


def test_silent_clients_and_stale_parts_are_forgotten():
    sessions = connected_sessions()
    fragment = Fragment(Purpose.FRAME, 0, 1000, 0, 500, memoryview(bytes(500)))
    give(sessions, b"".join(packets.pack_data(CONNECTION, 0, fragment)), HERE)
    assert sessions.held_bytes == 500
    list(sessions.outgoing(NOW_S + 11))
    assert (sessions.num_clients, sessions.held_bytes) == (0, 0)


def test_an_unknown_connection_is_told_so():
    sessions = connected_sessions()
    give(sessions, packets.pack(Kind.PING, 5, 0)[0], THERE)
    [(_, [answer])] = [out for out in sessions.outgoing(NOW_S) if out[0] == THERE]
    assert packets.parse(answer[0]).kind is Kind.RESET
