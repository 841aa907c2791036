"""A UDP server of the tests' small network, in a process of its own: udp_tail_server HOST PORT SETTINGS_AS_JSON."""

import functools
import json
import signal
import sys
import threading
from collections.abc import Callable

import torch

from splitsem.remote.plan import weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.udp.server import UdpServer
from splitsem.remote.udp.settings import Settings
from tests.integration.network import small_network


def main(host: str, port: int, settings: dict, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM; tells the address, then, at the end, what was counted."""
    torch.set_num_threads(1)
    model, graph = small_network()
    limits = {name: settings.pop(name) for name in ("max_clients", "idle_s") if name in settings}
    engine, is_public = TailEngine(graph, weights_digest(model)), not host.startswith("127.")
    server = UdpServer(engine, host, port, Settings(**settings), insecure=is_public, **limits)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    tell(server.start())
    stop.wait()
    server.stop()
    tell(json.dumps(vars(server.counts)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]), functools.partial(print, flush=True))
