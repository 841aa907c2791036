"""Metrics of agreement: how far results stay those of the unsplit network."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from splitsem.tasks.agreement import all_values, likeliest_of_first
from splitsem.tasks.metrics import MeanOverSamples


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


class SameLookalike(MeanOverSamples):
    """Share of the samples whose most similar known description is that of their targets.

    Args:
        known: ``(n, values)``.
    """

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self._directions = F.normalize(known)

    def shares(self, output: Tensor, y: Tensor) -> Tensor:
        """See MeanOverSamples; descriptions ``(batch, values)`` and their targets."""
        return self._lookalike(output) == self._lookalike(y)

    def _lookalike(self, y: Tensor) -> Tensor:
        return (y @ self._directions.T).argmax(1)


class MeanCosine(MeanOverSamples):
    """Mean cosine of the angle between descriptions and targets, negative ones as 0."""

    def shares(self, output: Tensor, y: Tensor) -> Tensor:
        """See MeanOverSamples; descriptions ``(batch, values)`` and their targets."""
        return F.cosine_similarity(output, y).clamp(0, 1)
