"""A UDP server of the tests' small network, in a process of its own: udp_tail_server HOST PORT SETTINGS_AS_JSON."""

import json
import signal
import sys
import threading

import torch

from splitsem.models.cnn import StagedCnn
from splitsem.split.graph import SplitGraph
from splitsem.transport.engine import TailEngine
from splitsem.transport.plan import Plan, weights_digest
from splitsem.transport.udp.server import UdpServer
from splitsem.transport.udp.settings import Settings

INPUT_SHAPE = (1, 8, 8)


def small_network(seed: int = 0) -> tuple[StagedCnn, SplitGraph]:
    """The network that both ends of a test build for themselves."""
    torch.manual_seed(seed)
    model = StagedCnn(INPUT_SHAPE, (10,), widths=[4, 8], inner_widths=None, stem_width=4).eval()
    return model, SplitGraph(model, INPUT_SHAPE)


def small_plan(model: StagedCnn, graph: SplitGraph, point: str = "stage1") -> Plan:
    """What the tests' server agrees to."""
    return Plan(graph.fingerprint, weights_digest(model), point, "layer", "float32", "Identity")


def main(host: str, port: int, settings: dict) -> None:
    """Serve until SIGTERM; says the address on stdout, then, at the end, what was counted."""
    torch.set_num_threads(1)
    model, graph = small_network()
    limits = {name: settings.pop(name) for name in ("max_clients", "idle_s") if name in settings}
    engine, is_public = TailEngine(graph, weights_digest(model)), not host.startswith("127.")
    server = UdpServer(engine, host, port, Settings(**settings), insecure=is_public, **limits)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print(server.start(), flush=True)  # noqa: T201
    stop.wait()
    server.stop()
    print(json.dumps(vars(server.counts)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
