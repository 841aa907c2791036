"""Site: what a client trains with — one network instance for all clients of a process, and each one's samples."""

import contextlib
import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader, Subset

from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError
from splitsem.federated.state import Layout, State
from splitsem.remote.head_trainer import HeadTrainer
from splitsem.remote.plan import TrainingPlan
from splitsem.remote.training_tail import TrainingTail
from splitsem.split.trainable import TrainableCut
from splitsem.tasks.task import Task
from splitsem.training.fit import Fit


class Trained(NamedTuple):
    """A client's work in one round.

    Attributes:
        state: the network's tensors that travel.
        num_examples: samples it was trained on.
        train_loss: mean loss of the last epoch.
        train_s: seconds it took.
        steps: what was exchanged with another server meanwhile, see ``STEP_MEASURES``; empty where there is none.
    """

    state: State
    num_examples: int
    train_loss: float
    train_s: float
    steps: Mapping[str, float] = MappingProxyType({})


def falling_share(server_round: int, num_rounds: int, last: float) -> float:
    """Share of the learning rate in a round: 1 in the first, ``last`` in the last, half a cosine between them.

    On uneven data FedAvg's local steps keep it away from the optimum unless they shrink (Li et al., ICLR 2020, arXiv
    1907.02189).

    >>> [round(falling_share(r, 5, 0.1), 3) for r in (1, 2, 3, 4, 5)]
    [1.0, 0.868, 0.55, 0.232, 0.1]
    """
    done = (server_round - 1) / max(num_rounds - 1, 1)
    return last + (1 - last) * (1 + math.cos(math.pi * min(done, 1))) / 2


@dataclass
class Site:
    """The same for all clients of a process.

    Args:
        task: gives samples, loss and score.
        model: the one network instance; its weights are overwritten for each client.
        layout: of the network.
        fit: how a client trains; ``max_epochs`` are the local epochs.
        parts: indices into the training split, one array a client.
        device: where to train.
        seed: of the run.
        learning_rate_share: of ``fit.learning_rate``, by round.
        make_optimizer: of a client's weights, and ``lr``.
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
            own: its tensors that do not travel, as this client has them; empty for a client that has none yet.
            client: number of the client, from 0.
            server_round: counts with ``seed`` and ``client`` for the order of samples and for dropout.
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
        """Mean loss of a network on a client's samples, and how many they are."""
        self._load(state, own)
        self.model.to(self.device).eval()
        samples = Subset(self.task.splits().train, self._part(client).tolist())
        total = 0.0
        for x, y in DataLoader(samples, batch_size=self.fit.batch_size):
            total += float(self.task.loss(self.model(x.to(self.device)), y.to(self.device))) * len(x)
        return total / len(samples), len(samples)

    def _load(self, state: State, own: State) -> None:
        self.model.load_state_dict({**state, **(own or self._first_own)})

    def _seed(self, client: int, server_round: int) -> int:
        """Of the order of samples and of dropout."""
        return int(np.random.SeedSequence([self.seed, server_round, client]).generate_state(1)[0])

    def _part(self, client: int) -> NDArray[np.int64]:
        if not 0 <= client < len(self.parts):
            raise ConfigError(f"partition-id must be 0…{len(self.parts) - 1} (federated.num_clients), got {client}")
        return self.parts[client]


class TailGroup:
    """One group of clients, under a name that no other run has.

    Args:
        make_tail: an end that reaches the server of the tail; called anew for each session.
        plan: what all agree on; seed, samples and steps are each client's own.
        is_averaged: whether the clients' tails are averaged after each round, see ``CommonTail``.
    """

    def __init__(self, make_tail: Callable[[], TrainingTail], plan: TrainingPlan, is_averaged: bool) -> None:
        self.make_tail = make_tail
        self.plan = replace(plan, group=uuid.uuid4().hex, is_averaged=is_averaged, num_samples=0, constant_rate=True)

    def plan_of(self, seed: int, num_samples: int, total_steps: int) -> TrainingPlan:
        """The plan of one client in one round."""
        return replace(self.plan, seed=seed, num_samples=num_samples, total_steps=total_steps)

    def check(self) -> None:
        """Reach the server and agree with it, so that a disagreement is said once. Raises as ``TrainingTail`` does."""
        with self._session():
            pass

    def end_round(self) -> State:
        """Have the common tail made of what the clients handed in; returns its weights, under the model's names."""
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
    """As ``Site``, but only the head of ``model`` is a client's: ``layout`` is the head's, and the samples stay here.

    A client trains its head against a copy of the common tail, and hands that in when all its steps are done: one that
    dies before leaves no trace in either.

    Args:
        cut: head and tail of ``model``.
        codec: encodes the features.
        group: reaches the tail.
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
        self.model.zero_grad(set_to_none=True)  # of a client that died between its gradients and its step
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
        """The head; the tail of ``model`` stays as it was last installed."""
        self.model.load_state_dict({**self.model.state_dict(), **state, **(own or self._first_own)})


@torch.no_grad()
def estimate_statistics(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Give normalisation layers the mean statistics of ``batches`` (x, y); nothing else of the network changes."""
    layers = [module for module in model.modules() if isinstance(module, _NormBase) and module.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over batches
        layer.train()
    for x, _ in batches:
        model(x)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()
