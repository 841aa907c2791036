"""Split-federated training: builds the clients, the server of their heads and the server of the tail, and runs."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from splitsem.codecs.codec import Codec
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ConfigError, SplitSemError
from splitsem.federated.client_app import UpdateMod, make_client_app
from splitsem.federated.flower import ClientApp, FedProx, Strategy
from splitsem.federated.in_process import InProcessGrid
from splitsem.federated.round_report import Row, run_metrics
from splitsem.federated.server_app import Server
from splitsem.federated.site import SplitSite, TailGroup
from splitsem.federated.state import Layout, State
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Frames, Pipeline
from splitsem.remote.training_engine import TrainingEngine, TrainingLimits
from splitsem.remote.training_tail import LocalTrainingTail, TrainingTail, TrainingTransport
from splitsem.report.federated_figures import score_by_round, score_by_uplink
from splitsem.scoring import score
from splitsem.splitting.trainable import TrainableCut
from splitsem.training import kept_weights
from splitsem.training.fit import Fit
from splitsem.workflows import assemble, assemble_codec, evaluation
from splitsem.workflows.assemble import Network
from splitsem.workflows.codec_options import check_not_learned
from splitsem.workflows.federated.assembly import check_codecs, divide, make_guard, make_strategy
from splitsem.workflows.federated.rounds import run_rounds, shown
from splitsem.workflows.result import Metrics, Result
from splitsem.workflows.serve import engine_for, training_transport
from splitsem.workflows.show_domains import who_has_what
from splitsem.workflows.split_train import training_plan

log = logging.getLogger(__name__)
_GRACE_S = 1.0


def checked_transport(cfg: DictConfig) -> TrainingTransport | None:
    """The configured transport; None for training in this process.

    Raises ConfigError for a transport that carries no training, and for ``workflow.own_server`` without a transport.
    """
    if OmegaConf.select(cfg, "transport") is None:
        if cfg.workflow.own_server:
            raise ConfigError("workflow.own_server needs a transport that reaches it: transport=grpc")
        return None
    transport = training_transport(cfg)
    if transport.start.how is not None:
        raise ConfigError("transport.start is for workflow=offload; start the training server by hand")
    return transport


@contextlib.contextmanager
def reach(cfg: DictConfig, make_engine: Callable[[], TrainingEngine]) -> Iterator[Callable[[], TrainingTail]]:
    """What makes clients' ends of training with the tail; a server that is started here ends with the context.

    Without a transport, this process answers the messages itself.
    ``workflow.own_server`` starts a server on a free port of 127.0.0.1 and reaches it over the configured transport.

    Args:
        cfg: the configuration.
        make_engine: makes the engine of a server in this process.

    Raises:
        ConfigError: see ``checked_transport``.
    """
    transport = checked_transport(cfg)
    if transport is None:
        engine = make_engine()
        yield lambda: LocalTrainingTail(engine)
        return
    if not cfg.workflow.own_server:
        yield transport.training_end
        return
    training = make_engine()
    server = instantiate(cfg.transport, bind="127.0.0.1:0").server_end(training.engine, training)
    address = server.start()
    log.info("The tail learns on a server of this process, %s", address)
    try:
        yield instantiate(cfg.transport, target=address).training_end
    finally:
        server.stop(_GRACE_S)


_TAILS = {"averaged": True, "in_turn": False}
_BATCH_SIZE = 256  # batch size of scoring


@dataclass
class SplitEnds:
    """All ends of one configuration, with one network instance.

    Attributes:
        network: the whole network, whose head the clients train in turn.
        site: what clients train with.
        client_app: the app of every client.
        server: the server of the heads; the end of its round also ends a round of the common tail.
        pipeline: scores the network as it will be used, with the codec's bytes between the halves.
        labels: labels of the training split; None where its samples have none.
    """

    network: Network
    site: SplitSite
    client_app: ClientApp
    server: Server
    pipeline: Pipeline
    labels: NDArray[np.int64] | None

    def end_round(self, heads: State) -> Row:
        """Give the network the clients' mean head and the common tail; returns the network's ``val_score``."""
        model = self.network.model
        model.load_state_dict({**model.state_dict(), **heads, **self.site.group.end_round()})
        batches = assemble.batches(self.network.task.splits().val, self.network.placement, _BATCH_SIZE, None)
        return {"val_score": score(self.run, self.network.task, batches)["score"]}

    def run(self, x: Tensor) -> Tensor:
        """Outputs with the codec's bytes between the halves, a payload a sample."""
        return self.pipeline.run(x, Frames())


@contextlib.contextmanager
def open_ends(cfg: DictConfig) -> Iterator[SplitEnds]:
    """Build and check all ends before training; the tail's server can be reached while the context is open.

    Raises ConfigError, SplitPointError, and LinkError when the tail's server cannot be reached.
    """
    strategy, fit = _checked(cfg)
    network = assemble.initial_network(cfg)
    training = assemble.training_graph(network)
    cut = TrainableCut(network.graph, training, assemble.chosen_point(cfg, network.graph).name)
    if not cut.head_learns:
        raise ConfigError(f"split.point={cut.point.name} leaves the clients nothing to train: take a later point")
    partition = instantiate(cfg.federated.partition, _convert_="all")
    labels, parts = divide(partition, network.task, cfg.federated.num_clients)
    codec = assemble_codec.codec(cfg, network, cut.evaluation.point)
    plan = training_plan(cfg, network, cut, training.fingerprint, codec, max(fit.local_steps(len(p)) for p in parts))

    def make_engine() -> TrainingEngine:
        tails = engine_for(cfg, network)
        return TrainingEngine(tails, training, network.task, TrainingLimits())

    with reach(cfg, make_engine) as make_tail:
        group = TailGroup(make_tail, plan, _TAILS[cfg.federated.tail])
        group.check()
        layout = Layout(network.model, only=frozenset(cut.head.state()))
        device = network.placement.torch_device
        site = SplitSite(
            network.task, network.model, layout, fit, parts, device, cfg.seed, cut=cut, codec=codec, group=group
        )
        try:
            yield _ends(cfg, network, site, strategy, labels)
        finally:
            with contextlib.suppress(SplitSemError):  # the server forgets the tail by itself
                group.disband()


