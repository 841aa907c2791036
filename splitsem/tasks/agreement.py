"""Targets where there are no labels: what the unsplit network finds in the same samples."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from splitsem.errors import ConfigError
from splitsem.trees import leaves, rows


class OwnResults(Dataset):
    """Samples with the unsplit network's own results as their targets, each computed once, when it is first read.

    Args:
        samples: a data set of inputs ``x`` alone; a tensor or a structure of tensors, without the batch.
        target_of: from the network's output for a batch to its targets, with the batch in dimension 0.
    """

    def __init__(self, samples: Dataset, target_of: Callable[[Any], Tensor]) -> None:
        self.samples, self.target_of = samples, target_of
        self.network: Callable[[Any], Any] | None = None
        self._targets: dict[int, Tensor] = {}

    def label_by(self, network: Callable[[Any], Any]) -> None:
        """Take this network's results; what another one found is forgotten."""
        self.network, self._targets = network, {}

    def __len__(self) -> int:
        return len(self.samples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, Tensor]]:
        """The samples of a batch, as the list that ``default_collate`` expects."""
        if self.network is None:
            raise ConfigError("this task has no labels, and no network was given whose results are the targets")
        made = [self.samples[index] for index in indices]
        todo = [(index, x) for index, x in zip(indices, made, strict=True) if index not in self._targets]
        if todo:
            with torch.inference_mode():
                targets = self.target_of(self.network(default_collate([x for _, x in todo])))
            self._targets |= {index: row[0].clone() for (index, _), row in zip(todo, rows(targets), strict=True)}
        return [(x, self._targets[index]) for index, x in zip(indices, made, strict=True)]


def likeliest_of_first(output: Any) -> Tensor:
    """The likeliest class at each place of a network's first tensor, whose dimension 1 are the classes."""
    first = leaves(output)[0]
    if first.dim() < 2:
        raise ConfigError(f"the network's first tensor has shape {tuple(first.shape)} and no classes: compare=values")
    return first.argmax(1)


def all_values(output: Any) -> Tensor:
    """All tensors of a network's output, float32 ``(batch, values)``."""
    return torch.cat([tensor.flatten(1).float() for tensor in leaves(output)], 1)
