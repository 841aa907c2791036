"""Site: what a client trains with — one network instance for all clients of a process, and each one's samples."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader, Subset

from splitsem.errors import ConfigError
from splitsem.federated.state import Layout, State
from splitsem.lightning.fit import Fit
from splitsem.tasks.task import Task


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
