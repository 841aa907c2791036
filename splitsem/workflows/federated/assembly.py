"""Builds both ends of federated training from the configuration, for one process and for a deployment."""

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import get_object, instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader

from splitsem.codecs.codec import Codec
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ConfigError, SplitSemError
from splitsem.federated.client_app import MakeCodec, UpdateMod, make_client_app
from splitsem.federated.flower import ClientApp, Krum, MultiKrum, Strategy
from splitsem.federated.in_process import ClientLinks
from splitsem.federated.privacy import Privacy
from splitsem.federated.rate_controller import ChoosesRates, Rate, WarmUp
from splitsem.federated.round_report import Row
from splitsem.federated.server_app import Server
from splitsem.federated.site import Site, estimate_statistics, falling_share
from splitsem.federated.state import Layout, State
from splitsem.federated.update_guard import UpdateGuard
from splitsem.links.link import Link
from splitsem.placement import Placement
from splitsem.scoring import score
from splitsem.tasks.classification import domains_of, labels_of
from splitsem.tasks.partitions import ByDomain, Iid, Partition
from splitsem.tasks.task import Task
from splitsem.training.fit import Fit
from splitsem.trees import call, mapped
from splitsem.workflows import assemble
from splitsem.workflows.codec_options import is_for_one_cut

log = logging.getLogger(__name__)


@dataclass
class Ends:
    """Server and clients of one configuration, with one network instance.

    Attributes:
        task: what is learnt.
        model: the network instance that clients train and the server scores, in turn.
        placement: where torch runs the network.
        layout: layout of the network.
        site: what clients train with.
        client_app: the app of every client.
        server: the server, whose app runs the rounds.
        parts: each client's samples, as indices into the training split.
        labels: labels of the training split; None where its samples have none.
        connect_timeout_s: how long a deployment's server waits for its clients.
    """

    task: Task
    model: nn.Module
    placement: Placement
    layout: Layout
    site: Site
    client_app: ClientApp
    server: Server
    parts: Sequence[NDArray[np.int64]]
    labels: NDArray[np.int64] | None
    connect_timeout_s: float

    def install(self, state: State) -> nn.Module:
        """Give the network the global state; statistics that stay with the clients are estimated, see Layout."""
        self.model.load_state_dict(state, strict=not self.layout.own)
        if self.layout.own:
            estimate_statistics(self.model, self._val_batches())
        return self.model.eval()

    def val_score(self, state: State) -> Row:
        """``val_score`` of a global network."""
        return {"val_score": score(partial(call, self.install(state)), self.task, self._val_batches())["score"]}

    def _val_batches(self) -> Any:
        return (
            (mapped(self.placement.place_tensor, x), y) for x, y in DataLoader(self.task.splits().val, batch_size=256)
        )


def build(cfg: DictConfig) -> Ends:
    """Build both ends, and check all that can be checked before training. Raises ConfigError."""
    strategy = make_strategy(cfg)
    if is_for_one_cut(cfg.codec["_target_"]):
        raise ConfigError("codec: updates are coded by codecs that are not built for a cut, e.g. codec=quant8")
    task, model, device = assemble.initial_model(cfg)
    settings = cfg.federated
    layout = Layout(model, settings.statistics, block_values=settings.block_values)
    initial = layout.of(model)
    make_codec = _make_codec(cfg)
    downlink: Codec | None = instantiate(settings.downlink_codec)
    if isinstance(downlink, Identity):
        downlink = None
    check_codecs(layout, initial, make_codec(None), downlink)
    labels, parts = divide(instantiate(settings.partition, _convert_="all"), task, settings.num_clients)
    fit: Fit = instantiate(cfg.trainer)
    if fit.max_epochs < 1:
        raise ConfigError(f"federated.local_epochs must be at least 1, got {fit.max_epochs}")
    if not 0 <= settings.last_learning_rate <= 1:
        raise ConfigError(f"federated.last_learning_rate must be 0…1, got {settings.last_learning_rate}")
    share = partial(falling_share, num_rounds=settings.rounds, last=settings.last_learning_rate)
    optimizer = instantiate(settings.optimizer)
    site = Site(task, model, layout, fit, parts, device.torch_device, cfg.seed, share, optimizer)
    privacy = _privacy(cfg)
    if privacy is not None:
        has_feedback = settings.error_feedback and not isinstance(make_codec(None), Identity)
        strategy = privacy.around(strategy, layout, settings.min_clients, has_feedback)
    mod = UpdateMod(layout, make_codec, downlink, settings.error_feedback)
    ends = Ends(
        task,
        model,
        device,
        layout,
        site,
        make_client_app(site, [mod], privacy.mods if privacy else ()),
        parts=parts,
        labels=labels,
        connect_timeout_s=settings.connect_timeout_s,
        server=Server(
            strategy=strategy,
            layout=layout,
            initial=initial,
            make_codec=make_codec,
            score=lambda state: ends.val_score(state),
            num_rounds=settings.rounds,
            seed=cfg.seed,
            downlink=downlink,
            min_clients=settings.min_clients,
            timeout_s=settings.client_timeout_s,
            rates=_rates(cfg),
            links=_links(settings),
            privacy=privacy,
            guard=make_guard(cfg, layout, parts),
            resume=Path(settings.resume) if settings.resume else None,
        ),
    )
    return ends


