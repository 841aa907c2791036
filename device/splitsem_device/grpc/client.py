"""GrpcTail is the edge's end over gRPC; it survives broken connections and restarted servers."""

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, starmap
from queue import SimpleQueue
from typing import Any

import grpc

from splitsem_device.allocator import keep_buffers
from splitsem_device.answers import EVERYTHING, Answer, Counters, Info, Planned, Profile, RemoteTail, ToMeasure
from splitsem_device.errors import (
    ConfigError,
    FunctionError,
    LinkError,
    PayloadError,
    SessionError,
    SplitPointError,
    SplitSemError,
    TokenError,
)
from splitsem_device.fields import Payload
from splitsem_device.grpc import tail_pb2
from splitsem_device.grpc.connection import HEARTBEAT_S, Security, diagnose, heartbeat_options, host_port
from splitsem_device.grpc.frames import CHUNK_BYTES, Frame, Reply, chunks, joined
from splitsem_device.grpc.pending import Pending
from splitsem_device.peer_text import shown, shown_lines
from splitsem_device.plan import FUNCTION_RAISED, Plan
from splitsem_device.retry import Patience, Retry

log = logging.getLogger(__name__)
PATH = "/splitsem.v1.Tail/"
MAX_ANSWER_BYTES = 256 << 20
_PROFILE_S, _PROFILE_RETRIES = 60.0, 6  # longest time that a server may measure; a busy one is not waited for
_WORTH_A_RETRY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,  # by the server's side of the connection, or by our own deadline
}
_OURS: dict[grpc.StatusCode, type[SplitSemError]] = {
    grpc.StatusCode.FAILED_PRECONDITION: ConfigError,
    grpc.StatusCode.NOT_FOUND: SplitPointError,
    grpc.StatusCode.INVALID_ARGUMENT: PayloadError,
    grpc.StatusCode.ABORTED: SessionError,
}


@dataclass
class _Caller:
    """One name of this end towards the server, whose calls come one after the other."""

    name: str
    next_id: int = 0


