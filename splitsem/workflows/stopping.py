"""Stopping: SIGTERM, SIGINT and SIGHUP end a run as an exception, so that what there is gets written and closed."""

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SAME_S = 2.0  # a shell, `timeout` and make may each tell of the same stop
_asked: list[tuple[float, "Stopped"]] = []


class Stopped(SystemExit):
    """A signal asked the process to end; the exit status is 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number).name


@contextlib.contextmanager
def listening(*, is_once: bool = False) -> Iterator[None]:
    """Raise Stopped at the first signal that asks for an end; again at one that comes seconds later.

    A signal that is ignored stays so: a shell starts jobs in the background with SIGINT ignored, nohup with SIGHUP.

    Args:
        is_once: nothing is raised a second time, so that what is written at the end gets written.
    """
    stop = _stop_once if is_once else _stop
    before = {n: signal.signal(n, stop) for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def asked() -> Stopped | None:
    """What a signal asked for so far."""
    return _asked[0][1] if _asked else None


def check() -> None:
    """Raise Stopped again, where whatever ran when the signal came has swallowed it."""
    if _asked:
        raise _asked[0][1]


def stop_of(exc: BaseException | None) -> Stopped | None:
    """The signal behind an exception: also behind those that Python and Lightning raise of their own accord."""
    if isinstance(exc, Stopped):
        return exc
    if isinstance(exc, KeyboardInterrupt):
        return Stopped(signal.SIGINT)
    if isinstance(exc, SystemExit) and exc.code == 128 + signal.SIGTERM:
        return Stopped(signal.SIGTERM)
    return asked() if isinstance(exc, SystemExit) else None


def _stop(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _asked and now - _asked[0][0] < _SAME_S:
        return
    stopped = Stopped(number)
    _asked.append((now, stopped))
    raise stopped


def _stop_once(number: int, frame: FrameType | None) -> None:
    if not _asked:
        _stop(number, frame)
