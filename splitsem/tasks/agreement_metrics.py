"""Metrics of agreement: how far results stay those of the unsplit network."""

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from splitsem.tasks.agreement import all_values, likeliest_of_first


class MeanOverSamples(Metric):
    """The mean of a number in [0, 1] for each sample."""

    full_state_update = False
    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, output: Any, y: Tensor) -> None:
        """Add a batch: the network's output, and what the unsplit network found."""
        state: Any = self
        state.total += self.shares(output, y).double().sum()
        state.count += len(y)

    def compute(self) -> Tensor:
        """The mean, a scalar."""
        state: Any = self
        return (state.total / state.count.clamp_min(1)).float()

    @abstractmethod
    def shares(self, output: Any, y: Tensor) -> Tensor:
        """A number in [0, 1] for each sample, ``(batch,)``."""


class SameClasses(MeanOverSamples):
    """Share of the places whose likeliest class is the target's."""

    def shares(self, output: Any, y: Tensor) -> Tensor:
        """See MeanOverSamples; ``y`` as ``likeliest_of_first`` gives it."""
        return (likeliest_of_first(output) == y).double().reshape(len(y), -1).mean(1)


class SameValues(MeanOverSamples):
    """``1 − |ŷ − y|² / |y|²``, at least 0; 1 where both are zero."""

    def shares(self, output: Any, y: Tensor) -> Tensor:
        """See MeanOverSamples; ``y`` as ``all_values`` gives it."""
        error, energy = (all_values(output) - y).square().sum(1), y.square().sum(1)
        return torch.where(error == 0, 1.0, 1 - error / energy).clamp(0, 1)


class SameLookalike(Metric):
    """Share of the samples whose most similar known description is that of their targets.

    Args:
        known: ``(n, values)``.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self._directions = F.normalize(known)
        self.add_state("same", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, y_hat: Tensor, y: Tensor) -> None:
        """Add a batch of descriptions ``(batch, values)`` and their targets."""
        state: Any = self
        state.same += (self._lookalike(y_hat) == self._lookalike(y)).sum()
        state.count += len(y)

    def compute(self) -> Tensor:
        """The share, a scalar."""
        state: Any = self
        return (state.same / state.count.clamp_min(1)).float()

    def _lookalike(self, y: Tensor) -> Tensor:
        return (y @ self._directions.T).argmax(1)


class MeanCosine(MeanOverSamples):
    """Mean cosine of the angle between descriptions and targets, negative ones as 0."""

    def shares(self, output: Tensor, y: Tensor) -> Tensor:
        """See MeanOverSamples; descriptions ``(batch, values)`` and their targets."""
        return F.cosine_similarity(output, y).clamp(0, 1)
