"""Both ends of the datagram transport for tests, impatient; and a server in a process of its own."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from splitsem.remote.grpc.streams import Limits
from splitsem.remote.labels import weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.udp.client import UdpTail
from splitsem.remote.udp.server import UdpServer
from splitsem.remote.udp.transport import UdpTransport
from splitsem_device.grpc.connection import Security
from splitsem_device.plan import Plan
from tests.integration.conftest import QUICK
from tests.integration.network import small_network
from tests.integration.udp_relay import Relay


def udp_transport(target: str = "127.0.0.1:9", bind: str = "127.0.0.1:0", **settings: Any) -> UdpTransport:
    """The transport with ``settings`` beside the tests' own."""
    own: dict[str, Any] = {"window": 32, "retry": QUICK, "security": Security(), "limits": Limits()}
    return UdpTransport(target, bind, **own | settings)


@contextlib.contextmanager
def serving(engine: TailEngine | None = None, **settings: Any) -> Iterator[tuple[UdpServer, str]]:
    """A server in this process, of the small network unless another engine is given; and its address."""
    model, graph = small_network()
    server = udp_transport(**settings).server_end(engine or TailEngine(graph, weights_digest(model)))
    address = server.start()
    try:
        yield server, address
    finally:
        server.stop(1.0)


@contextlib.contextmanager
def connected(address: str, plan: Plan, **settings: Any) -> Iterator[UdpTail]:
    """The edge's end with this plan open."""
    tail = udp_transport(address, **settings).edge_end()
    try:
        tail.open(plan)
        yield tail
    finally:
        tail.close()


@contextlib.contextmanager
def bad_network(server: UdpServer, seed: int = 0, **harm: float) -> Iterator[Relay]:
    """A relay of the server's datagrams; its address is for ``datagram_target``."""
    with Relay(f"127.0.0.1:{server.port}", seed, **harm) as relay:
        yield relay


def main(bind: str, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM; tells the address."""
    torch.set_num_threads(1)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with serving(bind=bind) as (_, address):
        tell(address)
        stop.wait()
