"""Signals: each that asks for an end is told as an exception with its exit status."""

import contextlib
import signal

import pytest

from splitsem.workflows import stopping
from splitsem.workflows.stopping import Stopped


@pytest.fixture(autouse=True)
def unignored():
    """The suite may run under nohup or in the background of a shell, which ignore some of them."""
    before = {n: signal.signal(n, signal.SIG_DFL) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_run_with_its_status(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught, stopping.listening():
        signal.raise_signal(number)
    assert (caught.value.code, caught.value.signal) == (128 + number, number.name)
    assert signal.getsignal(number) == before
    assert stopping.asked() is None


def test_the_same_stop_told_twice_is_one_and_a_later_one_ends_the_end(monkeypatch):
    now = 100.0
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now)
    with stopping.listening():
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)  # make and the shell tell it, too
        now += 10
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
        assert stopping.asked().signal == "SIGINT"


def test_a_stop_that_was_swallowed_is_told_again():
    with stopping.listening():
        stopping.check()
        with contextlib.suppress(BaseException):  # as a library may
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            stopping.check()


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stopping.listening():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_stops_of_others_are_known():
    assert stopping.stop_of(KeyboardInterrupt()).code == 130
    assert stopping.stop_of(SystemExit(143)).signal == "SIGTERM"
    assert stopping.stop_of(SystemExit(1)) is None
    assert stopping.stop_of(ValueError()) is None
