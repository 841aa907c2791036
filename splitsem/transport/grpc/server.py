"""GrpcServer: gives the frames of any number of clients to one TailEngine; see tail.proto."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from splitsem.errors import ConfigError, PayloadError, SessionError, SplitPointError
from splitsem.transport.grpc import tail_pb2
from splitsem.transport.grpc.frames import CHUNK_BYTES, Frame, Reply, chunks, joined
from splitsem.transport.grpc.inbox import Inbox
from splitsem.transport.grpc.security import Security, host_port
from splitsem.transport.remote import Answer, Plan, TailEngine, TailServer
from splitsem.transport.replies import ReplyBook

log = logging.getLogger(__name__)
SERVICE = "splitsem.v1.Tail"
_STATUSES = {
    SplitPointError: grpc.StatusCode.NOT_FOUND,
    SessionError: grpc.StatusCode.ABORTED,
    PayloadError: grpc.StatusCode.INVALID_ARGUMENT,
    ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
}
_SPARE_THREADS = 4  # for health, Info and Open while all clients stream
_MAX_NAME = 64


@dataclass(frozen=True)
class Limits:
    """What one server grants.

    Attributes:
        max_clients: streams at one time; further ones are told RESOURCE_EXHAUSTED.
        max_window: frames of one stream that wait on the server; TCP holds back what is more.
        max_payload_bytes: size of one payload; None: what the wire format can carry.
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


class GrpcServer(TailServer):
    """Serves one engine over gRPC, with the standard health and reflection services.

    Args:
        engine: answers the frames.
        bind: ``host:port``; port 0 takes a free one.
        security: TLS and token.
        limits: what is granted.
    """

    def __init__(self, engine: TailEngine, bind: str, security: Security, limits: Limits) -> None:
        self.engine, self.bind, self.security, self.limits = engine, bind, security, limits
        self.replies = ReplyBook(4 * limits.max_clients, limits.max_window)
        self._streams: set[_Stream] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._health = health.HealthServicer()

    def start(self) -> str:
        """See TailServer."""
        host, _ = host_port(self.bind)
        credentials = self.security.server_credentials(host)
        num_threads = self.limits.max_clients + _SPARE_THREADS
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="tail")
        self._server = grpc.server(
            self._pool,
            interceptors=self.security.interceptors(),
            options=_options(self.limits),
            maximum_concurrent_rpcs=num_threads,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(self.bind)
            else:
                bound = self._server.add_secure_port(self.bind, credentials)
        except RuntimeError as exc:
            raise ConfigError(f"cannot serve on {self.bind}: is the port in use, or the address another's?") from exc
        self._server.start()
        self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        threading.Thread(target=self._cut_stalled, daemon=True, name="stalled").start()
        return f"{host}:{bound}"

    def stop(self, grace_s: float) -> None:
        """See TailServer. Clients learn it from UNAVAILABLE and resend what was not answered elsewhere or later."""
        self._health.enter_graceful_shutdown()
        self._stopping.set()
        with self._lock:
            for stream in self._streams:
                stream.inbox.end()
        self._server.stop(grace_s).wait()
        self._pool.shutdown(wait=False)

    def queue_depth(self) -> int:
        """Frames that wait at this moment."""
        with self._lock:
            return sum(len(stream.inbox) for stream in self._streams)

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        def unary(method: Any, request: Any, reply: Any) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(method, request.FromString, reply.SerializeToString)

        return {
            "Info": unary(self._info, tail_pb2.InfoRequest, tail_pb2.InfoReply),
            "Open": unary(self._open, tail_pb2.OpenRequest, tail_pb2.OpenReply),
            "Echo": grpc.unary_unary_rpc_method_handler(
                lambda message, _: len(message), None, lambda n: tail_pb2.EchoReply(num_bytes=n).SerializeToString()
            ),
            "Call": grpc.unary_unary_rpc_method_handler(self._call, Frame.from_bytes, Reply.to_bytes),
            "Stream": grpc.stream_stream_rpc_method_handler(self._stream, Frame.from_bytes, Reply.to_bytes),
        }

    def _info(self, _: Any, context: grpc.ServicerContext) -> tail_pb2.InfoReply:
        return tail_pb2.InfoReply(
            plan_json=self.engine.offer.to_json(),
            points=[point.name for point in self.engine.graph.points],
            codecs=self.engine.codec_labels,
            device=str(self.engine.device),
            version=_version(),
            max_window=self.limits.max_window,
        )

    def _open(self, request: tail_pb2.OpenRequest, context: grpc.ServicerContext) -> tail_pb2.OpenReply:
        with _statuses(context):
            session = self.engine.open(Plan.from_json(request.plan_json))
        return tail_pb2.OpenReply(session=session, max_window=self.limits.max_window)

    def _call(self, frame: Frame, context: grpc.ServicerContext) -> Reply:
        with _statuses(context):
            return self._answer(frame, 0.0)

    def _stream(self, requests: Iterable[Frame], context: grpc.ServicerContext) -> Iterator[Reply]:
        stream = _Stream(Inbox(self.limits.max_window), context)
        with self._lock:
            is_full = len(self._streams) >= self.limits.max_clients
            if not is_full:
                self._streams.add(stream)
            if self._stopping.is_set():
                stream.inbox.end()
        if is_full:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"the server has its {self.limits.max_clients} clients")
        frames = joined(requests, self.limits.max_payload_bytes)
        threading.Thread(target=_receive, args=(frames, stream.inbox), daemon=True, name="receive").start()
        try:
            while True:
                with _statuses(context):
                    waiting = stream.inbox.get()
                    if waiting is None:
                        break
                    reply = self._answer(*waiting)
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

    def _answer(self, frame: Frame, queue_s: float) -> Reply:
        if not 0 < len(frame.client) <= _MAX_NAME:
            raise PayloadError(f"expected a client name of 1…{_MAX_NAME} characters, got {len(frame.client)}")

        def compute() -> Answer:
            payload, server_s = self.engine.answer(frame.session, frame.payload)
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
                log.warning("Cut a client that takes no answers: %s", stream.context.peer())
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


@contextlib.contextmanager
def _statuses(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn our exceptions into statuses with their one line."""
    try:
        yield
    except tuple(_STATUSES) as exc:
        code = next(code for kind, code in _STATUSES.items() if isinstance(exc, kind))
        context.abort(code, str(exc))


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # else a second server silently shares the port
        ("grpc.max_receive_message_length", _most_message_bytes(limits)),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", 20_000),  # finds half-open connections
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.max_metadata_size", 16_384),
    ]


def _most_message_bytes(limits: Limits) -> int:
    """Chunks arrive whatever the limit, so that what is too much is told in words."""
    return -1 if limits.max_payload_bytes is None else max(limits.max_payload_bytes, CHUNK_BYTES) + 1024


def _version() -> str:
    try:
        return version("splitsem")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "not installed"
