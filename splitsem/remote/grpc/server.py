"""GrpcServer gives the frames of any number of clients to one TailEngine; see tail.proto."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from splitsem.cost.lut import lut_json
from splitsem.errors import ConfigError, PayloadError
from splitsem.remote.ends import TailServer
from splitsem.remote.grpc import tail_pb2
from splitsem.remote.grpc.connection import HEARTBEAT_S, Security, heartbeat_options, host_port
from splitsem.remote.grpc.frames import CHUNK_BYTES, Frame, Parsing, Reply
from splitsem.remote.grpc.streams import Limits, Streams, statuses
from splitsem.remote.plan import Plan, TrainingPlan
from splitsem.remote.profiler import Profiler
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.training_engine import TrainingEngine


def training_handlers(engine: TrainingEngine | None, limits: Limits) -> dict[str, grpc.RpcMethodHandler]:
    """Handlers of OpenTraining and Train; without an engine, each handler answers that this server does not train."""

    def trains() -> TrainingEngine:
        if engine is None:
            raise ConfigError("this server does not train: start it with workflow.training=true")
        return engine

    def open_(request: tail_pb2.OpenTrainingRequest, context: grpc.ServicerContext) -> tail_pb2.OpenTrainingReply:
        with statuses(context):
            session = trains().open(TrainingPlan.from_json(request.plan_json), request.client)
        return tail_pb2.OpenTrainingReply(session=session)

    def train(frame: Frame, context: grpc.ServicerContext) -> Reply:
        with statuses(context):
            most = limits.max_payload_bytes
            if most is not None and len(frame.payload) > most:
                raise PayloadError(f"expected a payload of at most {most} bytes, got {len(frame.payload)}")
            payload, server_s = trains().answer(frame.session, frame.request_id, frame.payload[:])
        return Reply(frame.request_id, server_s, 0.0, payload)

    return {
        "OpenTraining": grpc.unary_unary_rpc_method_handler(
            open_, tail_pb2.OpenTrainingRequest.FromString, tail_pb2.OpenTrainingReply.SerializeToString
        ),
        "Train": grpc.unary_unary_rpc_method_handler(train, Frame.from_bytes, Reply.to_bytes),
    }


SERVICE = "splitsem.v1.Tail"
_SPARE_THREADS = 4  # for health, Info and Open while all clients stream


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
        engine: TailEngine,
        bind: str,
        security: Security,
        limits: Limits,
        heartbeat_s: float = HEARTBEAT_S,
        training: TrainingEngine | None = None,
        more: Sequence[grpc.GenericRpcHandler] = (),
    ) -> None:
        self.heartbeat_s, self.training, self._more = heartbeat_s, training, more
        self.engine, self.bind, self.security, self.limits = engine, bind, security, limits
        self.streams = Streams(engine, limits)
        self.profiler = Profiler(engine)
        self._health = health.HealthServicer()

    def start(self) -> str:
        """See TailServer."""
        host, _ = host_port(self.bind)
        credentials = self.security.server_credentials(host)
        num_trainers = self.training.limits.max_trainers if self.training else 0
        num_threads = self.limits.max_clients + num_trainers + _SPARE_THREADS
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="tail")
        self._server = grpc.server(
            self._pool,
            interceptors=[*self.security.interceptors(), Parsing()],
            options=_options(self.limits, self.heartbeat_s),
            maximum_concurrent_rpcs=num_threads,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, self._handlers()), *self._more)
        )
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
        self.streams.start()
        return f"{host}:{bound}"

    def stop(self, grace_s: float) -> None:
        """See TailServer. Clients get UNAVAILABLE and resend unanswered frames, later or to another server."""
        self._health.enter_graceful_shutdown()
        self.streams.stop()
        self._server.stop(grace_s).wait()
        self._pool.shutdown(wait=False)

    def queue_depth(self) -> int:
        """See TailServer."""
        return self.streams.queue_depth()

    def num_clients(self) -> int:
        """See TailServer."""
        return self.streams.num_clients()

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        def unary(method: Any, request: Any, reply: Any) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(method, request.FromString, reply.SerializeToString)

        return {
            "Info": unary(self._info, tail_pb2.InfoRequest, tail_pb2.InfoReply),
            "Open": unary(self._open, tail_pb2.OpenRequest, tail_pb2.OpenReply),
            "Echo": grpc.unary_unary_rpc_method_handler(
                lambda message, _: len(message), None, lambda n: tail_pb2.EchoReply(num_bytes=n).SerializeToString()
            ),
            "Profile": unary(self._profile, tail_pb2.ProfileRequest, tail_pb2.ProfileReply),
            "Call": grpc.unary_unary_rpc_method_handler(self._call, Frame.from_bytes, Reply.to_bytes),
            "Stream": grpc.stream_stream_rpc_method_handler(self.streams.serve, Frame.from_bytes, Reply.to_bytes),
            **training_handlers(self.training, self.limits),
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
        with statuses(context):
            session = self.engine.open(Plan.from_json(request.plan_json))
        return tail_pb2.OpenReply(session=session, max_window=self.limits.max_window)

    def _profile(self, request: tail_pb2.ProfileRequest, context: grpc.ServicerContext) -> tail_pb2.ProfileReply:
        with statuses(context):
            found = self.profiler.profile(
                list(request.points),
                request.session,
                request.payload,
                request.budget_s,
                request.pause_s,
                is_wanted=context.is_active,
            )
        return tail_pb2.ProfileReply(lut_json=lut_json(found.lut), answer_s=found.answer_s)

    def _call(self, frame: Frame, context: grpc.ServicerContext) -> Reply:
        with statuses(context):
            return self.streams.answer(frame, 0.0)


def _options(limits: Limits, heartbeat_s: float) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # else a second server would silently share the port
        ("grpc.max_receive_message_length", _most_message_bytes(limits)),
        ("grpc.max_send_message_length", -1),
        *heartbeat_options(heartbeat_s),  # finds half-open connections
        ("grpc.max_metadata_size", 16_384),
    ]


def _most_message_bytes(limits: Limits) -> int:
    """The message limit; leaves room for a chunk at any payload limit, so that a refusal can say why in words."""
    return -1 if limits.max_payload_bytes is None else max(limits.max_payload_bytes, CHUNK_BYTES) + 1024


def _version() -> str:
    try:
        return version("splitsem")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "not installed"
