"""Grpc: the option ``transport=grpc``."""

from splitsem.transport.engine import TailEngine
from splitsem.transport.grpc.client import GrpcTail
from splitsem.transport.grpc.limits import Limits
from splitsem.transport.grpc.security import Security
from splitsem.transport.grpc.server import GrpcServer
from splitsem.transport.grpc.training_tail import GrpcTrainingTail
from splitsem.transport.remote import RemoteTransport
from splitsem.transport.retry import Retry


class Grpc(RemoteTransport):
    """Frames over one bidirectional gRPC stream.

    Args:
        target: ``host:port`` that the device connects to.
        bind: ``host:port`` that the server listens on; port 0 takes a free one.
        window: frames that the device may have unanswered.
        retry: the device's deadlines and backoff.
        security: TLS and token, of the end that runs here.
        limits: what the server grants.
    """

    can_train = True

    def __init__(self, target: str, bind: str, window: int, retry: Retry, security: Security, limits: Limits) -> None:
        self.target, self.bind, self.window = target, bind, window
        self.retry, self.security, self.limits = retry, security, limits

    def device_end(self) -> GrpcTail:
        """See RemoteTransport."""
        return GrpcTail(self.target, self.window, self.retry, self.security)

    def training_end(self) -> GrpcTrainingTail:
        """See RemoteTransport."""
        return GrpcTrainingTail(self.target, self.window, self.retry, self.security)

    def server_end(self, engine: TailEngine) -> GrpcServer:
        """See RemoteTransport."""
        return GrpcServer(engine, self.bind, self.security, self.limits)
