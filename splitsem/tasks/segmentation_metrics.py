"""Metrics of segmentation: intersection over union of a whole data set."""

from collections.abc import Sequence

import torch
from torch import Tensor

from splitsem.errors import DataError
from splitsem.tasks.answer import likeliest
from splitsem.tasks.metrics import Metric


class SegmentationIoU(Metric):
    """Intersection over union, TP / (TP + FP + FN), of each class over a whole data set, and their mean as ``score``.

    A class without a pixel in the targets has no IoU and does not count in the mean. torchmetrics' Jaccard index counts
    such a class as 0 where it is predicted, is NaN without any label, and adds pixels in float32, which is not exact
    beyond 2²⁴ pixels. torchmetrics' mean IoU cannot ignore a label.

    Args:
        class_names: names in the order of the labels.
        ignore_index: label of pixels that do not count.
    """

    confmat: Tensor

    def __init__(self, class_names: Sequence[str], ignore_index: int) -> None:
        self._num_classes = len(class_names)
        super().__init__(confmat=(self._num_classes, self._num_classes))
        self._class_names, self._ignore_index = tuple(class_names), ignore_index

    def update(self, output: Tensor, y: Tensor) -> None:
        """Count a batch of outputs ``(batch, classes, …)``, or classes ``(batch, …)``, and labels ``(batch, …)``."""
        self.add(confmat=self.sample_states(output, y)["confmat"].sum(0))

    def compute(self) -> dict[str, Tensor]:
        """``{"score": mean, "iou_<class>": …}``; without a single labelled pixel the score is 0."""
        iou, present = _iou(self.confmat)
        classes = {f"iou_{name}": iou[i] for i, name in enumerate(self._class_names) if present[i]}
        return {"score": self.score_of(confmat=self.confmat), **classes}

    def sample_states(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The states that each sample alone would give: ``confmat``, ``(batch, classes, classes)``; see ``update``.

        Raises:
            DataError: a label is neither a class nor ``ignore_index``.
        """
        found = likeliest(output) if output.dim() > y.dim() else output
        num, classes, labels = len(y), self._num_classes, y.long()
        sample = torch.arange(num).reshape(-1, *[1] * (y.dim() - 1))
        counts = labels != self._ignore_index
        if wrong := labels[counts & ((labels < 0) | (labels >= classes))].unique().tolist():
            raise DataError(f"labels must be 0…{classes - 1}, or {self._ignore_index} for no class, got {wrong[0]}")
        places = ((sample * classes + labels) * classes + found)[counts]
        return {"confmat": places.bincount(minlength=num * classes**2).reshape(num, classes, classes)}

    def score_of(self, confmat: Tensor) -> Tensor:
        """The scores ``(…)`` of confusion matrices ``(…, classes, classes)``."""
        iou, present = _iou(confmat)
        return (iou * present).sum(-1) / present.sum(-1).clamp_min(1)


def _iou(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """TP / (TP + FP + FN) of each class, and whether the class is in the targets, both ``(…, classes)``."""
    hit = matrix.diagonal(dim1=-2, dim2=-1).float()
    target, predicted = matrix.sum(dim=-1), matrix.sum(dim=-2)
    return hit / (target + predicted - hit).float().clamp_min(1), target > 0
