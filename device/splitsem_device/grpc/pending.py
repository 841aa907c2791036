"""Pending numbers the payloads of a stream and keeps each until its answer, whatever happens to connections."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from splitsem_device.answers import Planned
from splitsem_device.errors import LinkError


class Pending:
    """Numbers payloads from 0 and keeps each until its answer; draws at most ``window`` unanswered payloads.

    gRPC's sending thread draws the payloads, so that making a payload overlaps with waiting for answers; with a window
    of 1, where nothing can overlap, the thread that waits for the answers does.
    """

    def __init__(self, payloads: Iterable[bytes | Planned], window: int) -> None:
        self.window = window
        self.num_answered = 0
        self._payloads = iter(payloads)
        self._drawing = threading.Lock()  # a broken connection's sender may still draw when the next connection begins
        self._frames: OrderedDict[int, bytes | Planned] = OrderedDict()
        self._changed = threading.Condition()
        self._num_made = 0
        self._exhausted = False
        self._connection = 0
        self._progress = time.monotonic()
        self._source_error: BaseException | None = None

    def unanswered(self) -> Iterator[tuple[int, bytes | Planned]]:
        """Every frame from the oldest unanswered frame on, drawn when there is room; ends when a later call begins."""
        with self._changed:
            self._connection += 1
            mine = self._connection
            self._progress = time.monotonic()
            self._changed.notify_all()
            number = self.num_answered
        while self._ready(number, mine):
            payload = self._frames.get(number)
            if payload is not None:  # else answered meanwhile
                yield number, payload
            number += 1

    def answered(self, number: int) -> None:
        """Note the answer to the oldest unanswered frame. Raises LinkError when the answer is another frame's."""
        with self._changed:
            if number != self.num_answered or number not in self._frames:
                raise LinkError(f"expected the answer to frame {self.num_answered}, got that to frame {number}")
            del self._frames[number]
            self.num_answered += 1
            self._progress = time.monotonic()
            self._changed.notify_all()

    def is_done(self) -> bool:
        """Whether there are no more payloads and every payload is answered."""
        with self._changed:
            return self._exhausted and not self._frames

    def is_idle(self) -> bool:
        """Whether no frame waits for an answer."""
        with self._changed:
            return not self._frames

    def stop(self) -> None:
        """Draw no more payloads."""
        with self._changed:
            self._connection += 1
            self._exhausted = True
            self._changed.notify_all()

    def raise_source_error(self) -> None:
        """Raise the exception of the payloads' iterator, if there was one."""
        if self._source_error is not None:
            raise self._source_error

    def watch(self, deadline_s: float, expire: Callable[[], object]) -> threading.Event:
        """Call ``expire`` when a frame waits for longer than ``deadline_s``; set the returned event to stop."""
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

    def _ready(self, number: int, connection: int) -> bool:
        """Wait until frame ``number`` is drawn, or draw it when there is room; False when there is no such frame."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._connection != connection
                    or self._exhausted
                    or number < self._num_made
                    or len(self._frames) < self.window
                )
            )
            if self._connection != connection or number < self._num_made or self._exhausted:
                return self._connection == connection and number < self._num_made
        with self._drawing:
            if number >= self._num_made and not self._exhausted:
                self._draw()
        return self._connection == connection and number < self._num_made

    def _draw(self) -> None:
        try:
            payload = next(self._payloads, None)
        except BaseException as exc:  # noqa: BLE001 (raised again where the answers are read)
            self._source_error, payload = exc, None
        with self._changed:
            if payload is None:
                self._exhausted = True
            else:
                if not self._frames:
                    self._progress = time.monotonic()
                self._frames[self._num_made] = payload
                self._num_made += 1
            self._changed.notify_all()
