"""From the configuration to split-federated training: the clients, the server of their heads, that of the tail."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch.utils.data import Dataset

from splitsem.codecs.codec import Codec
from splitsem.codecs.identity import Identity
from splitsem.errors import ConfigError, SplitSemError
from splitsem.federated.client_app import make_client_app
from splitsem.federated.flower import ClientApp, FedProx, Strategy
from splitsem.federated.report import Row
from splitsem.federated.server_app import Server
from splitsem.federated.split_site import SplitSite
from splitsem.federated.state import Layout, State
from splitsem.federated.tail_group import TailGroup
from splitsem.federated.update_mod import UpdateMod
from splitsem.lightning.fit import Fit
from splitsem.pipeline import Frames, Pipeline, score
from splitsem.split.trainable import TrainableCut
from splitsem.training.engine import TrainingEngine, TrainingLimits
from splitsem.transport.simulated import SimulatedLink
from splitsem.workflows import assemble
from splitsem.workflows.assemble import Network
from splitsem.workflows.codec_options import check_not_learned
from splitsem.workflows.federated.ends import check_codecs, divide, make_strategy
from splitsem.workflows.serve import engine_for
from splitsem.workflows.split_train import training_plan
from splitsem.workflows.tail_server import checked_transport, reach

_TAILS = {"averaged": True, "in_turn": False}
_BATCH_SIZE = 256  # of scoring


@dataclass
class SplitEnds:
    """All ends of one configuration, over one network instance.

    Attributes:
        network: the whole network; clients train its head, in turn.
        site: what clients train with.
        client_app: of every client.
        server: of the heads; its rounds also end those of the common tail.
        pipeline: scores the network as it will be used: with the codec's bytes between its halves.
        labels: of the training split; None where its samples have none.
    """

    network: Network
    site: SplitSite
    client_app: ClientApp
    server: Server
    pipeline: Pipeline
    labels: NDArray[np.int64] | None

    def end_round(self, heads: State) -> Row:
        """Give the network the clients' mean head and the common tail; ``val_score`` of it."""
        model = self.network.model
        model.load_state_dict({**model.state_dict(), **heads, **self.site.group.end_round()})
        return {"val_score": self.score(self.network.task.splits().val)["score"]}

    def score(self, samples: Dataset, num_samples: int | None = None) -> Row:
        """The task's metrics with the codec's bytes between the halves, a payload a sample."""
        frames = Frames()
        batches = assemble.batches(samples, self.network.device, _BATCH_SIZE, num_samples)
        return score(lambda x: self.pipeline.run(x, frames), self.network.task, batches)


@contextlib.contextmanager
def open_ends(cfg: DictConfig) -> Iterator[SplitEnds]:
    """Everything, checked as far as that shows before training; the tail's server can be reached while this is open.

    Raises ConfigError, SplitPointError, and LinkError when there is no server of the tail.
    """
    strategy, fit = _checked(cfg)
    network = assemble.initial_network(cfg)
    training = assemble.training_graph(network)
    cut = TrainableCut(network.graph, training, assemble.chosen_point(cfg, network.graph).name)
    if not cut.head_learns:
        raise ConfigError(f"split.point={cut.point.name} leaves the clients nothing to train: take a later point")
    partition = instantiate(cfg.federated.partition, _convert_="all")
    labels, parts = divide(partition, network.task, cfg.federated.num_clients)
    codec = instantiate(cfg.codec)
    plan = training_plan(cfg, network, cut, training.fingerprint, codec, max(fit.local_steps(len(p)) for p in parts))

    def make_engine() -> TrainingEngine:
        tails = engine_for(cfg, network)
        tails.training = TrainingEngine(tails, training, network.task, TrainingLimits())
        return tails.training

    with reach(cfg, make_engine) as make_tail:
        group = TailGroup(make_tail, plan, _TAILS[cfg.federated.tail])
        group.check()
        layout = Layout(network.model, only=frozenset(cut.head.state()))
        device = network.device.torch_device
        site = SplitSite(
            network.task, network.model, layout, fit, parts, device, cfg.seed, cut=cut, codec=codec, group=group
        )
        try:
            yield _ends(cfg, network, site, strategy, labels)
        finally:
            with contextlib.suppress(SplitSemError):  # it forgets the tail by itself
                group.disband()


def _checked(cfg: DictConfig) -> tuple[Strategy, Fit]:
    """Strategy of the heads and training of a client, where the settings suit. Raises ConfigError."""
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
    )
    link = SimulatedLink(bandwidth_bps=1e15, rtt_s=0.0, energy_j_per_bit=0.0)
    pipeline = Pipeline(site.cut.evaluation, site.codec, instantiate(cfg.codec), link)
    ends = SplitEnds(network, site, make_client_app(site, [mod]), server, pipeline, labels)
    return ends
