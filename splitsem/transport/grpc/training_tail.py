"""GrpcTrainingTail: the device's end of split training over gRPC; survives broken connections."""

import grpc

from splitsem.errors import ConfigError, SessionError
from splitsem.training.plan import TrainingPlan
from splitsem.training.tail import TrainingTail
from splitsem.transport.grpc import tail_pb2
from splitsem.transport.grpc.client import PATH, GrpcTail, to_answer
from splitsem.transport.grpc.frames import Frame, Reply
from splitsem.transport.grpc.heartbeat import HEARTBEAT_S
from splitsem.transport.grpc.security import Security
from splitsem.transport.remote import Answer
from splitsem.transport.retry import Retry


class GrpcTrainingTail(TrainingTail):
    """Trains with a GrpcServer. A request that got no reply is sent again, over a new connection; the server carries it
    out once. A server that was restarted has lost the tail: SessionError.

    Args:
        target: the server's ``host:port``.
        window: of the connection; training has one request under way.
        retry: deadlines and backoff.
        security: TLS and token.
        heartbeat_s: see ``Grpc``.
    """

    def __init__(
        self, target: str, window: int, retry: Retry, security: Security, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        super().__init__()
        self._end = _End(target, window, retry, security, heartbeat_s)
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
    """A device end with the RPCs of training."""

    def open_training(self, request: tail_pb2.OpenTrainingRequest) -> tail_pb2.OpenTrainingReply:
        """A session for this plan."""
        reply: tail_pb2.OpenTrainingReply = self._persist(
            lambda: self._unary("OpenTraining", request, tail_pb2.OpenTrainingReply)
        )
        return reply

    def train(self, frame: Frame) -> Answer:
        """The answer to one request."""

        def once() -> Answer:
            method = self._connected().unary_unary(PATH + "Train", Frame.to_bytes, Reply.from_bytes)
            self.counters.frames_sent += 1
            return to_answer(method(frame, timeout=self.retry.deadline_s, metadata=self.security.metadata()))

        answer: Answer = self._persist(once)
        self.counters.frames_answered += 1
        return answer

    def _prepare_retry(self, exc: grpc.RpcError, failures: int) -> None:
        """As for frames, but a session that is gone cannot be opened again, and a broken connection is counted."""
        if exc.code() is grpc.StatusCode.ABORTED:
            raise SessionError(f"{self.target}: {exc.details()}") from exc
        if exc.code() is grpc.StatusCode.UNIMPLEMENTED:
            raise ConfigError(f"{self.target}: the server's version knows no split training") from exc
        super()._prepare_retry(exc, failures)
        self.counters.reconnects += 1
