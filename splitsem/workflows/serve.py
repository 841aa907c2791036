"""Workflow serve: the server of a split network; answers workflow=offload, or trains with workflow=split_train."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from prometheus_client import start_http_server

from splitsem.errors import ConfigError
from splitsem.remote.engine import TailServer
from splitsem.remote.forwarding_engine import ForwardingEngine
from splitsem.remote.grpc.transport import Grpc
from splitsem.remote.labels import weights_digest
from splitsem.remote.server_metrics import ServerMetrics
from splitsem.remote.serving import Server, signalled
from splitsem.remote.tail_engine import TailEngine
from splitsem.remote.training_engine import TrainingEngine
from splitsem.remote.training_tail import TrainingTransport
from splitsem.remote.transports import RemoteTransport
from splitsem.tasks.answer import AnswerCoder
from splitsem.tasks.task import Task
from splitsem.workflows import assemble, assemble_codec
from splitsem.workflows.assemble import Network
from splitsem.workflows.codec_offers import offers
from splitsem.workflows.codec_options import is_for_one_cut
from splitsem.workflows.result import Result
from splitsem_device.grpc.connection import check_free, host_port, is_loopback

log = logging.getLogger(__name__)


def run(cfg: DictConfig, folder: Path, announce: Callable[[str], None] | None = None) -> Result:
    """Serve the configured network, any split point and codec of it, until SIGTERM or SIGINT; then drain.

    With ``workflow.training`` the network is as training finds it: this end neither trains alone nor needs the data.
    ``announce`` is told the bound address.
    """
    transport = remote_transport(cfg)
    if transport.start.how is not None:
        raise ConfigError("transport.start is the edge's (workflow=offload); a server is started without")
    transport.check_server()
    if cfg.workflow.forward is not None:
        next_machine(cfg).check_edge()
        log.info("In a chain: what crosses at further cuts goes on to %s", cfg.workflow.forward)
    if cfg.workflow.metrics_bind is not None:
        check_free(cfg.workflow.metrics_bind)
    if cfg.workflow.training:
        trainable = training_transport(cfg)
        training = _training_engine_for(cfg)
        engine = training.engine
        server = trainable.server_end(engine, training)
    else:
        coders = answer_coders(cfg, instantiate(cfg.task))  # before training, so that a missing one is told first
        engine = engine_for(cfg, assemble.network(cfg), cfg.workflow.micro_batch, coders)
        server = transport.server_end(engine)
    if cfg.workflow.metrics_bind is not None:
        address = show_metrics(engine.metrics, cfg.workflow.metrics_bind, cfg.workflow.metrics_insecure)
        (folder / "metrics_address.txt").write_text(address + "\n")
        log.info("Metrics on http://%s/metrics", address)
    num_frames = serve(server, engine, folder, cfg.workflow.grace_s, announce)
    return Result({"frames_answered": num_frames}, {}, [], f"Stopped; {num_frames} frames answered")


def serve(
    end: TailServer,
    engine: TailEngine,
    folder: Path,
    grace_s: float,
    announce: Callable[[str], None] | None = None,
) -> int:
    """Start, say where, wait for a signal, drain; returns the number of answered frames.

    The bound address is also in ``folder/address.txt``, for whoever started this with port 0.
    """
    with signalled() as stopped, Server(engine, end, grace_s) as server:
        (folder / "address.txt").write_text(server.address + "\n")
        if announce is not None:
            announce(server.address)
        log.info("Serving %d split points on %s (device %s)", len(engine.point_names), server.address, engine.place)
        stopped.wait()
        log.info("Stopping: answering what was received, for %.0f s at most", grace_s)
    return engine.num_answered


def show_metrics(metrics: ServerMetrics, bind: str, is_insecure: bool = False) -> str:
    """Show the metrics on ``http://bind/metrics``, in the clear and to anybody; the address that was bound.

    Args:
        metrics: what to show.
        bind: ``host:port``; port 0 takes a free one.
        is_insecure: allow an address beyond this machine.

    Raises:
        ConfigError: a public address without ``is_insecure``, one that is taken, or none at all.
    """
    try:
        host, port = host_port(bind)
    except ValueError as exc:
        raise ConfigError(f"workflow.metrics_bind: {exc}") from exc
    if not is_insecure and not is_loopback(host):
        remedy = "bind 127.0.0.1, or give workflow.metrics_insecure=true"
        raise ConfigError(f"refusing to show metrics on {host} in the clear: {remedy}")
    try:
        server, _ = start_http_server(port, host.strip("[]"), metrics.registry)
    except OSError as exc:
        raise ConfigError(f"cannot show metrics on {bind}: {exc.strerror}") from exc
    return f"{host}:{server.server_port}"


def next_machine(cfg: DictConfig) -> Grpc:
    """The way to the next machine of a chain, ``workflow.forward``. Raises ConfigError where none can be."""
    name = f"workflow.forward={cfg.workflow.forward}"
    if cfg.workflow.training:
        raise ConfigError(f"{name} is for a chain that answers; workflow.training=true trains between two machines")
    try:
        transport = instantiate(cfg.transport, target=cfg.workflow.forward)
    except InstantiationException as exc:
        raise ConfigError(f"{name}: {exc.__cause__ or exc}") from exc
    if not isinstance(transport, Grpc):
        raise ConfigError(f"{name} needs transport=grpc, which loses no frame between machines")
    return transport


def remote_transport(cfg: DictConfig) -> RemoteTransport:
    """The configured transport. Raises ConfigError when it does not reach another process."""
    transport = instantiate(cfg.transport)
    if not isinstance(transport, RemoteTransport):
        raise ConfigError(f"{cfg.workflow['_target_']} needs a real link: transport=grpc or transport=udp")
    return transport


def training_transport(cfg: DictConfig) -> TrainingTransport:
    """The configured transport. Raises ConfigError when it does not carry split training."""
    transport = instantiate(cfg.transport)
    if not isinstance(transport, TrainingTransport):
        raise ConfigError("split training needs transport=grpc")
    return transport


def _training_engine_for(cfg: DictConfig) -> TrainingEngine:
    """Trains copies of the tails of the network before any training, for edges that ask."""
    network = assemble.initial_network(cfg)
    engine = engine_for(cfg, network, cfg.workflow.micro_batch)
    limits = instantiate(cfg.workflow.training_limits)
    start = cfg.trainer.weights or f"its initial weights (seed {cfg.seed})"
    log.info("Training for up to %d edges (workflow=split_train), from %s", limits.max_trainers, start)
    return TrainingEngine(engine, assemble.training_graph(network), network.task, limits)


def answer_coders(cfg: DictConfig, task: Task) -> list[AnswerCoder]:
    """The coder of the task's answers, unless ``answer.raw``. Raises ConfigError where the task has none."""
    return [] if cfg.answer.raw else [task.answer_coder()]