class GrpcTail(RemoteTail):
    """Sends frames to a GrpcServer. ``call`` may be used from several threads at a time, the rest from one.

    Args:
        target: the server's ``host:port``.
        window: frames that may be unanswered.
        retry: deadlines and backoff.
        security: TLS and token.
        heartbeat_s: see ``heartbeat_options``.
        max_answer_bytes: the longest answer that is taken from the server.

    Attributes:
        is_server_over: see RemoteTransport.
        is_terse: whether failures are told as they are; looking for their cause takes a while.
    """

    def __init__(
        self,
        target: str,
        window: int,
        retry: Retry,
        security: Security,
        heartbeat_s: float = HEARTBEAT_S,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        if min(window, max_answer_bytes) < 1:
            raise ValueError(f"window and max_answer_bytes must be at least 1, got {window} and {max_answer_bytes}")
        host_port(target)
        self.target, self.window, self.retry, self.security = target, window, retry, security
        self.counters = Counters()
        self.max_answer_bytes = max_answer_bytes
        most = ("grpc.max_receive_message_length", min(max(max_answer_bytes, CHUNK_BYTES) + 1024, (1 << 31) - 1))
        self._options = [*_OPTIONS, most, *heartbeat_options(heartbeat_s)]
        self._has_connected = False
        self.is_terse = False
        self.is_server_over: Callable[[], bool] = lambda: False
        self._channel: grpc.Channel | None = None
        self._metadata: list[tuple[str, str]] = []
        self._call: tuple[grpc.Channel | None, grpc.UnaryUnaryMultiCallable | None] = (None, None)
        self._name, self._numbers = uuid.uuid4().hex, count()  # of the end, and of its streams and callers
        self._callers: list[_Caller] = []
        self._lock = threading.Lock()
        self._plan: Plan | None = None
        self._others: tuple[Plan, ...] = ()
        self._session = ""
        self._sessions: dict[Plan, str] = {}  # of the other plans
        self._max_window = window

    def info(self) -> Info:
        """What the server holds."""
        reply = self._persist(lambda: self._unary("Info", tail_pb2.InfoRequest(), tail_pb2.InfoReply))
        plan = Plan.from_json(reply.plan_json)
        return Info(reply.version, reply.device, tuple(reply.points), tuple(reply.codecs), reply.max_window, plan)

    def is_healthy(self) -> bool:
        """Whether the server says that it serves; False where it cannot be reached. Nothing is tried again."""
        try:
            method = self._connected().unary_unary("/grpc.health.v1.Health/Check")
            return bool(method(_HEALTH_OF_TAIL, timeout=self.retry.deadline_s) == _SERVING)
        except grpc.RpcError:
            self.close()
            return False

    def open(self, plan: Plan) -> None:
        """See RemoteTail."""
        self.open_all([plan])

    def open_all(self, plans: Sequence[Plan]) -> None:
        """As ``open``, for frames of several plans in one stream (``Planned``); bare payloads are of the first plan."""
        self._plan, *others = plans
        self._others, self._sessions = tuple(others), {}
        self._persist(self._open_once)

    def call(self, payload: Payload) -> Answer:
        """The answer to one payload, without a stream; a resent payload is not computed again.

        Raises FunctionError where the server's function raised, and what ``open`` raises.
        """
        with self._lock:
            caller = self._callers.pop() if self._callers else _Caller(f"{self._name}.{next(self._numbers)}")

        def once() -> Answer:
            session = self._session or self._open_once()
            frame = Frame(session, caller.name, caller.next_id, payload, num_answered=caller.next_id)
            method = self._calling()
            self.counters.frames_sent += 1
            return to_answer(method(frame, timeout=self.retry.deadline_s, metadata=self._metadata))

        answer: Answer = self._persist(once)
        caller.next_id += 1
        with self._lock:
            self._callers.append(caller)
        self.counters.frames_answered += 1
        return answer

    def stream(self, payloads: Iterable[bytes | Planned], window: int | None = None) -> Iterator[Answer]:
        """See RemoteTail; a ``Planned`` payload is of its own plan, which ``open_all`` has named.

        Each frame names its plan, so that both ends change plans at the same frame, whatever is under way.
        """
        if self._plan is None:
            raise ConfigError("open a plan before streaming")
        pending = Pending(payloads, min(window or self.window, self._max_window))
        client, patience = f"{self._name}.{next(self._numbers)}", Patience(self.retry)
        try:
            while not pending.is_done():
                answered_before = pending.num_answered
                try:
                    yield from self._stream_once(pending, client)
                except grpc.RpcError as exc:
                    if pending.num_answered > answered_before:
                        patience.renew()
                    if pending.is_idle() and exc.code() in _WORTH_A_RETRY:  # nothing to hurry for until the next frame
                        patience.renew()
                        self.close()
                    else:
                        self._prepare_retry(exc, patience)
                    self.counters.reconnects += 1
            pending.raise_source_error()
        finally:
            pending.stop()

    def echo_s(self, num_bytes: int) -> float:
        """See RemoteTail."""
        message = tail_pb2.EchoRequest(payload=bytes(num_bytes)).SerializeToString()

        def once() -> float:
            method = self._connected().unary_unary(PATH + "Echo", None, tail_pb2.EchoReply.FromString)
            began = time.perf_counter()
            method(message, timeout=self.retry.deadline_s, metadata=self._metadata)
            return time.perf_counter() - began

        return self._persist(once)

    def profile(self, asked: ToMeasure = EVERYTHING) -> Profile:
        """See RemoteTail."""

        def once() -> Profile:
            if asked.payload and not self._session:
                self._open_once()
            session = self._session if asked.payload else ""
            request = tail_pb2.ProfileRequest(session=session, **asked._asdict())
            reply = self._unary("Profile", request, tail_pb2.ProfileReply, _PROFILE_S)
            chain = (tuple(getattr(reply, name)) for name in ("stages_s", "hops_busy_s", "hosts"))
            return Profile(reply.lut_json, reply.answer_s, reply.layers_json, *chain)

        return self._persist(once, self.retry.at_most(_PROFILE_RETRIES))

    def hurry(self) -> Retry:
        """See RemoteTail."""
        patient, self.retry = self.retry, self.retry.at_most(0)
        return patient

    def close(self) -> None:
        """See RemoteTail."""
        with self._lock:
            self._session, self._sessions, channel, self._channel = "", {}, self._channel, None
        if channel is not None:
            channel.close()

    def _stream_once(self, pending: Pending, client: str) -> Iterator[Answer]:
        """The answers, until the last one or until the connection breaks (grpc.RpcError).

        A stream begins with a frame: a server ends streams in which nothing comes.
        """
        unanswered = pending.unanswered()
        first = next(unanswered, None)
        if first is None:
            return
        numbered = chain([first], unanswered)
        own = self._plan
        own_session = self._session or self._open_once()
        sessions = self._sessions | {own: own_session}

        def parts(request_id: int, given: bytes | Planned) -> Iterator[Frame]:
            plan, payload = given if isinstance(given, Planned) else (own, given)
            self.counters.frames_sent += 1
            return chunks(Frame(sessions[plan], client, request_id, payload, num_answered=pending.num_answered))

        drawn = SimpleQueue[Frame | None]() if pending.window == 1 else None  # by the caller's thread, which has time
        frames = chain.from_iterable(starmap(parts, numbered)) if drawn is None else iter(drawn.get, None)
        method = self._connected().stream_stream(PATH + "Stream", Frame.to_bytes, Reply.from_bytes)
        call = method(frames, metadata=self._metadata)
        watch = pending.watch(self.retry.deadline_s, call.cancel)
        replies = joined(call, lambda _: self.max_answer_bytes)
        try:
            while True:
                if drawn is not None:
                    frame = next(numbered, None)
                    for part in parts(*frame) if frame else (None,):  # None ends the stream, which the server confirms
                        drawn.put(part)
                if (reply := next(replies, None)) is None:
                    break
                answer = to_answer(reply)
                pending.answered(answer.request_id)
                self.counters.frames_answered += 1
                yield answer
        finally:
            watch.set()
            call.cancel()
            if drawn is not None:
                drawn.put(None)  # for gRPC's thread that waits for a frame
        if not pending.is_done():
            raise _ServerEnded

    def _open_once(self) -> str:
        assert self._plan is not None
        for plan in self._others:
            self._sessions[plan] = self._open_plan(plan)
        self._session = self._open_plan(self._plan)  # last, since it tells that all are open
        return self._session

    def _open_plan(self, plan: Plan) -> str:
        reply = self._unary("Open", tail_pb2.OpenRequest(plan_json=plan.to_json()), tail_pb2.OpenReply)
        self._max_window = max(1, reply.max_window)
        return str(reply.session)

    def _unary(self, name: str, request: Any, reply: Any, more_s: float = 0.0) -> Any:
        method = self._connected().unary_unary(PATH + name, type(request).SerializeToString, reply.FromString)
        return method(request, timeout=self.retry.deadline_s + more_s, metadata=self._metadata)

    def _persist(self, once: Any, retry: Retry | None = None) -> Any:
        """Call ``once`` until it succeeds, fails for good, or patience ends."""
        patience = Patience(retry or self.retry)
        while True:
            try:
                found = once()
            except grpc.RpcError as exc:
                self._prepare_retry(exc, patience)
            except ValueError as exc:  # another thread's call failed just now, and closed the channel
                if "closed channel" not in str(exc):
                    raise
            else:
                self._has_connected = True
                return found

    def _prepare_retry(self, exc: grpc.RpcError, patience: Patience) -> None:
        """Drop the connection and wait before a retry, or raise the error that the user should see."""
        code, details = exc.code(), shown_lines(exc.details() or "")
        if code is grpc.StatusCode.UNKNOWN and details.startswith(FUNCTION_RAISED):
            raise FunctionError(details) from exc
        if code in _OURS and code not in _WORTH_A_RETRY:  # the connection is good, and other calls may use it
            raise _OURS[code](details) from exc
        self.close()
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            raise PayloadError(
                f"{self.target}: {details}: raise transport.limits.max_payload_bytes at the server, or "
                "transport.max_answer_bytes here"
            ) from exc
        wait_s = patience.fail() if code in _WORTH_A_RETRY and not self.is_server_over() else None
        why = ""
        if wait_s is None or patience.num_failures == 1:
            if wait_s is None and code in _OURS:
                raise _OURS[code](details) from exc
            if code is grpc.StatusCode.UNAUTHENTICATED:
                raise TokenError(f"{self.target}: {details}") from exc
            is_news = (wait_s is None or not self._has_connected) and not self.is_terse  # else the way is right
            why = diagnose(self.target, self.security, code, details) if is_news else self._plain(code, details)
        is_hopeless = why.startswith("TLS:") and not self._has_connected
        if wait_s is None or is_hopeless:
            tries = f" (after {patience.num_failures} tries)" if patience.num_failures > 1 else ""
            raise LinkError(f"{why}{tries}") from exc
        if why:
            log.warning("%s; trying again %s", why, patience.retry.bounds())
        log.debug("%s: %s (%s); trying again in %.2f s", self.target, code.name, shown(details), wait_s)
        self.counters.retries += 1
        time.sleep(wait_s)

    def _plain(self, code: grpc.StatusCode, details: str) -> str:
        """The failure without what only gRPC's own developers read."""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{self.target} did not answer in time"
        if code is grpc.StatusCode.CANCELLED:
            return f"{self.target} ended the call"
        if code is grpc.StatusCode.UNAVAILABLE and _OF_GRPC.search(details):
            return f"the connection to {self.target} broke"
        return f"{code.name}: {details}"

    def _calling(self) -> grpc.UnaryUnaryMultiCallable:
        """The method Call of this connection, which takes longer to make than to use."""
        channel = self._connected()
        made_for, method = self._call
        if made_for is not channel:
            method = channel.unary_unary(PATH + "Call", Frame.to_bytes, Reply.from_bytes)
            self._call = channel, method
        return method

    def _connected(self) -> grpc.Channel:
        with self._lock:
            if self._channel is None:
                credentials = self.security.channel_credentials(host_port(self.target)[0])
                self._metadata = self.security.metadata()
                keep_buffers()
                if credentials is None:
                    self._channel = grpc.insecure_channel(self.target, self._options)
                else:
                    self._channel = grpc.secure_channel(self.target, credentials, self._options)
            return self._channel


_HEALTH_OF_TAIL = b"\x0a\x10splitsem.v1.Tail"  # HealthCheckRequest(service="splitsem.v1.Tail")
_OF_GRPC = re.compile(r"failed to connect|last error|[Ss]ocket|recvmsg|GOAWAY|ipv[46]:|Connection reset|Broken pipe")
"""In what gRPC itself says of a connection, and no server."""
_SERVING = b"\x08\x01"  # HealthCheckResponse(status=SERVING)


class _ServerEnded(grpc.RpcError):
    """The server ended the stream in good order while frames are unanswered."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "the server ended the stream"


_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection, without an old one's backoff
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
]


def to_answer(reply: Reply) -> Answer:
    """The answer in a reply, free of the transport."""
    return Answer(reply.request_id, reply.payload, reply.server_s, reply.queue_s)
