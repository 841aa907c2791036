"""Metrics that are functions of sums over samples, with torchmetrics' interface and none of its imports.

``import torchmetrics`` brings torchvision, transformers and scipy where these are installed: three seconds and 280 MB
in each process that scores. A task of a user's own may return torchmetrics' ``MetricCollection`` as well.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import ItemsView, Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor


class Metric(ABC):
    """A number, or several, that depends on a data set by sums over its samples.

    Args:
        states: the sums' names and shapes; each is an attribute, at first zeros in float64 on the CPU.
    """

    def __init__(self, **states: tuple[int, ...]) -> None:
        self._shapes = states
        self.reset()

    @property
    def metric_state(self) -> dict[str, Tensor]:
        """The sums by name."""
        return {name: getattr(self, name) for name in self._shapes}

    def reset(self) -> None:
        """Forget all samples."""
        for name, shape in self._shapes.items():
            setattr(self, name, torch.zeros(shape, dtype=torch.float64))

    def add(self, **terms: Tensor | float) -> None:
        """Add to the sums of these names."""
        for name, term in terms.items():
            setattr(self, name, getattr(self, name) + torch.as_tensor(term).to("cpu", torch.float64))

    def clone(self) -> Self:
        """A copy that counts by itself."""
        return copy.deepcopy(self)

    @abstractmethod
    def update(self, output: Any, y: Tensor) -> None:
        """Count a batch: what the network returns, and the targets."""

    @abstractmethod
    def compute(self) -> Tensor | dict[str, Tensor]:
        """The number, or numbers by name, float32 scalars."""


class Metrics:
    """Metrics by name, which count the same samples.

    Args:
        metrics: by name; one that gives numbers by name keeps these names.
    """

    def __init__(self, metrics: Mapping[str, Metric]) -> None:
        self._metrics = dict(metrics)

    def update(self, output: Any, y: Tensor) -> None:
        """Count a batch with each of them."""
        for metric in self._metrics.values():
            metric.update(output, y)

    def compute(self) -> dict[str, Tensor]:
        """All numbers by name."""
        found: dict[str, Tensor] = {}
        for name, metric in self._metrics.items():
            value = metric.compute()
            found |= value if isinstance(value, dict) else {name: value}
        return found

    def reset(self) -> None:
        """Forget all samples."""
        for metric in self._metrics.values():
            metric.reset()

    def clone(self) -> Self:
        """A copy that counts by itself."""
        return copy.deepcopy(self)

    def items(self, keep_base: bool = True) -> ItemsView[str, Metric]:
        """The metrics by name; the argument is torchmetrics'."""
        return self._metrics.items()

    def __getitem__(self, name: str) -> Metric:
        return self._metrics[name]

    def __len__(self) -> int:
        return len(self._metrics)


class MeanOverSamples(Metric):
    """The mean of a number in [0, 1] for each sample."""

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__(total=(), count=())

    def update(self, output: Any, y: Tensor) -> None:
        """Add a batch: the network's output, and the targets."""
        self.add(total=self.shares(output, y).double().sum(), count=len(y))

    def compute(self) -> Tensor:
        """The mean, a scalar."""
        return self.score_of(self.total, self.count)

    def score_of(self, total: Tensor, count: Tensor) -> Tensor:
        """The means of many sums ``(…)``."""
        return (total / count.clamp_min(1)).float()

    @abstractmethod
    def shares(self, output: Any, y: Tensor) -> Tensor:
        """A number in [0, 1] for each sample, ``(batch,)``."""


class Accuracy(MeanOverSamples):
    """Share of the samples whose class is among the ``top_k`` likeliest.

    Args:
        top_k: how many classes count.
    """

    def __init__(self, top_k: int = 1) -> None:
        super().__init__()
        self._top_k = top_k

    def shares(self, output: Tensor, y: Tensor) -> Tensor:
        """See MeanOverSamples; logits ``(batch, classes, …)`` and class indices ``(batch, …)``."""
        top_k = min(self._top_k, output.shape[1])
        right = output.argmax(1) == y if top_k == 1 else (output.topk(top_k, 1).indices == y[:, None]).any(1)
        return right.double().reshape(len(y), -1).mean(1)


if TYPE_CHECKING:
    from torchmetrics import MetricCollection

    AnyMetrics = Metrics | MetricCollection
