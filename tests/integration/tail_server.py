"""A gRPC server of the tests' small network, to run in a process of its own."""

from pathlib import Path

import torch

from splitsem.split.graph import SplitGraph
from splitsem.transport.engine import TailEngine
from splitsem.transport.grpc.heartbeat import HEARTBEAT_S
from splitsem.transport.grpc.limits import Limits
from splitsem.transport.grpc.security import Security
from splitsem.transport.grpc.server import GrpcServer
from splitsem.transport.plan import weights_digest
from splitsem.workflows.serve import serve
from tests.integration.network import INPUT_SHAPE, small_agilenn, small_network


def main(settings: dict, folder: Path) -> None:
    """Serve until SIGTERM; the address is in ``folder``.

    Settings: ``security``, ``limits`` (their arguments), ``bind``, ``training``, ``micro_batch``, ``heartbeat_s``.
    """
    torch.set_num_threads(1)
    model, graph = small_network()
    micro_batch = settings.get("micro_batch", 1)
    engine = TailEngine(graph, weights_digest(model), codecs=[small_agilenn(graph)], micro_batch=micro_batch)
    if settings.get("training"):
        from splitsem.tasks.digits import Digits  # sklearn and torchmetrics, which the other tests' servers do without
        from splitsem.training.engine import TrainingEngine, TrainingLimits

        training = SplitGraph(model, INPUT_SHAPE, granularity="op", training=True)
        engine.training = TrainingEngine(engine, training, Digits(), TrainingLimits())
    limits = Limits(**settings.get("limits", {}))
    security = Security(**settings.get("security", {}))
    heartbeat_s = settings.get("heartbeat_s", HEARTBEAT_S)
    server = GrpcServer(engine, settings.get("bind", "127.0.0.1:0"), security, limits, heartbeat_s)
    serve(server, engine, folder, grace_s=5.0)
