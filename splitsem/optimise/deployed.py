"""DeployedSplit: one solution as a network on a device; what is scored and what is timed are the same modules."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitsem.cost.measure import Timing, timed_s
from splitsem.device import Device
from splitsem.models.repvgg import HyperRepVgg
from splitsem.pipeline import score
from splitsem.tasks.task import Task


class DeployedSplit:
    """A trained network, deployed with the γ of a solution and cut at its λ.

    Args:
        trained: the network as it trained; nothing of it is changed.
        gammas: γ of each unit.
        split_index: λ, units on the edge.
        device: where it runs.

    Attributes:
        head: the units of the edge.
        tail: the others.

    Raises:
        ValueError: γ or λ are not possible for the network.
    """

    def __init__(self, trained: HyperRepVgg, gammas: Sequence[int], split_index: int, device: Device) -> None:
        network = device.place(trained.deploy(gammas))
        units = network.units
        if not 0 <= split_index <= len(units):
            raise ValueError(f"split_index must be 0…{len(units)}, got {split_index}")
        self.device = device
        self.gammas = tuple(gammas)
        self.head, self.tail = nn.Sequential(*units[:split_index]), nn.Sequential(*units[split_index:])

    def __call__(self, x: Tensor) -> Tensor:
        """The tail's output for what the head makes of a batch on the device."""
        return self.tail(self.head(x))

    def score(self, task: Task, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
        """The task's score over batches on the device."""
        return score(self, task, batches)["score"]

    @torch.inference_mode()
    def right(self, batches: Iterable[tuple[Tensor, Tensor]]) -> NDArray[np.bool_]:
        """Of each sample of a classification, whether the class of the highest output is its own, ``(n,)``."""
        return np.concatenate([(self(x).float().argmax(1).cpu() == y.cpu()).numpy() for x, y in batches])

    @torch.inference_mode()
    def time(self, x: Tensor, repeats: int = 50) -> tuple[Timing, Timing]:
        """Seconds of head and tail here for one sample ``x``, ``(1, *input_shape)``; the halves take turns."""
        where = self.device.torch_device
        z = self.head(x)
        head_s, tail_s = [], []
        for number in range(-3, repeats):  # the first ones are to warm up
            times = timed_s(lambda: self.head(x), where), timed_s(lambda: self.tail(z), where)
            if number >= 0:
                head_s.append(times[0])
                tail_s.append(times[1])
        return Timing.of(head_s), Timing.of(tail_s)
