"""UdpTransport is the option ``transport=udp`` of the configuration, and makes both ends of the link."""

from splitsem.remote.grpc.streams import Limits
from splitsem.remote.ssh_inventory import Start
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.transports import RemoteTransport
from splitsem.remote.udp.client import UdpTail
from splitsem.remote.udp.control import ControlTail
from splitsem.remote.udp.server import UdpServer
from splitsem.remote.udp.settings import Grant, Settings
from splitsem_device.grpc.client import MAX_ANSWER_BYTES
from splitsem_device.grpc.connection import HEARTBEAT_S, Security, host_port
from splitsem_device.retry import Retry


class UdpTransport(RemoteTransport):
    """Frames as sealed datagrams, plan and keys over gRPC.

    Args:
        target: ``host:port`` of the server's control channel, for the edge's end.
        bind: ``host:port`` that the server listens on, TCP and UDP; port 0 takes free ports.
        window: frames unanswered at a time.
        retry: see Grpc; of the control channel.
        security: see Grpc; of the control channel.
        limits: see Grpc.
        heartbeat_s: see Grpc.
        max_answer_bytes: see Grpc.
        settings: how the edge sends.
        grant: what the server grants.
        datagram_target: ``host:port`` that datagrams go to, where a port mapping hides the server's own; None: its own.
        start: ``ssh`` starts the server first, on ``host`` of the file ``inventory``; None: the server runs already.
        host: see ``start``.
        inventory: see ``start``.
    """

    is_tunnelled = False

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
        fragment_bytes: int = 1400,
        rate_bps: float | None = None,
        deadline_s: float = 10.0,
        grant: Grant | None = None,
        datagram_target: str | None = None,
        start: str | None = None,
        host: str | None = None,
        inventory: str = "hosts.yaml",
    ) -> None:
        for address in (target, bind):
            host_port(address)  # raises ValueError
        self.target, self.bind = target, bind
        self.retry, self.security, self.limits, self.heartbeat_s = retry, security, limits, heartbeat_s
        self.max_answer_bytes = max_answer_bytes
        self.settings = Settings(fragment_bytes, rate_bps, deadline_s, window)
        self.grant, self.datagram_target = grant or Grant(), datagram_target
        self.start = Start(start, host, inventory)

    def check_server(self) -> None:
        """See RemoteTransport."""
        self.security.check_server(self.bind)

    def check_edge(self) -> None:
        """See RemoteTransport."""
        self.security.check_edge(self.target)

    def edge_end(self, settings: Settings | None = None) -> UdpTail:
        """See RemoteTransport; with other settings than its own if given."""
        settings = settings or self.settings
        grpc = self.target, settings.window, self.retry, self.security, self.heartbeat_s, self.max_answer_bytes
        control = ControlTail(*grpc)
        control.is_server_over = self.is_server_over
        return UdpTail(control, settings, self.datagram_target)

    def server_end(self, engine: TailEngine) -> UdpServer:
        """See RemoteTransport."""
        return UdpServer(engine, self.bind, self.security, self.limits, self.grant, self.heartbeat_s)