def _checked(cfg: DictConfig) -> tuple[Strategy, Fit]:
    """Strategy of the heads and training of a client. Raises ConfigError for settings that do not suit."""
    if cfg.federated.tail not in _TAILS:
        raise ConfigError(f"federated.tail must be one of {', '.join(_TAILS)}, got {cfg.federated.tail}")
    strategy = make_strategy(cfg)
    if isinstance(strategy, FedProx):
        raise ConfigError("federated/strategy=fedprox pulls whole networks, and a client has a head only: take fedavg")
    check_not_learned(cfg)
    checked_transport(cfg)
    fit: Fit = instantiate(assemble.trainer_settings(cfg))
    if fit.gradient_codec is not None:
        raise ConfigError("trainer.gradient_codec is workflow=train's; here: codec@workflow.gradient_codec=")
    if fit.max_epochs < 1:
        raise ConfigError(f"federated.local_epochs must be at least 1, got {fit.max_epochs}")
    return strategy, fit


def _ends(
    cfg: DictConfig, network: Network, site: SplitSite, strategy: Strategy, labels: NDArray[np.int64] | None
) -> SplitEnds:
    settings, layout = cfg.federated, site.layout
    head_codec: Codec = instantiate(settings.head_codec)
    initial = layout.of(network.model)
    check_codecs(layout, initial, head_codec)
    downlink = None if isinstance(head_codec, Identity) else head_codec
    mod = UpdateMod(layout, lambda rate: head_codec, downlink, settings.error_feedback)
    server = Server(
        strategy=strategy,
        layout=layout,
        initial=initial,
        make_codec=mod.make_codec,
        score=lambda heads: ends.end_round(heads),
        num_rounds=settings.rounds,
        seed=cfg.seed,
        downlink=downlink,
        min_clients=settings.min_clients,
        timeout_s=settings.client_timeout_s,
        guard=make_guard(cfg, layout, site.parts),
    )
    link = SimulatedLink(bandwidth_bps=1e15, rtt_s=0.0, energy_j_per_bit=0.0)
    decoder = assemble_codec.codec(cfg, network, site.cut.evaluation.point)
    pipeline = Pipeline(site.cut.evaluation, site.codec, decoder, link)
    ends = SplitEnds(network, site, make_client_app(site, [mod]), server, pipeline, labels)
    return ends


def run(cfg: DictConfig, folder: Path) -> Result:
    """See ``run_splitfed`` in workflow.py."""
    num_clients = cfg.federated.num_clients
    with open_ends(cfg) as ends, shown(ends.server):
        train_s = run_rounds(ends.server, InProcessGrid(ends.client_app, num_clients))
    rows, site = ends.server.rows, ends.site
    path = folder / "weights.safetensors"
    kept_weights.save(ends.network.model, path, rows, train_s)
    metrics = _scores(cfg, ends) | run_metrics(rows, site.layout.raw_bytes)
    metrics |= {"num_clients": num_clients, "train_total_s": train_s} | _labels(cfg)
    metrics |= {"split_point": site.cut.point.name, "split_index": site.cut.evaluation.point.index}
    headline = (
        f"{metrics['strategy']}, {metrics['split_point']}, {metrics['codec']}: test score {metrics['score']:.4f} after "
        f"{metrics['rounds']} rounds of {num_clients} clients; {metrics['uplink_bytes']:,.0f} bytes up a client and "
        f"round ({metrics['head_uplink_bytes']:,.0f} of them the head), {metrics['downlink_bytes']:,.0f} down; "
        f"weights: {path}"
    )
    figures = {"score_by_round": score_by_round(rows, metrics), "score_by_uplink": score_by_uplink(rows, metrics)}
    figures |= who_has_what(ends.network.task, ends.labels, site.parts, f"{metrics['partition']} · train")
    return Result(metrics, figures, rows, headline)


def _scores(cfg: DictConfig, ends: SplitEnds) -> Metrics:
    """Scores with the codec's bytes between the halves, and unsplit."""
    of_split = partial(evaluation.batches, cfg, ends.network)
    scores = evaluation.scores(ends.run, ends.network.task, of_split)
    return scores | {"score_unsplit": score(ends.network.run, ends.network.task, of_split("test"))["score"]}


def _labels(cfg: DictConfig) -> Metrics:
    choices = HydraConfig.get().runtime.choices
    strategy = choices["federated/strategy"]
    names = {group: choices[group] for group in ("task", "model", "codec")}
    names["strategy"] = f"splitfed {cfg.federated.tail}" + (f" {strategy}" if strategy != "fedavg" else "")
    names["partition"] = choices["partition@federated.partition"]
    names["downlink_codec"] = choices["codec@workflow.gradient_codec"]
    names["head_codec"] = choices["codec@federated.head_codec"]
    return names | {"transport": choices["transport"] or "none"}
