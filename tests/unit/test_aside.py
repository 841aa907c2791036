"""Calls in a process of their own: in order, with their exceptions, and with the secrets that this process knows."""

import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitsem import redaction
from splitsem.errors import ConfigError, LinkError
from splitsem.workflows import aside

_seen: list[int] = []


def note(number: int) -> list[int]:
    _seen.append(number)
    return _seen


def where() -> int:
    return os.getpid()


def stay_a_second() -> None:
    time.sleep(1.0)


def stay(begun: Path) -> None:
    begun.touch()
    time.sleep(30.0)


def refuse(why: str) -> None:
    raise ConfigError(why)


class OddError(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)  # so that pickle cannot make it again


def fail_oddly() -> None:
    raise OddError(3, "no glyph")


def prints() -> str:
    sys.stdout.write("this is no reply")
    sys.stdout.flush()
    return redaction.text("a pa55word")


def is_loaded(module: str) -> bool:
    return module in sys.modules


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    yield
    aside.close()


def test_calls_run_in_one_other_process_in_order() -> None:
    found = [aside.call(note, number) for number in range(3)]
    assert found[2].result() == [0, 1, 2]
    assert _seen == []
    assert aside.call(where).result() == aside.call(where).result() != os.getpid()


def test_nobody_waits_before_asking() -> None:
    began = time.monotonic()
    found = aside.call(stay_a_second)
    assert time.monotonic() - began < 0.5
    assert found.result() is None


def test_what_is_raised_there_is_raised_here_with_its_traceback() -> None:
    found = aside.call(refuse, "no such store").exception()
    assert isinstance(found, ConfigError)
    assert str(found) == "no such store"
    assert "in refuse" in found.__notes__[0]
    assert aside.call(where).result()


def test_a_process_that_ended_is_told_and_replaced(tmp_path: Path) -> None:
    pid = aside.call(where).result()
    found = aside.call(stay, tmp_path / "begun")
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(LinkError, match="ended"):
        found.result()
    assert aside.call(where).result() not in (pid, os.getpid())


def test_what_is_printed_there_harms_nothing_and_secrets_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", {"pa55word"})
    assert aside.call(prints).result() == "a REDACTED"


def test_it_survives_what_a_terminal_sends() -> None:
    pid = aside.call(where).result()
    os.kill(pid, signal.SIGINT)
    assert aside.call(where).result() == pid


def test_it_starts_light() -> None:
    assert not aside.call(is_loaded, "torch").result()


def test_what_cannot_be_pickled_fails_alone() -> None:
    pid = aside.call(where).result()
    with pytest.raises(RuntimeError, match="OddError: no glyph"):
        aside.call(fail_oddly).result()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        aside.call(print, [0] * 100_000, lambda: None).result()
    assert aside.call(where).result() == pid


def test_what_only_prepares_keeps_nobody_waiting(tmp_path: Path) -> None:
    aside.prepare(stay, tmp_path / "begun")
    while not (tmp_path / "begun").exists():
        pass
    began = time.monotonic()
    aside.close()
    assert time.monotonic() - began < 10  # of the 30 s that it stays


def test_a_call_waits_for_what_prepares_it() -> None:
    aside.prepare(note, 1)
    assert aside.call(note, 2).result() == [1, 2]