def engine_for(
    cfg: DictConfig, network: Network, micro_batch: int = 1, coders: Sequence[AnswerCoder] = ()
) -> TailEngine:
    """The configured network as a TailEngine; it reads the built-in codecs and the configured one.

    With ``workflow.forward`` it computes up to a plan's next cut, and the machine there does the rest.

    It answers with ``coders``, or with all of the output, as the edge's plan says. A codec that is built for one cut is
    built for the one that ``split.point`` names here, too.
    """
    is_of_a_point = is_for_one_cut(cfg.codec["_target_"])
    point = assemble.chosen_point(cfg, network.graph) if is_of_a_point else network.graph.points[0]
    own = [assemble_codec.codec(cfg, network, point)]
    facts: dict[str, Any] = {
        "granularity": cfg.split.granularity,
        "precision": network.placement.precision,
        "codecs": own,
        "coders": coders,
        "micro_batch": micro_batch,
    }
    weights = weights_digest(network.model)
    if cfg.workflow.get("forward") is None:
        return TailEngine(network.graph, weights, **facts)
    encoders = {offer.label: offer.make() for offer in offers(cfg.workflow.codecs)}
    return ForwardingEngine(network.graph, weights, next_end=next_machine(cfg).edge_end, encoders=encoders, **facts)
