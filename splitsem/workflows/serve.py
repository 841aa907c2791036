"""Workflow serve: the server of a split network; answers devices that run workflow=offload until it is stopped."""

import logging
import signal
import threading
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.transport.engine import TailEngine
from splitsem.transport.plan import weights_digest
from splitsem.transport.remote import RemoteTransport, TailServer
from splitsem.workflows import assemble, codecs
from splitsem.workflows.assemble import Network
from splitsem.workflows.job import Result

log = logging.getLogger(__name__)
_FIRST_OWN_CODEC = 128


def run(cfg: DictConfig, folder: Path) -> Result:
    """Serve the configured network, any split point and codec of it, until SIGTERM or SIGINT; then drain."""
    transport = remote_transport(cfg)
    engine = engine_for(cfg, assemble.network(cfg), cfg.workflow.micro_batch)
    num_frames = serve(transport.server_end(engine), engine, folder, cfg.workflow.grace_s)
    return Result({"frames_answered": num_frames}, {}, [], f"Stopped; {num_frames} frames answered")


def serve(server: TailServer, engine: TailEngine, folder: Path, grace_s: float) -> int:
    """Start, say where, wait for a signal, drain; returns the number of answered frames.

    The bound address is also in ``folder/address.txt``, for whoever started this with port 0.
    """
    stopped = threading.Event()
    handlers = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        address = server.start()
        (folder / "address.txt").write_text(address + "\n")
        log.info("Serving %d split points on %s (device %s)", len(engine.graph.points), address, engine.device)
        stopped.wait()
        log.info("Stopping: answering what was received, for %.0f s at most", grace_s)
        server.stop(grace_s)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return engine.num_answered


def remote_transport(cfg: DictConfig) -> RemoteTransport:
    """The configured transport. Raises ConfigError when it does not reach another process."""
    transport = instantiate(cfg.transport)
    if not isinstance(transport, RemoteTransport):
        raise ConfigError(f"{cfg.workflow['_target_']} needs a real link: transport=grpc or transport=udp")
    return transport


def engine_for(cfg: DictConfig, network: Network, micro_batch: int = 1) -> TailEngine:
    """The configured network as a TailEngine; the configured codec is read too when it is not a built-in one.

    A learned codec belongs to one cut: the one that ``split.point`` names here, too.
    """
    point = assemble.chosen_point(cfg, network.graph) if codecs.is_learned(cfg) else network.graph.points[0]
    codec = codecs.codec(cfg, network, point)
    own = [codec] if getattr(codec, "codec_id", 0) >= _FIRST_OWN_CODEC else []
    return TailEngine(
        network.graph,
        weights_digest(network.model),
        cfg.split.granularity,
        network.device.precision,
        codecs=own,
        micro_batch=micro_batch,
    )
