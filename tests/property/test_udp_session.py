"""A server's session, without sockets: a frame is handed out at most once, and right, and memory is bounded."""

import random

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splitsem.remote.udp import packets
from splitsem.remote.udp.packets import Became, Direction, Fragment, Outcome, Report, Seal
from splitsem.remote.udp.session import Session
from splitsem.remote.udp.settings import Grant

QUICK = settings(deadline=None, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
KEY, STEP, WINDOW = bytes(32), 100, 4
SMALL = Grant(max_frame_bytes=5_000, buffer_bytes=20_000, max_age_s=2.0)
HERE, THERE = ("127.0.0.1", 1111), ("127.0.0.1", 2222)


fragment_like = st.builds(
    lambda *values: msgspec.msgpack.encode([1, *values]),
    *[st.integers(0, 1 << 33)] * 3,
    st.binary(max_size=100),
    st.booleans(),
    st.booleans(),
)


def ends(grant: Grant = SMALL) -> tuple[Seal, Session]:
    return Seal(5, KEY, Direction.TO_SERVER), Session(5, KEY, STEP, WINDOW, grant)


def pieces(frame: int, payload: bytes) -> list[Fragment]:
    num = packets.num_fragments(len(payload), STEP)
    found = [Fragment(frame, len(payload), i, payload[i * STEP : (i + 1) * STEP]) for i in range(num)]
    return [*found, Fragment(frame, len(payload), 0, b"", is_end=True)]


def jobs_of(session: Session) -> list:
    found = []
    while session.jobs:
        job = session.next_job()
        session.answered(Became(Outcome.ANSWERED, job.frame, 0), job)
        found.append(job)
    return found


def said(session: Session, seal: Seal, contents: list[bytes]) -> list:
    """What the edge reads of these contents, without reports."""
    edge = Seal(5, KEY, Direction.TO_SERVER)
    read = [packets.parse(edge.open(session.seal.seal(content)[1])) for content in contents]
    return [content for content in read if not isinstance(content, Report)]


@QUICK
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, 1500), min_size=1, max_size=WINDOW))
def test_frames_come_out_once_with_what_arrived_and_the_gaps_known(rng, sizes):
    seal, session = ends()
    payloads = [bytes([1 + frame]) * size for frame, size in enumerate(sizes)]
    datagrams = [
        seal.seal(packets.pack(p))[1] for frame, payload in enumerate(payloads) for p in pieces(frame, payload)
    ]
    arrived = [d for d in datagrams if rng.random() > 0.2]
    rng.shuffle(arrived)
    arrived += rng.sample(arrived, len(arrived) // 2)  # repeated
    for datagram in arrived:
        session.receive(datagram, HERE, 1.0)
    session.settle(1.1)
    jobs = jobs_of(session)
    assert len({job.frame for job in jobs}) == len(jobs)
    for job in jobs:
        payload = payloads[job.frame]
        for start, length in job.gaps:
            payload = payload[:start] + bytes(length) + payload[start + length :]
        assert bytes(job.payload) == payload or (2 * job.num_missing > len(payload) and not job.payload)
    session.settle(5.0)
    assert session.held_bytes == 0


def test_a_frame_waits_a_little_for_its_missing_pieces_and_no_longer():
    seal, session = ends()
    first, second, third, end = pieces(0, bytes(range(250)))
    for piece in (first, third):
        session.receive(seal.seal(packets.pack(piece))[1], HERE, 1.0)
    late = seal.seal(packets.pack(second))[1]
    assert session.settle(1.001) is not None
    assert not session.jobs
    assert session.settle(1.01) is None
    [job] = jobs_of(session)
    assert job.gaps == [(100, 100)]
    session.receive(late, HERE, 1.02)
    session.receive(seal.seal(packets.pack(end))[1], HERE, 1.02)
    assert session.settle(2.0) is None
    assert not session.jobs


def test_an_answer_that_was_lost_is_sent_again_when_it_is_asked_for():
    seal, session = ends()
    piece, end = pieces(0, b"x")
    session.receive(seal.seal(packets.pack(piece))[1], HERE, 1.0)
    assert said(session, seal, session.receive(seal.seal(packets.pack(end))[1], HERE, 1.0)) == []  # not there yet
    job = session.next_job()
    answer = Became(Outcome.ANSWERED, 0, 0, 0.1, 0.2, b"answer")
    session.answered(answer, job)
    assert said(session, seal, session.receive(seal.seal(packets.pack(end))[1], HERE, 1.0)) == [answer]


def test_a_frame_of_which_nothing_came_is_said_to_be_lost():
    seal, session = ends()
    end = Fragment(3, 700, 0, b"", is_end=True)
    answers = said(session, seal, session.receive(seal.seal(packets.pack(end))[1], HERE, 1.0))
    assert answers == [Became(Outcome.LOST, 3, 700)]
    session.receive(seal.seal(packets.pack(pieces(3, bytes(700))[0]))[1], HERE, 1.0)
    assert session.held_bytes == 0


def test_pieces_that_go_nowhere_are_bounded_in_bytes_and_in_time():
    seal, session = ends()
    for frame in range(10_000):
        first = pieces(frame, bytes(4_900))[0]
        session.receive(seal.seal(packets.pack(first))[1], HERE, 1.0)
        assert session.held_bytes <= SMALL.buffer_bytes
    assert len(session._pieces) <= 2 * WINDOW
    session.settle(1.0 + SMALL.max_age_s + 0.1)
    assert session.held_bytes == 0
    assert not session._pieces
    for frame in range(20_000, 20_004):
        for piece in pieces(frame, bytes(4_900)):
            session.receive(seal.seal(packets.pack(piece))[1], HERE, 5.0)
    assert session.held_bytes <= SMALL.buffer_bytes


def test_many_tiny_pieces_count_with_what_they_really_take():
    seal = Seal(5, KEY, Direction.TO_SERVER)
    session = Session(5, KEY, 64, WINDOW, Grant(max_frame_bytes=1 << 20, buffer_bytes=20_000))
    for place in range(1, 1000):
        piece = Fragment(0, 1 << 20, place, bytes(64), is_echo=True)
        session.receive(seal.seal(packets.pack(piece))[1], HERE, 1.0)
    assert len(session._pieces[0].bodies) <= 200


def test_a_frame_beyond_the_grant_takes_nothing():
    seal, session = ends()
    for piece in pieces(0, bytes(5_100)):
        out = said(session, seal, session.receive(seal.seal(packets.pack(piece))[1], HERE, 1.0))
    assert out == [Became(Outcome.LOST, 0, 5_100)]
    assert session.held_bytes == 0


@QUICK
@given(st.lists(st.binary(max_size=200), max_size=40))
def test_forged_datagrams_change_nothing(received):
    _, session = ends()
    head = packets._HEADER.pack(5, 7)
    for datagram in received:
        for forged in (datagram, head + datagram):
            assert session.receive(forged, THERE, 1.0) == []
    assert (session.address, session.held_bytes, session.seal.seen.highest) == ((), 0, -1)


@QUICK
@given(st.lists(st.binary(max_size=60) | fragment_like, max_size=40))
def test_an_edge_that_has_the_key_and_sends_nonsense_harms_nobody(contents):
    seal, session = ends()
    for content in contents:
        session.receive(seal.seal(content)[1], HERE, 1.0)
        session.settle(1.0)
        assert session.held_bytes <= SMALL.buffer_bytes
    session.settle(10.0)
    jobs_of(session)
    assert session.held_bytes == 0


def test_an_edge_may_move_but_a_replay_from_elsewhere_moves_nobody():
    seal, session = ends()
    old, newer = (seal.seal(packets.pack(Fragment(n, 1, 0, b"x")))[1] for n in range(2))
    session.receive(old, HERE, 1.0)
    assert session.address == HERE
    session.receive(old, THERE, 1.0)
    assert session.address == HERE
    session.receive(newer, THERE, 1.0)
    assert session.address == THERE


def test_100_000_mutated_datagrams_open_nothing_and_cost_little():
    rng, (seal, session) = random.Random(0), ends()
    good = [seal.seal(packets.pack(Fragment(i, 300, 0, bytes(100))))[1] for i in range(50)]
    for _ in range(100_000):
        datagram = bytearray(rng.choice(good))
        for place in rng.sample(range(len(datagram)), rng.randint(1, 4)):
            datagram[place] ^= rng.randint(1, 255)
        assert session.receive(bytes(datagram[: rng.randint(1, 2 * len(datagram))]), THERE, 1.0) == []
    assert session.held_bytes == 0
