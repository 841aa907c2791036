"""GrpcServer gives the frames of any number of clients to one Engine; see tail.proto."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from splitsem.errors import ConfigError, PayloadError
from splitsem.remote.engine import Engine, TailServer
from splitsem.remote.grpc.admission import MAX_WAITING, Doors, Places, WaitingRoom
from splitsem.remote.grpc.arrivals import statuses
from splitsem.remote.grpc.streams import Limits, Streams
from splitsem_device.allocator import give_memory_back, keep_buffers, share_arenas
from splitsem_device.answers import ToMeasure
from splitsem_device.grpc import tail_pb2
from splitsem_device.grpc.connection import HEARTBEAT_S, Security, heartbeat_options, host_port
from splitsem_device.grpc.frames import CHUNK_BYTES, Frame, Reply
from splitsem_device.plan import Plan

if TYPE_CHECKING:  # a server that does not train needs no torch
    from splitsem.remote.training_engine import TrainingEngine


def training_handlers(engine: "TrainingEngine | None", limits: Limits) -> dict[str, grpc.RpcMethodHandler]:
    """Handlers of OpenTraining and Train; without an engine, each handler answers that this server does not train."""

    def trains() -> "TrainingEngine":
        if engine is None:
            raise ConfigError(
                "this server does not train: start one that does (workflow=serve with workflow.training=true)"
            )
        return engine

    def open_(request: tail_pb2.OpenTrainingRequest, context: grpc.ServicerContext) -> tail_pb2.OpenTrainingReply:
        with statuses(context):
            session = trains().open(trains().read_plan(request.plan_json), request.client)
        return tail_pb2.OpenTrainingReply(session=session)

    def train(frame: Frame, context: grpc.ServicerContext) -> Reply:
        with statuses(context):
            engine, most = trains(), limits.max_payload_bytes
            most = engine.most_request_bytes() if most is None else most
            if len(frame.payload) > most:
                raise PayloadError(f"expected a payload of at most {most} bytes, got {len(frame.payload)}")
            payload, server_s = engine.answer(frame.session, frame.request_id, frame.payload[:])
        return Reply(frame.request_id, server_s, 0.0, payload)

    return {
        "OpenTraining": grpc.unary_unary_rpc_method_handler(
            open_, tail_pb2.OpenTrainingRequest.FromString, tail_pb2.OpenTrainingReply.SerializeToString
        ),
        "Train": grpc.unary_unary_rpc_method_handler(train, Frame.from_bytes, Reply.to_bytes),
    }


log = logging.getLogger(__name__)
SERVICE = "splitsem.v1.Tail"
_SPARE_THREADS = 16  # for calls on their way in or out, and for health and Info
_HANDSHAKE_S = 10.0  # TLS and the first bytes of HTTP/2
_MAX_CONNECTIONS = 4096
_MAX_CALLS_A_CONNECTION = 256
_TICK_S, _SUMMARY_S = 1.0, 60.0
_SETTLING_S = 5.0  # after large payloads: a thread of the server or of gRPC may hold the last one for a while
_LAST_WORDS_S = 2.0  # for streams that have ended, whose threads have yet to say so


class GrpcServer(TailServer):
    """Serves one engine over gRPC, with the standard health and reflection services.

    Args:
        engine: answers the frames.
        bind: ``host:port``; port 0 takes a free port.
        security: TLS and token.
        limits: what is granted.
        heartbeat_s: see ``heartbeat_options``.
        training: trains tails of the engine's network for clients that ask; None: this server does not train.
        more: handlers of further services, behind the same security.
    """

    def __init__(
        self,
        engine: Engine,
        bind: str,
        security: Security,
        limits: Limits,
        heartbeat_s: float = HEARTBEAT_S,
        training: "TrainingEngine | None" = None,
        more: Sequence[grpc.GenericRpcHandler] = (),
    ) -> None:
        self.heartbeat_s, self.training, self._more = heartbeat_s, training, more
        self.engine, self.bind, self.security, self.limits = engine, bind, security, limits
        self.streams = Streams(engine, limits)
        self.room = WaitingRoom(MAX_WAITING, limits.first_s, engine.metrics)
        self._health = health.HealthServicer()
        self._stopped = threading.Event()

    def start(self) -> str:
        """See TailServer."""
        host, _ = host_port(self.bind)
        credentials = self.security.server_credentials(host)
        num_trainers = self.training.limits.max_trainers if self.training else 0
        num_calls = self.limits.max_clients + num_trainers
        calls = Places(num_calls, max(1, self.limits.per_address), "requests", self.engine.metrics)
        num_threads = MAX_WAITING + self.limits.max_clients + num_calls + _SPARE_THREADS
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="tail")
        _allow_open_files(_MAX_CONNECTIONS + 256)
        share_arenas()
        keep_buffers()
        self._server = grpc.server(
            self._pool,
            interceptors=[*self.security.interceptors(), Doors(self.room, calls, self.streams.has_garbage)],
            options=self._options(),
        )
        services = {SERVICE: self._handlers(), health.SERVICE_NAME: {"Check": _unary(self._health.Check, *_HEALTH)}}
        for name, handlers in services.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        self._server.add_generic_rpc_handlers(tuple(self._more))
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
        threading.Thread(target=self._look_after, daemon=True, name="look-after").start()
        return f"{host}:{bound}"

    def stop(self, grace_s: float) -> None:
        """See TailServer. Clients get UNAVAILABLE and resend unanswered frames, later or to another server."""
        self._health.enter_graceful_shutdown()
        self.streams.stop()
        self._server.stop(grace_s).wait()
        self._pool.shutdown(wait=False)
        self._stopped.set()
        self.streams.wait(_LAST_WORDS_S)
        self.streams.visits.settle(0.0)

    def queue_depth(self) -> int:
        """See TailServer."""
        return self.streams.queue_depth()

    def num_clients(self) -> int:
        """See TailServer."""
        return self.streams.num_clients()

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        return {
            "Info": _unary(self._info, tail_pb2.InfoRequest, tail_pb2.InfoReply),
            "Open": _unary(self._open, tail_pb2.OpenRequest, tail_pb2.OpenReply),
            "Echo": grpc.unary_unary_rpc_method_handler(
                lambda message, _: len(message), bytes, lambda n: tail_pb2.EchoReply(num_bytes=n).SerializeToString()
            ),
            "Profile": _unary(self._profile, tail_pb2.ProfileRequest, tail_pb2.ProfileReply),
            "Call": grpc.unary_unary_rpc_method_handler(self._call, Frame.from_bytes, Reply.to_bytes),
            "Stream": grpc.stream_stream_rpc_method_handler(self.streams.serve, Frame.from_bytes, Reply.to_bytes),
            **training_handlers(self.training, self.limits),
        }

    def _options(self) -> list[tuple[str, int]]:
        most = self.limits.max_payload_bytes
        if most is None:
            most = self.training.most_request_bytes() if self.training else self.engine.most_payload_bytes()
        return [
            ("grpc.so_reuseport", 0),  # else a second server would silently share the port
            # one message; room for a chunk at any payload limit, so that a refusal can say why in words
            ("grpc.max_receive_message_length", min(max(most, CHUNK_BYTES) + 1024, (1 << 31) - 1)),
            ("grpc.max_send_message_length", -1),
            *heartbeat_options(self.heartbeat_s),  # finds half-open connections
            ("grpc.max_metadata_size", 16_384),
            ("grpc.server_handshake_timeout_ms", int(1000 * _HANDSHAKE_S)),
            ("grpc.max_connection_idle_ms", int(min(1000 * self.limits.idle_s, (1 << 31) - 1))),
            ("grpc.max_concurrent_streams", _MAX_CALLS_A_CONNECTION),
            ("grpc.max_allowed_incoming_connections", _MAX_CONNECTIONS),
        ]

    def _look_after(self) -> None:
        """Do what is to be done in time: cut late clients, log who left, give memory back, sum up who was refused."""
        limits, metrics = self.limits, self.engine.metrics
        tick_s = min(_TICK_S, limits.first_s / 4, limits.idle_s / 4, limits.max_send_s / 4)
        summed, told_s = dict(metrics.num_refused), time.monotonic()
        settled_s = told_s
        while not self._stopped.wait(tick_s):
            now_s = time.monotonic()
            self.room.expire(now_s)
            self.streams.look_after(now_s)
            self.streams.visits.settle()
            if self.streams.has_garbage.is_set():
                self.streams.has_garbage.clear()
                settled_s = now_s + _SETTLING_S
            if now_s < settled_s:
                give_memory_back()
            new = {reason: n - summed[reason] for reason, n in metrics.num_refused.items() if n > summed[reason]}
            if new and now_s - told_s > _SUMMARY_S:
                log.warning("Cut or turned away: %s", ", ".join(f"{n} {reason}" for reason, n in new.items()))
                summed, told_s = dict(metrics.num_refused), now_s

    def _info(self, _: Any, context: grpc.ServicerContext) -> tail_pb2.InfoReply:
        return tail_pb2.InfoReply(
            plan_json=self.engine.offer.to_json(),
            points=self.engine.point_names,
            codecs=self.engine.codec_labels,
            device=self.engine.place,
            version=_version(),
            max_window=self.limits.max_window,
        )

    def _open(self, request: tail_pb2.OpenRequest, context: grpc.ServicerContext) -> tail_pb2.OpenReply:
        with statuses(context):
            session = self.engine.open(Plan.from_json(request.plan_json))
        return tail_pb2.OpenReply(session=session, max_window=self.limits.max_window)

    def _profile(self, request: tail_pb2.ProfileRequest, context: grpc.ServicerContext) -> tail_pb2.ProfileReply:
        with statuses(context):
            asked = ToMeasure(**{name: getattr(request, name) for name in ToMeasure._fields})
            found = self.engine.profile(asked, request.session, context.is_active)
        return tail_pb2.ProfileReply(**found._asdict())

    def _call(self, frame: Frame, context: grpc.ServicerContext) -> Reply:
        with statuses(context):
            return self.streams.answer(frame, 0.0)


_HEALTH = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse


def _unary(method: Any, request: Any, reply: Any) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(method, request.FromString, reply.SerializeToString)


def _allow_open_files(num: int) -> None:
    """Let this process have so many files and connections open, as far as the system lets it."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < num:
        wanted = num if hard == resource.RLIM_INFINITY else min(num, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _version() -> str:
    try:
        return version("splitsem")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "not installed"
