"""Streams: the frames of all connected devices on their way through one TailEngine, with their limits."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import grpc

from splitsem.errors import PayloadError
from splitsem.transport.engine import TailEngine
from splitsem.transport.grpc.frames import Frame, Reply, chunks, joined
from splitsem.transport.grpc.inbox import Inbox
from splitsem.transport.grpc.limits import Limits
from splitsem.transport.grpc.statuses import statuses
from splitsem.transport.remote import Answer
from splitsem.transport.replies import ReplyBook

log = logging.getLogger(__name__)
_MAX_NAME = 64


class Streams:
    """Answers frames, each client's in order, and remembers the answers that a client may ask for again.

    Args:
        engine: computes them.
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
        """Take no more frames; those received are still answered."""
        self._stopping.set()
        with self._lock:
            for stream in self._streams:
                stream.inbox.end()

    def queue_depth(self) -> int:
        """Frames that wait at this moment."""
        with self._lock:
            return sum(len(stream.inbox) for stream in self._streams)

    def num_clients(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    def serve(self, requests: Iterable[Frame], context: grpc.ServicerContext) -> Iterator[Reply]:
        """The replies to the frames of one device, in order."""
        stream = _Stream(Inbox(self.limits.max_window), context)
        with self._lock:
            is_full = len(self._streams) >= self.limits.max_clients
            if not is_full:
                self._streams.add(stream)
            if self._stopping.is_set():
                stream.inbox.end()
        if is_full:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the server has its {self.limits.max_clients} clients")
        log.info("A client streams from %s", context.peer(), extra={"peer": context.peer()})
        frames = joined(requests, self.limits.max_payload_bytes)
        threading.Thread(target=_receive, args=(frames, stream.inbox), daemon=True, name="receive").start()
        try:
            while True:
                with statuses(context):
                    waiting = stream.inbox.get()
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
    inbox: Inbox
    context: grpc.ServicerContext
    sending_since: float | None = None


def _receive(frames: Iterable[Frame], inbox: Inbox) -> None:
    error = None
    try:
        for frame in frames:
            if not inbox.put(frame):
                return
    except PayloadError as exc:
        error = exc
    except grpc.RpcError:  # the client is gone; gRPC tells the thread that answers
        log.debug("A client is gone")
    inbox.end(error)
