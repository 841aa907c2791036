"""SegmentationIoU: the score of segmentation under heavy class imbalance, IoU from one confusion matrix."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix


class SegmentationIoU(MulticlassConfusionMatrix):
    """Intersection over union, TP / (TP + FP + FN), of each class over a whole data set, and their mean as ``score``.

    A class without a single pixel in the targets has no IoU: it is left out, of the mean too.

    Args:
        class_names: names in the order of the labels.
        ignore_index: label of pixels that do not count.
    """

    def __init__(self, class_names: Sequence[str], ignore_index: int) -> None:
        super().__init__(num_classes=len(class_names), ignore_index=ignore_index)
        self._class_names = tuple(class_names)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """``{"score": mean, "iou_<class>": …}``; without a single labelled pixel the score is 0."""
        matrix: Any = self.confmat
        hit = matrix.diagonal().float()
        target, predicted = matrix.sum(dim=1), matrix.sum(dim=0)
        present = target > 0
        iou = hit / (target + predicted - hit).clamp_min(1)
        score = iou[present].mean() if present.any() else iou.sum()
        return {"score": score} | {f"iou_{name}": iou[i] for i, name in enumerate(self._class_names) if present[i]}
