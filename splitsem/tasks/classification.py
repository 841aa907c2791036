"""ClassificationTask: what all image classification tasks share — loss, score, and how samples are held out."""

from abc import abstractmethod
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from splitsem.tasks.task import Splits, Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

TOP5_FROM_CLASSES = 20


class ClassificationTask(Task):
    """One label per image; the score is top-1 accuracy.

    Args:
        class_names: the classes, in the order of the network's outputs.
        input_shape: shape of one image ``(channels, height, width)``.
    """

    is_image: ClassVar[bool] = True

    def __init__(self, class_names: Sequence[str], input_shape: tuple[int, int, int]) -> None:
        self.class_names = tuple(class_names)
        self.input_shape = input_shape
        self.output_shape = (len(self.class_names),)
        self.input_bytes = prod(input_shape)
        self._splits: Splits | None = None

    @abstractmethod
    def _load(self) -> Splits:
        """Read the data. Raises ConfigError when it is not there."""

    def splits(self) -> Splits:
        """The data, loaded on the first call and kept. Raises ConfigError when it is not there."""
        if self._splits is None:
            self._splits = self._load()
        return self._splits

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of logits ``y_hat`` (batch, classes) against class indices ``y`` (batch,)."""
        return F.cross_entropy(y_hat, y)

    def metrics(self) -> "MetricCollection":
        """``score`` = share of right answers; ``top5`` as well where there are at least 20 classes."""
        from torchmetrics import Metric, MetricCollection
        from torchmetrics.classification import MulticlassAccuracy

        num_classes = len(self.class_names)
        metrics: dict[str, Metric] = {"score": MulticlassAccuracy(num_classes, average="micro")}
        if num_classes >= TOP5_FROM_CLASSES:
            metrics["top5"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
        return MetricCollection(dict(metrics))


def hold_out(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split sample indices in two, each class in the same proportion (stratified).

    Args:
        labels: class index of every sample, shape ``(n,)``.
        fraction: share of each class to hold out, in (0, 1); at least one sample of each class stays on either side
            where the class has two.
        seed: the same seed always holds out the same samples.

    Returns:
        ``(rest, held_out)``: disjoint sorted index tensors that together are ``0 … n-1``.

    Raises:
        ValueError: ``fraction`` is outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be in (0, 1), got {fraction}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = order[labels[order] == label]
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        is_held_out[members[:count]] = True
    return torch.nonzero(~is_held_out).flatten(), torch.nonzero(is_held_out).flatten()
