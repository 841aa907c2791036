"""Patience in seconds with a clock and draws of the test's own, answers kept within bytes, and what a peer may say."""

import dataclasses
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from splitsem.errors import ConfigError
from splitsem.remote.journal import Journal
from splitsem.remote.replies import Replies, ReplyBook
from splitsem_device.answers import Answer
from splitsem_device.grpc.client import GrpcTail
from splitsem_device.grpc.connection import Security
from splitsem_device.peer_text import shown, shown_lines
from splitsem_device.plan import MAX_PLAN_BYTES, Plan
from splitsem_device.retry import Backoff, Patience

PLAN = Plan("f", "w", "stage1", "layer", "float32", "Identity", "values(10,)")


def waits(retry, try_s=0.0, seed=0):
    """The waits before the tries of an effort in which each try takes ``try_s``."""
    now_s = 0.0
    patience = Patience(retry, lambda: now_s, random.Random(seed).uniform)
    found = []
    while (wait_s := patience.fail()) is not None:
        found.append(wait_s)
        now_s += wait_s + try_s
    return found, now_s


@pytest.mark.parametrize("try_s", [0.0, 3.0, 30.0])
def test_the_default_patience_lasts_two_minutes_however_long_a_try_takes(try_s):
    found, ended_s = waits(Backoff(), try_s)
    assert 120 <= ended_s <= 120 + try_s + 1e-6
    assert max(found) <= 5.0


def test_waits_double_up_to_their_bound_and_are_drawn_anew():
    found, _ = waits(Backoff(first_s=0.1, most_s=5.0), try_s=0.001)
    assert all(wait_s <= min(5.0, 0.1 * 2**k) for k, wait_s in enumerate(found))
    assert found == waits(Backoff(first_s=0.1, most_s=5.0), try_s=0.001)[0] != waits(Backoff(), try_s=0.001, seed=1)[0]


@pytest.mark.parametrize("retries", [0, 1, 6])
def test_n_retries_are_n_retries_within_the_patience(retries):
    assert len(waits(Backoff(retries=retries))[0]) == retries
    assert len(waits(Backoff(retries=1000, patience_s=3.0), try_s=1.0)[0]) < 5


def test_an_answer_renews_the_patience():
    patience = Patience(Backoff(retries=1), lambda: 0.0)
    assert patience.fail() is not None
    patience.renew()
    assert patience.fail() is not None
    assert patience.fail() is None


@pytest.mark.parametrize("change", [{"patience_s": -1.0}, {"patience_s": float("nan")}, {"retries": -1}])
def test_impatience_that_makes_no_sense_is_refused(change):
    with pytest.raises(ValueError, match="must"):
        Backoff(**change)


def answer_of(num_bytes, request_id=0):
    return Answer(request_id, bytes(num_bytes), 0.0, 0.0)


def test_a_clients_kept_answers_are_bounded_in_bytes_and_the_newest_stays():
    replies = Replies(window=100, most_bytes=1000)
    for number in range(50):
        replies.answer(number, lambda: answer_of(300))
        assert replies.num_bytes <= 1000
    assert replies.answer(50, lambda: answer_of(5000)) is replies.answer(50, lambda: answer_of(1))
    replies.answer(51, lambda: answer_of(10), num_answered=51)
    assert replies.num_bytes == 10


def test_an_answer_that_is_there_does_not_wait_for_the_frame_that_is_computed():
    replies, begun, go_on, num_computed = Replies(window=10), threading.Event(), threading.Event(), []

    def slowly():
        num_computed.append(1)
        begun.set()
        assert go_on.wait(10)
        return Answer(1, b"late", 0.0, 0.0)

    replies.begin(0, lambda: Answer(0, b"there", 0.0, 0.0))
    with ThreadPoolExecutor(2) as pool:
        twice = [pool.submit(replies.answer, 1, slowly) for _ in range(2)]  # one of them resent
        assert begun.wait(10)
        assert replies.answer(0, pytest.fail).payload == b"there"
        go_on.set()
        assert [future.result(10).payload for future in twice] == [b"late"] * 2
    assert len(num_computed) == 1


def test_all_clients_kept_answers_together_are_bounded_in_bytes():
    book = ReplyBook(max_clients=100, window=10, most_bytes=10_000)
    for number in range(100):
        book.answer(f"client {number}", 0, lambda: answer_of(900))
        assert book.num_bytes <= 10_000
    kept = book.answer("client 99", 0, lambda: answer_of(1))
    assert len(kept.payload) == 900


