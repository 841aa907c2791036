"""Inbox: the frames of one stream that the server has received and not yet answered, in order and bounded."""

import threading
import time
from collections import deque

from splitsem.errors import PayloadError
from splitsem.transport.grpc.frames import Frame


class Inbox:
    """A bounded queue from the thread that receives to the thread that computes, so that the two overlap."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._frames: deque[tuple[Frame, float]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._broken = False
        self._error: PayloadError | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> bool:
        """Add a frame, waiting for room; False when no more are taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._frames) < self.window)
            if not self._ended:
                self._frames.append((frame, time.perf_counter()))
                self._changed.notify_all()
            return not self._ended

    def get(self) -> tuple[Frame, float] | None:
        """The oldest frame and the seconds that it waited; None after the last one. Raises the error that ended it."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended)
            if self._broken:
                return None
            if not self._frames:
                if self._error is not None:
                    raise self._error
                return None
            frame, arrived = self._frames.popleft()
            self._changed.notify_all()
            return frame, time.perf_counter() - arrived

    def end(self, error: PayloadError | None = None) -> None:
        """Take no more frames, because of ``error`` if there is one; those inside can still be got."""
        with self._changed:
            self._ended = True
            self._error = self._error or error
            self._changed.notify_all()

    def drop(self) -> None:
        """Take no more frames and forget those inside."""
        with self._changed:
            self._ended = self._broken = True
            self._frames.clear()
            self._changed.notify_all()
