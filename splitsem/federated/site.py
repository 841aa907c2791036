"""Where federated clients train: Site has the whole network, SplitSite the head, with the tail on another server."""

import contextlib
import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader, Subset

from splitsem import trees
from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError
from splitsem.federated.state import Layout, State
from splitsem.remote.head_trainer import HeadTrainer
from splitsem.remote.training_plan import TrainingPlan
from splitsem.remote.training_tail import TrainingTail
from splitsem.splitting.trainable import TrainableCut
from splitsem.tasks.task import Task
from splitsem.training.fit import Fit


class Trained(NamedTuple):
    """A client's work in one round.

    Attributes:
        state: the network's tensors that travel.
        num_examples: number of samples that the network was trained on.
        train_loss: mean loss of the last epoch.
        train_s: seconds of training.
        steps: bytes exchanged with the tail's server, see ``STEP_MEASURES``; empty where the whole network is here.
    """

    state: State
    num_examples: int
    train_loss: float
    train_s: float
    steps: Mapping[str, float] = MappingProxyType({})


def falling_share(server_round: int, num_rounds: int, last: float) -> float:
    """Share of the learning rate in a round: 1 in the first, ``last`` in the last, half a cosine between them.

    On uneven data FedAvg stays away from the optimum unless its local steps shrink (Li et al., ICLR 2020, arXiv
    1907.02189).

    >>> [round(falling_share(r, 5, 0.1), 3) for r in (1, 2, 3, 4, 5)]
    [1.0, 0.868, 0.55, 0.232, 0.1]
    """
    done = (server_round - 1) / max(num_rounds - 1, 1)
    return last + (1 - last) * (1 + math.cos(math.pi * min(done, 1))) / 2


@dataclass
class Site:
    """What all clients of a process train with: one network instance, and each client's samples.

    Args:
        task: gives samples, loss and score.
        model: the one network instance; its weights are overwritten for each client.
        layout: layout of the network.
        fit: how a client trains; ``max_epochs`` are the local epochs.
        parts: indices into the training split, one array a client.
        device: torch's device for the training.
        seed: seed of the run.
        learning_rate_share: share of ``fit.learning_rate``, by round.
        make_optimizer: makes an optimiser from a client's weights and ``lr``.
    """

    task: Task
    model: nn.Module
    layout: Layout
    fit: Fit
    parts: Sequence[NDArray[np.int64]]
    device: torch.device
    seed: int
    learning_rate_share: Callable[[int], float] = lambda server_round: 1.0
    make_optimizer: Callable[..., Optimizer] = AdamW

    def __post_init__(self) -> None:
        self._first_own = self.own()

    def train(self, state: State, own: State, client: int, server_round: int, proximal_mu: float) -> Trained:
        """Train ``state`` on a client's samples.

        Args:
            state: the network as received.
            own: this client's tensors that do not travel; empty before the client's first training.
            client: number of the client, from 0.
            server_round: decides, with ``seed`` and ``client``, the order of samples and dropout.
            proximal_mu: FedProx's μ.
        """
        self._load(state, own)
        samples = Subset(self.task.splits().train, self._part(client).tolist())
        seed = self._seed(client, server_round)
        began = time.perf_counter()
        share = self.learning_rate_share(server_round)
        loss = self.fit.run_local(
            self.model, self.task, samples, self.device, seed, self.make_optimizer, share, proximal_mu
        )
        return Trained(self.layout.of(self.model), len(samples), loss, time.perf_counter() - began)

    def own(self) -> State:
        """The tensors of the network that do not travel, as the last training left them."""
        state = self.model.state_dict()
        return {name: state[name].detach().to("cpu", copy=True) for name in sorted(self.layout.own)}

    @torch.no_grad()
    def evaluate(self, state: State, own: State, client: int) -> tuple[float, int]:
        """Mean loss of a network on a client's samples, and the number of these samples."""
        self._load(state, own)
        self.model.to(self.device).eval()
        samples = Subset(self.task.splits().train, self._part(client).tolist())
        total = 0.0
        for batch in DataLoader(samples, batch_size=self.fit.batch_size):
            x, y = trees.mapped(lambda tensor: tensor.to(self.device), tuple(batch))
            total += float(self.task.loss(trees.call(self.model, x), y)) * trees.num_samples(x)
        return total / len(samples), len(samples)

    def _load(self, state: State, own: State) -> None:
        self.model.load_state_dict({**state, **(own or self._first_own)})

    def _seed(self, client: int, server_round: int) -> int:
        """The seed of the order of samples and of dropout."""
        return int(np.random.SeedSequence([self.seed, server_round, client]).generate_state(1)[0])

    def _part(self, client: int) -> NDArray[np.int64]:
        if not 0 <= client < len(self.parts):
            raise ConfigError(f"partition-id must be 0…{len(self.parts) - 1} (federated.num_clients), got {client}")
        return self.parts[client]


