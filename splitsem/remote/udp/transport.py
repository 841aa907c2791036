"""UdpTransport is the option ``transport=udp`` of the configuration, and makes both ends of the link."""

from splitsem.remote.ends import RemoteTransport
from splitsem.remote.ssh_inventory import Start
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.udp.client import UdpTail
from splitsem.remote.udp.server import UdpServer
from splitsem.remote.udp.settings import Loss, Settings, host_and_port


class UdpTransport(RemoteTransport):
    """Frames as datagrams.

    Args:
        target: ``HOST:PORT`` of the server, for the edge's end.
        bind: ``HOST:PORT`` that the server listens on; port 0 takes a free port.
        insecure: allow addresses beyond this machine's loopback, though datagrams travel in the clear.
        fragment_bytes: see Settings, also for the further arguments.
        rate_bps: paced rate; None finds the rate.
        retries: time-outs in a row before the peer is given up.
        loss: ``resend`` or ``tolerate``.
        window: frames unanswered at a time.
        window_bytes: bytes under way, at most.
        max_message_bytes: the longest message.
        buffer_bytes: bytes of messages kept for one peer.
        max_clients: clients at a time.
        idle_s: seconds of silence after which the server forgets a client.
        num_workers: threads that compute on the server.
        heartbeat_s: see Settings.
        start: ``ssh`` starts the server first, on ``host`` of the file ``inventory``; None: the server runs already.
        host: see ``start``.
        inventory: see ``start``.
    """

    is_tunnelled = False

    def __init__(
        self,
        target: str = "127.0.0.1:50052",
        bind: str = "127.0.0.1:50052",
        insecure: bool = False,
        fragment_bytes: int = 1400,
        rate_bps: float | None = None,
        retries: int = 10,
        loss: Loss = "resend",
        window: int = 32,
        window_bytes: int = 1 << 20,
        max_message_bytes: int = 1 << 26,
        buffer_bytes: int = 1 << 27,
        max_clients: int = 32,
        idle_s: float = 30.0,
        num_workers: int = 1,
        heartbeat_s: float = 1.0,
        start: str | None = None,
        host: str | None = None,
        inventory: str = "hosts.yaml",
    ) -> None:
        self.settings = Settings(
            fragment_bytes=fragment_bytes,
            rate_bps=rate_bps,
            retries=retries,
            loss=loss,
            window=window,
            window_bytes=window_bytes,
            max_message_bytes=max_message_bytes,
            buffer_bytes=buffer_bytes,
            heartbeat_s=heartbeat_s,
        )
        self.target, self.insecure = target, insecure
        self.start = Start(start, host, inventory)
        self.host, self.port = host_and_port(bind, "transport.bind")
        self.max_clients, self.idle_s, self.num_workers = max_clients, idle_s, num_workers

    def edge_end(self) -> UdpTail:
        """See RemoteTransport."""
        return UdpTail(self.target, self.settings, self.insecure)

    def server_end(self, engine: TailEngine) -> UdpServer:
        """See RemoteTransport."""
        return UdpServer(
            engine,
            self.host,
            self.port,
            self.settings,
            max_clients=self.max_clients,
            idle_s=self.idle_s,
            num_workers=self.num_workers,
            insecure=self.insecure,
        )
