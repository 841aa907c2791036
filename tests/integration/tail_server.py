"""A gRPC server of the tests' small network, to run in a process of its own."""

from pathlib import Path

import torch

from splitsem.remote.grpc.server import GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.labels import weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.splitting.graph import SplitGraph
from splitsem.workflows.serve import serve
from splitsem_device.grpc.connection import HEARTBEAT_S, Security
from tests.integration.network import INPUT_SHAPE, small_agilenn, small_network


def main(settings: dict, folder: Path) -> None:
    """Serve until SIGTERM; the address is in ``folder``.

    Settings: ``security``, ``limits`` (their arguments), ``bind``, ``training``, ``micro_batch``, ``heartbeat_s``.
    """
    torch.set_num_threads(1)
    model, graph = small_network()
    micro_batch = settings.get("micro_batch", 1)
    engine = TailEngine(
        graph, weights_digest(model), codecs=[small_agilenn(graph)], max_batch=256, micro_batch=micro_batch
    )
    trained = None
    if settings.get("training"):
        from splitsem.remote.training_engine import TrainingEngine, TrainingLimits
        from splitsem.tasks.digits import Digits  # sklearn and torchmetrics, which the other tests' servers do without

        training = SplitGraph(model, INPUT_SHAPE, granularity="op", training=True)
        trained = TrainingEngine(engine, training, Digits(), TrainingLimits())
    limits = Limits(**settings.get("limits", {}))
    security = Security(**settings.get("security", {}))
    heartbeat_s = settings.get("heartbeat_s", HEARTBEAT_S)
    server = GrpcServer(engine, settings.get("bind", "127.0.0.1:0"), security, limits, heartbeat_s, trained)
    serve(server, engine, folder, grace_s=5.0)