def make_strategy(cfg: DictConfig) -> Strategy:
    """The configured strategy of Flower's. Raises ConfigError when the strategy needs more clients."""
    settings = cfg.federated
    num_clients, fraction, least = settings.num_clients, settings.fraction, settings.min_clients
    if not 0 < fraction <= 1:
        raise ConfigError(f"federated.fraction must be above 0 and at most 1, got {fraction}")
    if not 1 <= least <= num_clients:
        raise ConfigError(f"federated.min_clients must be 1…{num_clients} (federated.num_clients), got {least}")
    strategy: Strategy = instantiate(
        settings.strategy,
        fraction_train=fraction,
        fraction_evaluate=0.0,  # scored on the server
        min_train_nodes=least,
        min_evaluate_nodes=0,
        min_available_nodes=least,
        _convert_="all",
    )
    num_sampled = max(int(num_clients * fraction), least)
    if isinstance(strategy, Krum | MultiKrum) and num_sampled < 2 * strategy.num_malicious_nodes + 3:
        raise ConfigError(
            f"{type(strategy).__name__} with num_malicious_nodes={strategy.num_malicious_nodes} needs at least "
            f"{2 * strategy.num_malicious_nodes + 3} clients a round, got {num_sampled}"
        )
    return strategy


def make_guard(cfg: DictConfig, layout: Layout, parts: Sequence[NDArray[np.int64]]) -> UpdateGuard:
    """What says which updates may count. Raises ConfigError for settings out of range."""
    most = cfg.federated.max_examples
    try:
        if most is None:
            return UpdateGuard(layout, cfg.federated.max_norm_ratio, [len(part) for part in parts])
        return UpdateGuard(layout, cfg.federated.max_norm_ratio, max_examples=most)
    except ValueError as exc:
        raise ConfigError(f"federated.{exc}") from exc


def _privacy(cfg: DictConfig) -> Privacy | None:
    """The configured privacy; its noise is repeatable in one process, and the operating system's in a deployment."""
    settings = cfg.federated
    privacy: Privacy | None = instantiate(settings.privacy, seed=cfg.seed if settings.superlink is None else None)
    return privacy


def _make_codec(cfg: DictConfig) -> MakeCodec:
    """Makes the configured codec at a rate, as far as the codec's constructor has such settings."""
    known = inspect.signature(get_object(cfg.codec["_target_"])).parameters
    if cfg.federated.rate_controller is not None and not {"bit_width", "keep_ratio"} & set(known):
        raise ConfigError(
            f"federated.rate_controller changes bit_width and keep_ratio, which {cfg.codec['_target_']} has not: "
            "take codec=quant8 or codec=topk_quant"
        )

    @cache
    def make(rate: Rate | None) -> Codec:
        changes = rate._asdict() if rate else {}
        named = {name: value for name, value in changes.items() if name in known}
        codec: Codec = instantiate(cfg.codec, **named, _convert_="all")
        return codec

    return make


def _rates(cfg: DictConfig) -> ChoosesRates | None:
    """What chooses the clients' rates, if anything does. Raises ConfigError when two settings would choose."""
    settings = cfg.federated
    if not (settings.warm_up_rounds and "keep_ratio" in cfg.codec):
        controller: ChoosesRates | None = instantiate(settings.rate_controller)
        return controller
    if settings.rate_controller is not None:
        raise ConfigError("federated.warm_up_rounds and federated.rate_controller both choose keep_ratio: take one")
    return WarmUp(cfg.codec.keep_ratio, cfg.codec.bit_width, settings.warm_up_rounds)


def _links(settings: DictConfig) -> ClientLinks | None:
    """A link for each client, if one is configured; a link with a seed differs from client to client."""
    if settings.link is None:
        return None
    has_seed = "seed" in settings.link

    def make(node: int) -> Link:
        link: Link = instantiate(settings.link, **({"seed": settings.link.seed + node} if has_seed else {}))
        return link

    return ClientLinks(make)


def check_codecs(layout: Layout, initial: State, *codecs: Codec | None) -> None:
    """Raise ConfigError unless each codec can carry this network's tensors, as a trial shows."""
    for codec in filter(None, codecs):
        try:
            layout.decode(codec, layout.encode(codec, layout.join(initial)))
        except (ValueError, SplitSemError) as exc:
            raise ConfigError(f"{type(codec).__name__} cannot carry this network's updates: {exc}") from exc


def divide(
    partition: Partition, task: Task, num_clients: int
) -> tuple[NDArray[np.int64] | None, list[NDArray[np.int64]]]:
    """The labels of the training split, where there are any, and each client's samples of that split.

    Raises ConfigError where the samples lack the labels or domains that ``partition`` divides by.
    """
    train = task.splits().train
    if isinstance(partition, ByDomain):
        return labels_of(train), partition.split(domains_of(train), num_clients)
    try:
        labels = labels_of(train)
    except ConfigError:
        if not isinstance(partition, Iid):
            raise
        unlabelled = np.zeros(len(train), np.int64)  # type: ignore[arg-type]
        return None, partition.split(unlabelled, num_clients)
    return labels, partition.split(labels, num_clients)
