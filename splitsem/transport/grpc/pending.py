"""Pending: the frames of one stream between being made and being answered; what a reconnect sends again."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from splitsem.errors import LinkError


class Pending:
    """Draws payloads in a thread, at most ``window`` ahead of the answers, and numbers them from 0.

    Use as a context manager: leaving it stops the thread.
    """

    def __init__(self, payloads: Iterable[bytes], window: int) -> None:
        self.window = window
        self.num_answered = 0
        self._payloads = payloads
        self._frames: OrderedDict[int, bytes] = OrderedDict()
        self._changed = threading.Condition()
        self._num_made = 0
        self._exhausted = False
        self._stopped = False
        self._connection = 0
        self._progress = time.monotonic()
        self._source_error: BaseException | None = None

    def __enter__(self) -> "Pending":
        self._thread = threading.Thread(target=self._draw, daemon=True, name="payloads")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopped = True
            self._connection += 1
            self._changed.notify_all()

    def unanswered(self) -> Iterator[tuple[int, bytes]]:
        """Every frame from the oldest unanswered on, as they are made; ends when a later call of this begins."""
        with self._changed:
            self._connection += 1
            mine = self._connection
            self._progress = time.monotonic()
            self._changed.notify_all()
            number = self.num_answered
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._connection != mine or number < self._num_made or self._exhausted  # noqa: B023
                )
                if self._connection != mine or number >= self._num_made:
                    return
                payload = self._frames.get(number)
            if payload is not None:
                yield number, payload
            number += 1

    def answered(self, number: int) -> None:
        """The oldest unanswered frame has its answer. Raises LinkError when the answer is another frame's."""
        with self._changed:
            if number != self.num_answered or number not in self._frames:
                raise LinkError(f"expected the answer to frame {self.num_answered}, got that to frame {number}")
            del self._frames[number]
            self.num_answered += 1
            self._progress = time.monotonic()
            self._changed.notify_all()

    def is_done(self) -> bool:
        """Whether every payload was drawn and answered; waits until that is known."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._exhausted)
            return not self._frames

    def raise_source_error(self) -> None:
        """Raise what the payloads' iterator raised, if it did."""
        if self._source_error is not None:
            raise self._source_error

    def watch(self, deadline_s: float, expire: Callable[[], object]) -> threading.Event:
        """Call ``expire`` when a frame waits for longer than ``deadline_s``; set the returned event to end this."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(deadline_s / 4):
                with self._changed:
                    late = bool(self._frames) and time.monotonic() - self._progress > deadline_s
                if late:
                    expire()
                    return

        threading.Thread(target=run, daemon=True, name="deadline").start()
        return ended

    def _draw(self) -> None:
        try:
            for payload in self._payloads:
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped or len(self._frames) < self.window)
                    if self._stopped:
                        return
                    if not self._frames:
                        self._progress = time.monotonic()
                    self._frames[self._num_made] = payload
                    self._num_made += 1
                    self._changed.notify_all()
        except BaseException as exc:  # noqa: BLE001 (raised again where the answers are read)
            self._source_error = exc
        finally:
            with self._changed:
                self._exhausted = True
                self._changed.notify_all()
