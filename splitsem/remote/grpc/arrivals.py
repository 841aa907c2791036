"""One client's stream on the server: its frames as they arrive, and the status that it ends with."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc

from splitsem.errors import (
    BusyError,
    ConfigError,
    ContractError,
    FunctionError,
    LinkError,
    PayloadError,
    SessionError,
    SplitPointError,
    SplitSemError,
)
from splitsem.remote.grpc.admission import address_of
from splitsem_device.grpc.frames import Frame
from splitsem_device.peer_text import shown, shown_lines

_INBOX_BYTES = 64 << 20


class Inbox:
    """A bounded queue from the thread that receives to the thread that computes, so that both threads overlap.

    Args:
        window: the most frames inside.
        most_bytes: the most bytes of payloads inside; a single frame may have more.
    """

    def __init__(self, window: int, most_bytes: int = _INBOX_BYTES) -> None:
        self.window, self.most_bytes = window, most_bytes
        self._num_bytes = 0
        self._frames: deque[tuple[Frame, float]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._broken = False
        self._error: SplitSemError | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> bool:
        """Add a frame, waiting for room; False when the inbox has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._has_room(len(frame.payload)))
            if not self._ended:
                self._frames.append((frame, time.perf_counter()))
                self._num_bytes += len(frame.payload)
                self._changed.notify_all()
            return not self._ended

    def get(self) -> tuple[Frame, float] | None:
        """The oldest frame and the seconds that it waited; None after the last frame. Raises the error of ``end``."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended)
            if self._broken:
                return None
            if not self._frames:
                if self._error is not None:
                    raise self._error
                return None
            frame, arrived = self._frames.popleft()
            self._num_bytes -= len(frame.payload)
            self._changed.notify_all()
            return frame, time.perf_counter() - arrived

    def _has_room(self, num_bytes: int) -> bool:
        fits = self._num_bytes + num_bytes <= self.most_bytes or not self._frames
        return fits and len(self._frames) < self.window

    def end(self, error: SplitSemError | None = None) -> None:
        """Take no more frames, because of ``error`` if given; the frames inside can still be got."""
        with self._changed:
            self._ended = True
            self._error = self._error or error
            self._changed.notify_all()

    def drop(self) -> None:
        """Take no more frames and forget the frames inside."""
        with self._changed:
            self._ended = self._broken = True
            self._frames.clear()
            self._num_bytes = 0
            self._changed.notify_all()


_STATUSES = {
    SplitPointError: grpc.StatusCode.NOT_FOUND,
    FunctionError: grpc.StatusCode.UNKNOWN,
    SessionError: grpc.StatusCode.ABORTED,
    BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    PayloadError: grpc.StatusCode.INVALID_ARGUMENT,
    ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    ContractError: grpc.StatusCode.FAILED_PRECONDITION,
    LinkError: grpc.StatusCode.UNAVAILABLE,  # of the next server in a chain
}


@contextlib.contextmanager
def statuses(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn splitsem's exceptions into gRPC statuses with the exception's one line."""
    try:
        yield
    except tuple(_STATUSES) as exc:
        code = next(code for kind, code in _STATUSES.items() if isinstance(exc, kind))
        context.abort(code, shown_lines(exc))


log = logging.getLogger(__name__)


@dataclass(eq=False)
class Stream:
    """One client's frames. The computing thread also receives until frames come faster than answers leave.

    This saves two changes of thread per frame for a client that sends a frame only after the answer to its previous
    frame (window 1, or a slow head). From the first frame that does not wait for an answer, another thread receives, so
    that receiving and computing overlap.

    Attributes:
        inbox: received frames.
        context: gRPC's.
        frames: what arrives.
        has_place: whether it counts as a client.
        session: whose frames it sent last, unless they were probes.
        visitor: the client in the log: its address, and the first characters of the name that it gives itself.
        num_frames: frames of ``session`` answered.
        num_held_bytes: payloads that were received and are not answered.
        num_received_bytes: all payloads so far.
        why: the reason of its end.
    """

    inbox: Inbox
    context: grpc.ServicerContext
    frames: Iterator[Frame] = field(default_factory=lambda: iter(()))
    has_place: bool = False
    session: str = ""
    visitor: str = ""
    num_frames: int = 0
    num_held_bytes: int = 0
    num_received_bytes: int = 0
    why: str = "it left midway, or the connection broke"  # gRPC does not say which
    heard_s: float = field(default_factory=time.monotonic)
    sending_since: float | None = None
    _waiting_since: float | None = None
    _has_receiver: bool = False
    _is_receiving: bool = False
    _is_ended: bool = False

    def __post_init__(self) -> None:
        self.address = address_of(self.context.peer())

    def idle_s(self, now_s: float) -> float:
        """Seconds for which the server has waited for a message."""
        return 0.0 if self._waiting_since is None else now_s - max(self._waiting_since, self.heard_s)

    def get(self) -> tuple[Frame, float] | None:
        """The next frame and the seconds that it waited here; None after the last frame. Raises SplitSemError."""
        self._waiting_since = time.monotonic()
        try:
            return self.inbox.get() if self._has_receiver else self._get_here()
        finally:
            self._waiting_since = None

    def done(self, frame: Frame) -> None:
        """The frame has its answer."""
        self.num_held_bytes -= len(frame.payload)
        self.num_frames += 1

    @contextlib.contextmanager
    def statuses(self) -> Iterator[None]:
        """As the function ``statuses``, and the error is the reason of this stream's end."""
        with statuses(self.context):
            try:
                yield
            except SplitSemError as exc:
                self.why = shown(exc)
                raise

    def end(self) -> None:
        """Take no more frames; received frames can still be got."""
        self._is_ended = True
        self.inbox.end()
        if self._is_receiving:  # only this wakes it; the client resends a frame that is lost here
            self.context.cancel()

    def _get_here(self) -> tuple[Frame, float] | None:
        self._is_receiving = True
        frame = None if self._is_ended else self._receive()
        self._is_receiving = False
        if frame is None:
            return None
        if frame.num_answered < frame.request_id:
            self._has_receiver = True
            threading.Thread(target=self._fill, daemon=True, name="receive").start()
        return frame, 0.0

    def _receive(self) -> Frame | None:
        try:
            frame = next(self.frames, None)
        except grpc.RpcError:  # gRPC tells the thread that answers
            log.debug("A client is gone")
            return None
        if frame is None and self.why == Stream.why:
            self.why = "it closed its stream"  # of a broken one, too, gRPC may tell this first
        return frame

    def _fill(self) -> None:
        error = None
        try:
            while (frame := self._receive()) is not None and self.inbox.put(frame):
                pass
        except SplitSemError as exc:
            error = exc
        self.inbox.end(error)