def test_what_a_peer_says_is_one_short_line_without_control_characters():
    assert shown("x" * 3_000_000) == "x" * 200 + "… (2999800 more)"
    assert "\n" not in shown("a\nERROR pwned") + shown("\r\x1b[2J\u2028\u202e")
    assert shown("\x1b").isprintable()
    assert shown_lines("one\ntwo\x1b") == "one\ntwo\\x1b"
    assert shown_lines("\n" * 1000).count("\n") < 20


@pytest.mark.parametrize("field", ["fingerprint", "weights", "point", "precision", "codec", "answer"])
@pytest.mark.parametrize("text", ["x" * 3_000_000, "x" * 2000, "a\nb", "\x1b[2J"])
def test_a_plan_with_long_or_unprintable_text_is_refused_in_few_words(field, text):
    with pytest.raises(ConfigError, match="expected a plan") as refused:
        Plan.from_json(dataclasses.replace(PLAN, **{field: text}).to_json())
    assert len(str(refused.value)) < 400
    assert str(refused.value).isprintable()


def test_a_plan_of_many_fields_is_refused_before_it_is_read():
    with pytest.raises(ConfigError, match=f"at most {MAX_PLAN_BYTES}"):
        Plan.from_json("{" + ",".join(f'"f{i}": 0' for i in range(100_000)) + "}")


class Echo:
    """A tail that answers each frame by itself, and stops after some."""

    def __init__(self, num=1000):
        self.num, self.sent = num, []

    def stream(self, payloads, window=None):
        for number, payload in zip(range(self.num), payloads, strict=False):
            self.sent.append(payload)
            yield Answer(number, payload, 0.25, 0.5)


FRAMES = [f"frame {number}".encode() for number in range(10)]


def test_a_journal_sends_only_what_has_no_answer(tmp_path):
    first = list(Journal(tmp_path / "a", PLAN).stream(Echo(4), FRAMES))
    again = Echo()
    answers = list(Journal(tmp_path / "a", PLAN).stream(again, FRAMES))
    assert again.sent == FRAMES[4:]
    assert answers[:4] == first
    assert [(a.request_id, a.payload, a.server_s, a.queue_s) for a in answers] == [
        (number, frame, 0.25, 0.5) for number, frame in enumerate(FRAMES)
    ]
    assert Journal(tmp_path / "a", PLAN).num_kept == 10


@pytest.mark.parametrize("cut_bytes", [1, 9, 20, 40])
def test_a_torn_record_is_cut_off_and_its_frame_sent_again(tmp_path, cut_bytes):
    path = tmp_path / "a"
    list(Journal(path, PLAN).stream(Echo(), FRAMES))
    path.write_bytes(path.read_bytes()[:-cut_bytes])
    again = Echo()
    assert [a.payload for a in Journal(path, PLAN).stream(again, FRAMES)] == FRAMES
    assert 1 <= len(again.sent) <= 2
    assert Journal(path, PLAN).num_kept == 10


def test_a_journal_of_other_frames_or_another_plan_is_refused(tmp_path):
    path = tmp_path / "a"
    list(Journal(path, PLAN).stream(Echo(), FRAMES))
    with pytest.raises(ConfigError, match="frame 0 is not the one"):
        list(Journal(path, PLAN).stream(Echo(), FRAMES[1:]))
    with pytest.raises(ConfigError, match="does not keep answers of this plan"):
        Journal(path, dataclasses.replace(PLAN, point="stem"))
    (tmp_path / "mine.txt").write_text("my own notes\n")
    with pytest.raises(ConfigError, match="give another file"):
        Journal(tmp_path / "mine.txt", PLAN)
    assert (tmp_path / "mine.txt").read_text() == "my own notes\n"


def test_what_is_no_number_is_refused_and_the_bounds_of_the_tries_are_told():
    with pytest.raises(ValueError, match="patience_s must be a number, got 'a'"):
        Backoff(patience_s="a")
    assert Backoff().bounds() == "for up to 120 s"
    assert Backoff(retries=2).bounds() == "for up to 120 s, at most 2 more times"


def test_what_only_grpcs_developers_read_is_left_out():
    tail = GrpcTail("127.0.0.1:9", 8, Backoff(), Security())
    said = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:9: Failed to connect"
    assert tail._plain(grpc.StatusCode.UNAVAILABLE, said) == "the connection to 127.0.0.1:9 broke"
    assert tail._plain(grpc.StatusCode.DEADLINE_EXCEEDED, "x") == "127.0.0.1:9 did not answer in time"
    assert (
        tail._plain(grpc.StatusCode.UNAVAILABLE, "the next machine is away") == "UNAVAILABLE: the next machine is away"
    )