class TailGroup:
    """A group of clients with one common tail on a server, under a group name that no other run has.

    Args:
        make_tail: makes an end that reaches the tail's server; called anew for each session.
        plan: what all clients agree on; seed, number of samples and number of steps are each client's own.
        is_averaged: whether the clients' tails are averaged after each round, see ``CommonTail``.
    """

    def __init__(self, make_tail: Callable[[], TrainingTail], plan: TrainingPlan, is_averaged: bool) -> None:
        self.make_tail = make_tail
        self.plan = replace(plan, group=uuid.uuid4().hex, is_averaged=is_averaged, num_samples=0, constant_rate=True)

    def plan_of(self, seed: int, num_samples: int, total_steps: int) -> TrainingPlan:
        """The plan of one client in one round."""
        return replace(self.plan, seed=seed, num_samples=num_samples, total_steps=total_steps)

    def check(self) -> None:
        """Reach the server and agree on the plan, so that a mismatch is told once. Raises as ``TrainingTail`` does."""
        with self._session():
            pass

    def end_round(self) -> State:
        """Have the server make the common tail from the clients' tails; returns its weights by the model's names."""
        with self._session() as tail:
            tail.end_round()
            return tail.weights()

    def disband(self) -> None:
        """Let the server forget the tail."""
        with self._session() as tail:
            tail.disband()

    @contextlib.contextmanager
    def _session(self) -> Iterator[TrainingTail]:
        tail = self.make_tail()
        try:
            tail.open(self.plan)
            yield tail
        finally:
            tail.close()


@dataclass(kw_only=True)
class SplitSite(Site):
    """A ``Site`` whose clients have only the head of ``model``, and keep their samples; ``layout`` is the head's.

    A client trains its head against a copy of the common tail, and hands the copy in after its last step: a client that
    dies before that leaves no trace in head or tail.

    Args:
        cut: head and tail of ``model``.
        codec: encodes the features.
        group: the group through which a client reaches the tail.
    """

    cut: TrainableCut
    codec: Codec
    group: TailGroup

    def train(self, state: State, own: State, client: int, server_round: int, proximal_mu: float) -> Trained:
        """Train the head ``state`` on a client's samples; see ``Site.train``. ``proximal_mu`` must be 0."""
        from splitsem.remote.split_module import train_local_split  # imports Lightning

        if proximal_mu:
            raise ValueError(f"proximal_mu must be 0 where the tail is out of reach, got {proximal_mu}")
        self._load(state, own)
        self.model.zero_grad(set_to_none=True)  # gradients of a client that died before its step
        samples = Subset(self.task.splits().train, self._part(client).tolist())
        seed, num_samples = self._seed(client, server_round), len(samples)
        plan = self.group.plan_of(seed, num_samples, self.fit.local_steps(num_samples))
        tail = self.group.make_tail()
        began = time.perf_counter()
        try:
            trainer = HeadTrainer(self.model, self.cut, self.codec, tail, plan)
            loss = train_local_split(self.fit, trainer, samples, seed)
            tail.commit()
        finally:
            tail.close()
        traffic = tail.traffic
        steps = {
            "steps-uplink-bytes": traffic.uplink_bytes,
            "steps-downlink-bytes": traffic.downlink_bytes,
            "steps-label-bytes": traffic.label_bytes,
            "steps-raw-bytes": traffic.raw_bytes + traffic.label_bytes,
        }
        return Trained(self.layout.of(self.model), num_samples, loss, time.perf_counter() - began, steps)

    def _load(self, state: State, own: State) -> None:
        """Load the head; the tail of ``model`` stays as it was last installed."""
        self.model.load_state_dict({**self.model.state_dict(), **state, **(own or self._first_own)})


@torch.no_grad()
def estimate_statistics(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> None:
    """Give normalisation layers the mean statistics of ``batches`` (x, y); nothing else of the network changes."""
    layers = [module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
        layer.train()
    for x, _ in batches:
        trees.call(model, x)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()
