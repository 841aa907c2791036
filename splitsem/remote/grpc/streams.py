"""Streams passes the frames of all connected clients through one Engine, within limits."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import grpc

from splitsem.errors import BusyError, PayloadError, SplitSemError
from splitsem.remote.engine import Answered, Engine
from splitsem.remote.grpc.admission import Places
from splitsem.remote.grpc.arrivals import Inbox, Stream
from splitsem.remote.replies import Begun, ReplyBook, then
from splitsem.remote.visits import Visits
from splitsem_device.answers import Answer
from splitsem_device.grpc.frames import Frame, Reply, chunks, joined
from splitsem_device.peer_text import shown
from splitsem_device.plan import probe_bytes


@dataclass(frozen=True)
class Limits:
    """What one server grants.

    Attributes:
        max_clients: streams at one time, and single requests at one time; more end with RESOURCE_EXHAUSTED.
        max_per_address: the most of these from one address (IPv6: from 64 bits of it). None: three quarters, so that
            devices behind one address translator are served and never lock out everybody else.
        max_window: frames of one stream that wait on the server; TCP holds back further frames.
        max_payload_bytes: size of one payload; None: what the plan can need, ``Engine.most_payload_bytes``.
        max_buffer_bytes: payloads of all clients, whole and in part, that wait at one time; beyond, the stream that
            holds most is cut.
        first_s: seconds in which a call must send its first message.
        idle_s: seconds without a message after which a stream ends; the edge's next frame opens it again.
        max_send_s: seconds that a client may take to accept an answer before its stream is cut.
    """

    max_clients: int = 32
    max_per_address: int | None = None
    max_window: int = 64
    max_payload_bytes: int | None = None
    max_buffer_bytes: int = 1 << 30
    first_s: float = 30.0
    idle_s: float = 300.0
    max_send_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")

    @property
    def per_address(self) -> int:
        """The most clients of one address."""
        return self.max_per_address or math.ceil(0.75 * self.max_clients)


log = logging.getLogger(__name__)
_MAX_NAME = 64
_NAME_CHARS = 6  # of a client's name in the log
_LARGE_BYTES = 8 << 20
_YIELD_S = 5.0  # of idleness, after which a stream makes room for another


class Streams:
    """Answers frames, each client's in order, and remembers the answers that a client may ask for again.

    Args:
        engine: computes the answers.
        limits: what is granted.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.engine, self.limits = engine, limits
        self.replies = ReplyBook(4 * limits.max_clients, limits.max_window)
        self.places = Places(limits.max_clients, limits.per_address, "clients", engine.metrics)
        self.visits = Visits()
        self.is_stopping = False
        self.has_garbage = threading.Event()  # set when large payloads are done with
        self._streams: set[Stream] = set()
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)

    def stop(self) -> None:
        """Take no more frames; received frames are still answered."""
        with self._lock:
            self.is_stopping = True
            for stream in self._streams:
                stream.end()

    def wait(self, most_s: float) -> None:
        """Wait until all streams have ended."""
        with self._left:
            self._left.wait_for(lambda: not self._streams, most_s)

    def queue_depth(self) -> int:
        """Frames that wait at this moment."""
        with self._lock:
            return sum(len(stream.inbox) for stream in self._streams)

    def num_clients(self) -> int:
        """Streams that are open."""
        with self._lock:
            return sum(stream.has_place for stream in self._streams)

    def serve(self, requests: Iterable[Frame], context: grpc.ServicerContext) -> Iterator[Reply]:
        """The replies to the frames of one client, in order."""
        stream = Stream(Inbox(self.limits.max_window), context)
        stream.frames = joined(self._arriving(requests, stream), self._most_bytes)
        with self._lock:
            self._streams.add(stream)
            if self.is_stopping:
                stream.end()
        ahead = self._ahead(stream) if self.engine.is_forwarding else None
        try:
            while True:
                with stream.statuses():
                    waiting = stream.get() if ahead is None else ahead.get()
                    if waiting is None:
                        break
                    frame, _ = waiting
                    self._welcome(frame, stream)
                    reply = self.answer(*waiting)
                    stream.done(frame)
                for part in chunks(reply):
                    stream.sending_since = time.monotonic()
                    yield part
                    stream.sending_since = None
            if self.is_stopping:
                stream.why = "the server is stopping"
                context.abort(grpc.StatusCode.UNAVAILABLE, stream.why)
        finally:
            if ahead is not None:
                ahead.drop()
            self._farewell(stream)

    def cut(self, stream: "Stream", reason: str, why: str) -> None:
        """End a stream now, for one of the metrics' ``REFUSALS``."""
        stream.why = why
        self.engine.metrics.refused(reason)
        log.debug("Cut the stream of %s: %s", stream.context.peer(), why, extra={"peer": stream.context.peer()})
        stream.context.cancel()

    def look_after(self, now_s: float) -> None:
        """Cut the streams of clients that do not read their answers, or send nothing for too long."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            if now_s - (stream.sending_since or now_s) > self.limits.max_send_s:
                self.cut(stream, "deaf", f"it took no answer for {self.limits.max_send_s:.0f} s")
            elif stream.has_place and stream.idle_s(now_s) > self.limits.idle_s:
                self.cut(stream, "idle", f"it sent nothing for {self.limits.idle_s:.0f} s")

    def _most_bytes(self, first: Frame) -> int:
        """The most bytes of a payload of this session. Raises SessionError."""
        planned = self.engine.most_payload_bytes(first.session)
        return self.limits.max_payload_bytes or planned

    def _arriving(self, messages: Iterable[Frame], stream: "Stream") -> Iterator[Frame]:
        """The messages of a stream, which are counted as they come. Raises BusyError."""
        for message in messages:
            if not stream.has_place:
                self._admit(stream)
            stream.heard_s = time.monotonic()
            stream.num_held_bytes += len(message.payload)
            stream.num_received_bytes += len(message.payload)
            if stream.num_held_bytes > self.limits.max_buffer_bytes // self.limits.max_clients:
                self._bound_memory(stream)  # else this stream cannot have made it too much
            yield message

    def _admit(self, stream: "Stream") -> None:
        if not self.places.has_room(stream.address):
            now_s = time.monotonic()
            with self._lock:
                idle = [s for s in self._streams if s.has_place and s.idle_s(now_s) > _YIELD_S]
            same = [s for s in idle if s.address == stream.address]
            if idle:
                victim = max(same or idle, key=lambda s: s.idle_s(now_s))
                self.cut(victim, "idle", "it was idle, and another client needed the place")
                self._give_back(victim)
        self.places.take(stream.address)
        stream.has_place = True

    def _give_back(self, stream: "Stream") -> None:
        with self._lock:
            had_place, stream.has_place = stream.has_place, False
        if had_place:
            self.places.give_back(stream.address)

    def _bound_memory(self, stream: "Stream") -> None:
        with self._lock:
            streams = list(self._streams)
        if sum(s.num_held_bytes for s in streams) <= self.limits.max_buffer_bytes:
            return
        largest = max(streams, key=lambda s: s.num_held_bytes)
        if largest is not stream:
            self.cut(largest, "memory", "it held more unanswered bytes than all others")
            return
        self.engine.metrics.refused("memory")
        raise BusyError(
            f"the server holds its {self.limits.max_buffer_bytes} bytes of unanswered frames: send fewer at a time"
        )

    def _welcome(self, frame: Frame, stream: "Stream") -> None:
        if stream.session != frame.session:
            self._settle_visit(stream, "it went on with another plan")
            if probe_bytes(frame.session) is None:
                plan = self.engine.plan(frame.session)
                stream.session = frame.session
                stream.visitor = f"{stream.address}/{frame.client.partition('.')[0][:_NAME_CHARS]}"
                self.visits.came(shown(stream.visitor), stream.context.peer(), frame.session, plan)

    def _settle_visit(self, stream: "Stream", why: str) -> None:
        if stream.session:
            self.visits.went(shown(stream.visitor), stream.session, stream.num_frames, why)
        stream.session, stream.num_frames = "", 0

    def _farewell(self, stream: "Stream") -> None:
        stream.inbox.drop()
        if stream.num_received_bytes > _LARGE_BYTES:
            self.has_garbage.set()
        self._give_back(stream)
        self._settle_visit(stream, stream.why)
        with self._left:
            self._streams.discard(stream)
            self._left.notify_all()

    def _ahead(self, stream: "Stream") -> Inbox:
        """The frames of a stream, each begun by another thread, so that the next server works while this one does."""
        begun = Inbox(self.limits.max_window)

        def begin() -> None:
            error = None
            try:
                while (waiting := stream.get()) is not None:
                    self.replies.begin(*self._asked(*waiting))
                    if not begun.put(waiting[0]):
                        break
            except SplitSemError as exc:
                error = exc
            finally:
                begun.end(error)

        threading.Thread(target=begin, daemon=True, name="begin").start()
        return begun

    def answer(self, frame: Frame, queue_s: float) -> Reply:
        """The reply to one frame that waited ``queue_s``, from memory if answered before. Raises PayloadError."""
        answer = self.replies.answer(*self._asked(frame, queue_s))
        return Reply(answer.request_id, answer.server_s, answer.queue_s, answer.payload)

    def _asked(self, frame: Frame, queue_s: float) -> tuple[str, int, Callable[[], Begun], int]:
        """What a ReplyBook is asked for this frame. Raises PayloadError for a strange client."""
        if not 0 < len(frame.client) <= _MAX_NAME:
            raise PayloadError(f"expected a client name of 1…{_MAX_NAME} characters, got {len(frame.client)}")

        def told(answered: Answered) -> Answer:
            return Answer(frame.request_id, *answered, queue_s)

        def compute() -> Begun:
            begun = self.engine.begin(frame.session, frame.payload, queue_s)
            return then(begun, told) if isinstance(begun, Future) else told(begun)

        return f"{frame.session} {frame.client}", frame.request_id, compute, frame.num_answered
