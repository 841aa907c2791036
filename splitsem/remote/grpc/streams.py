"""Streams passes the frames of all connected clients through one TailEngine, within limits."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import grpc

from splitsem.errors import BusyError, ConfigError, ContractError, PayloadError, SessionError, SplitPointError
from splitsem.remote.ends import Answer
from splitsem.remote.grpc.frames import Frame, Reply, chunks, joined
from splitsem.remote.replies import ReplyBook
from splitsem.remote.tail_engine import TailEngine


class Inbox:
    """A bounded queue from the thread that receives to the thread that computes, so that both threads overlap."""

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
        """Add a frame, waiting for room; False when the inbox has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or len(self._frames) < self.window)
            if not self._ended:
                self._frames.append((frame, time.perf_counter()))
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
            self._changed.notify_all()
            return frame, time.perf_counter() - arrived

    def end(self, error: PayloadError | None = None) -> None:
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
            self._changed.notify_all()


@dataclass(frozen=True)
class Limits:
    """What one server grants.

    Attributes:
        max_clients: streams at one time; further streams end with RESOURCE_EXHAUSTED.
        max_window: frames of one stream that wait on the server; TCP holds back further frames.
        max_payload_bytes: size of one payload; None: the wire format's limit.
        max_send_s: seconds that a client may take to accept an answer before its stream is cut.
    """

    max_clients: int = 32
    max_window: int = 64
    max_payload_bytes: int | None = None
    max_send_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("max_clients", "max_window", "max_payload_bytes", "max_send_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")


_STATUSES = {
    SplitPointError: grpc.StatusCode.NOT_FOUND,
    SessionError: grpc.StatusCode.ABORTED,
    BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    PayloadError: grpc.StatusCode.INVALID_ARGUMENT,
    ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    ContractError: grpc.StatusCode.FAILED_PRECONDITION,
}


@contextlib.contextmanager
def statuses(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn splitsem's exceptions into gRPC statuses with the exception's one line."""
    try:
        yield
    except tuple(_STATUSES) as exc:
        code = next(code for kind, code in _STATUSES.items() if isinstance(exc, kind))
        context.abort(code, str(exc))


log = logging.getLogger(__name__)
_MAX_NAME = 64


class Streams:
    """Answers frames, each client's in order, and remembers the answers that a client may ask for again.

    Args:
        engine: computes the answers.
        limits: what is granted.
    """

    def __init__(self, engine: TailEngine, limits: Limits) -> None:
        self.engine, self.limits = engine, limits
        self.replies = ReplyBook(4 * limits.max_clients, limits.max_window)
        self._streams: set[_Stream] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin to watch for clients that do not read."""
        threading.Thread(target=self._cut_stalled, daemon=True, name="stalled").start()

    def stop(self) -> None:
        """Take no more frames; received frames are still answered."""
        self._stopping.set()
        with self._lock:
            for stream in self._streams:
                stream.end()

    def queue_depth(self) -> int:
        """Frames that wait at this moment."""
        with self._lock:
            return sum(len(stream.inbox) for stream in self._streams)

    def num_clients(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    def serve(self, requests: Iterable[Frame], context: grpc.ServicerContext) -> Iterator[Reply]:
        """The replies to the frames of one client, in order."""
        frames = joined(requests, self.limits.max_payload_bytes)
        stream = _Stream(frames, Inbox(self.limits.max_window), context)
        with self._lock:
            is_full = len(self._streams) >= self.limits.max_clients
            if not is_full:
                self._streams.add(stream)
            if self._stopping.is_set():
                stream.end()
        if is_full:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the server has its {self.limits.max_clients} clients")
        log.info("A client streams from %s", context.peer(), extra={"peer": context.peer()})
        try:
            while True:
                with statuses(context):
                    waiting = stream.get()
                    if waiting is None:
                        break
                    reply = self.answer(*waiting)
                for part in chunks(reply):
                    stream.sending_since = time.monotonic()
                    yield part
                    stream.sending_since = None
            if self._stopping.is_set():
                context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        finally:
            stream.inbox.drop()
            with self._lock:
                self._streams.discard(stream)
            log.info("The client at %s is gone", context.peer(), extra={"peer": context.peer()})

    def answer(self, frame: Frame, queue_s: float) -> Reply:
        """The reply to one frame that waited ``queue_s``, from memory if answered before. Raises PayloadError."""
        if not 0 < len(frame.client) <= _MAX_NAME:
            raise PayloadError(f"expected a client name of 1…{_MAX_NAME} characters, got {len(frame.client)}")

        def compute() -> Answer:
            payload, server_s = self.engine.answer(frame.session, frame.payload, queue_s)
            return Answer(frame.request_id, payload, server_s, queue_s)

        answer = self.replies.of(f"{frame.session} {frame.client}").answer(
            frame.request_id, compute, frame.num_answered
        )
        return Reply(answer.request_id, answer.server_s, answer.queue_s, answer.payload)

    def _cut_stalled(self) -> None:
        """Cut the streams of clients that do not read their answers."""
        while not self._stopping.wait(self.limits.max_send_s / 4):
            now = time.monotonic()
            with self._lock:
                stalled = [s for s in self._streams if now - (s.sending_since or now) > self.limits.max_send_s]
            for stream in stalled:
                peer = stream.context.peer()
                log.warning("Cut a client that takes no answers: %s", peer, extra={"peer": peer})
                stream.context.cancel()


@dataclass(eq=False)
class _Stream:
    """One client's frames. The computing thread also receives until frames come faster than answers leave.

    This saves two changes of thread per frame for a client that sends a frame only after the answer to its previous
    frame (window 1, or a slow head). From the first frame that does not wait for an answer, another thread receives, so
    that receiving and computing overlap.
    """

    frames: Iterator[Frame]
    inbox: Inbox
    context: grpc.ServicerContext
    sending_since: float | None = None
    _has_receiver: bool = False
    _is_receiving: bool = False
    _is_ended: bool = False

    def get(self) -> tuple[Frame, float] | None:
        """The next frame and the seconds that it waited here; None after the last frame. Raises PayloadError."""
        if self._has_receiver:
            return self.inbox.get()
        self._is_receiving = True
        frame = None if self._is_ended else self._receive()
        self._is_receiving = False
        if frame is None:
            return None
        if frame.num_answered < frame.request_id:
            self._has_receiver = True
            threading.Thread(target=self._fill, daemon=True, name="receive").start()
        return frame, 0.0

    def end(self) -> None:
        """Take no more frames; received frames can still be got."""
        self._is_ended = True
        self.inbox.end()
        if self._is_receiving:  # only this wakes it; the client resends a frame that is lost here
            self.context.cancel()

    def _receive(self) -> Frame | None:
        try:
            return next(self.frames, None)
        except grpc.RpcError:  # the client is gone; gRPC tells the thread that answers
            log.debug("A client is gone")
            return None

    def _fill(self) -> None:
        error = None
        try:
            while (frame := self._receive()) is not None and self.inbox.put(frame):
                pass
        except PayloadError as exc:
            error = exc
        self.inbox.end(error)
