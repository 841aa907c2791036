"""Grpc: the option ``transport=grpc``."""

from splitsem.transport.engine import TailEngine
from splitsem.transport.grpc.client import GrpcTail
from splitsem.transport.grpc.heartbeat import HEARTBEAT_S
from splitsem.transport.grpc.limits import Limits
from splitsem.transport.grpc.security import Security
from splitsem.transport.grpc.server import GrpcServer
from splitsem.transport.grpc.training_tail import GrpcTrainingTail
from splitsem.transport.remote import RemoteTransport
from splitsem.transport.retry import Retry
from splitsem.transport.ssh.inventory import Start


class Grpc(RemoteTransport):
    """Frames over one bidirectional gRPC stream.

    Args:
        target: ``host:port`` that the device connects to.
        bind: ``host:port`` that the server listens on; port 0 takes a free one.
        window: frames that the device may have unanswered.
        retry: the device's deadlines and backoff.
        security: TLS and token, of the end that runs here.
        limits: what the server grants.
        heartbeat_s: seconds of silence after which an end asks for a sign of life; as many later it gives up.
        start: ``ssh`` starts the server first, on ``host`` of the file ``inventory``; None: it runs already.
        host: see ``start``.
        inventory: see ``start``.
    """

    can_train = True

    def __init__(
        self,
        target: str,
        bind: str,
        window: int,
        retry: Retry,
        security: Security,
        limits: Limits,
        heartbeat_s: float = HEARTBEAT_S,
        start: str | None = None,
        host: str | None = None,
        inventory: str = "hosts.yaml",
    ) -> None:
        self.target, self.bind, self.window = target, bind, window
        self.retry, self.security, self.limits, self.heartbeat_s = retry, security, limits, heartbeat_s
        self.start = Start(start, host, inventory)

    def device_end(self) -> GrpcTail:
        """See RemoteTransport."""
        return GrpcTail(self.target, self.window, self.retry, self.security, self.heartbeat_s)

    def training_end(self) -> GrpcTrainingTail:
        """See RemoteTransport."""
        return GrpcTrainingTail(self.target, self.window, self.retry, self.security, self.heartbeat_s)

    def server_end(self, engine: TailEngine) -> GrpcServer:
        """See RemoteTransport."""
        return GrpcServer(engine, self.bind, self.security, self.limits, self.heartbeat_s)
