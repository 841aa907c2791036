"""Grpc is the option ``transport=grpc`` of the configuration, for inference and split training."""

import grpc

from splitsem.errors import ConfigError, SessionError
from splitsem.remote.grpc.server import GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.ssh_inventory import Start
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.training_engine import TrainingEngine
from splitsem.remote.training_plan import TrainingPlan
from splitsem.remote.training_tail import TrainingTail, TrainingTransport
from splitsem_device.answers import Answer
from splitsem_device.grpc import tail_pb2
from splitsem_device.grpc.client import MAX_ANSWER_BYTES, PATH, GrpcTail, to_answer
from splitsem_device.grpc.connection import HEARTBEAT_S, Security, heartbeat_options, host_port
from splitsem_device.grpc.frames import Frame, Reply
from splitsem_device.peer_text import shown
from splitsem_device.retry import Patience, Retry


class GrpcTrainingTail(TrainingTail):
    """Trains with a GrpcServer. A request without a reply is sent again over a new connection; the server carries a
    resent request out one time only. A restarted server has lost the tail: SessionError.

    Args:
        target: the server's ``host:port``.
        window: of the connection; training has one request under way.
        retry: deadlines and backoff.
        security: TLS and token.
        heartbeat_s: see ``Grpc``.
        max_answer_bytes: see ``Grpc``.
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
        super().__init__()
        self._end = _End(target, window, retry, security, heartbeat_s, max_answer_bytes)
        self.counters = self._end.counters
        self._session = ""

    def _connect(self, plan: TrainingPlan, client: str) -> None:
        request = tail_pb2.OpenTrainingRequest(plan_json=plan.to_json(), client=client)
        self._session = self._end.open_training(request).session

    def _exchange(self, number: int, message: bytes) -> Answer:
        return self._end.train(Frame(self._session, "", number, message))

    def _disconnect(self) -> None:
        self._end.close()


class _End(GrpcTail):
    """The edge's end with the RPCs of training."""

    def open_training(self, request: tail_pb2.OpenTrainingRequest) -> tail_pb2.OpenTrainingReply:
        """Open a session for this plan."""
        reply: tail_pb2.OpenTrainingReply = self._persist(
            lambda: self._unary("OpenTraining", request, tail_pb2.OpenTrainingReply)
        )
        return reply

    def train(self, frame: Frame) -> Answer:
        """The answer to one request of training."""

        def once() -> Answer:
            method = self._connected().unary_unary(PATH + "Train", Frame.to_bytes, Reply.from_bytes)
            self.counters.frames_sent += 1
            return to_answer(method(frame, timeout=self.retry.deadline_s, metadata=self._metadata))

        answer: Answer = self._persist(once)
        self.counters.frames_answered += 1
        return answer

    def _prepare_retry(self, exc: grpc.RpcError, patience: Patience) -> None:
        """As in GrpcTail, but a lost session cannot be opened again, and a broken connection is counted."""
        if exc.code() is grpc.StatusCode.ABORTED:
            raise SessionError(f"{self.target}: {shown(exc.details(), 1000)}") from exc
        if exc.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise ConfigError(f"{self.target}: the server's version knows no split training") from exc
        super()._prepare_retry(exc, patience)
        self.counters.reconnects += 1


class Grpc(TrainingTransport):
    """Frames over one bidirectional gRPC stream.

    Args:
        target: ``host:port`` that the edge connects to.
        bind: ``host:port`` that the server listens on; port 0 takes a free port.
        window: frames that the edge may have unanswered.
        retry: the edge's deadlines and backoff.
        security: TLS and token, of the end that runs here.
        limits: what the server grants.
        heartbeat_s: seconds of silence after which an end pings its peer; after as many more, the end gives up.
        max_answer_bytes: the longest answer that the edge takes from the server.
        start: ``ssh`` starts the server first, on ``host`` of the file ``inventory``; None: the server runs already.
        host: see ``start``.
        inventory: see ``start``.
    """

    def __init__(
        self,
        target: str,
        bind: str,
        window: int,
        retry: Retry,
        security: Security,
        limits: Limits,
        heartbeat_s: float = HEARTBEAT_S,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        start: str | None = None,
        host: str | None = None,
        inventory: str = "hosts.yaml",
    ) -> None:
        for address in (target, bind):
            host_port(address)  # raises ValueError
        heartbeat_options(heartbeat_s)  # too
        self.target, self.bind, self.window = target, bind, window
        self.retry, self.security, self.limits, self.heartbeat_s = retry, security, limits, heartbeat_s
        self.max_answer_bytes = max_answer_bytes
        self.start = Start(start, host, inventory)

    def _edge(self) -> tuple[str, int, Retry, Security, float, int]:
        return self.target, self.window, self.retry, self.security, self.heartbeat_s, self.max_answer_bytes

    def check_server(self) -> None:
        """See RemoteTransport."""
        self.security.check_server(self.bind)

    def check_edge(self) -> None:
        """See RemoteTransport."""
        self.security.check_edge(self.target)

    def edge_end(self) -> GrpcTail:
        """See RemoteTransport."""
        tail = GrpcTail(*self._edge())
        tail.is_server_over = self.is_server_over
        return tail

    def training_end(self) -> GrpcTrainingTail:
        """See TrainingTransport."""
        return GrpcTrainingTail(*self._edge())

    def server_end(self, engine: TailEngine, training: TrainingEngine | None = None) -> GrpcServer:
        """See TrainingTransport."""
        return GrpcServer(engine, self.bind, self.security, self.limits, self.heartbeat_s, training)
