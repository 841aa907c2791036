"""Loss and score of segmentation under heavy class imbalance: soft Dice, and IoU from one confusion matrix."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassConfusionMatrix


def dice_loss(y_hat: Tensor, y: Tensor, ignore_index: int) -> Tensor:
    """1 − mean over the classes present in ``y`` of 2·Σ p·t / (Σ p + Σ t), sums over the whole batch.

    Rare classes weigh as much as common ones, as they do in the mean IoU (Milletari et al., arXiv 1606.04797).

    Args:
        y_hat: logits (batch, classes, height, width).
        y: labels (batch, height, width); those of ``ignore_index`` count nowhere.
        ignore_index: label of pixels that do not count.
    """
    counted = y != ignore_index
    target = functional.one_hot(y * counted, y_hat.shape[1]).movedim(-1, 1) * counted.unsqueeze(1)
    probability = y_hat.softmax(dim=1) * counted.unsqueeze(1)
    overlap = (probability * target).sum(dim=(0, 2, 3))
    size = probability.sum(dim=(0, 2, 3)) + target.sum(dim=(0, 2, 3))
    present = target.sum(dim=(0, 2, 3)) > 0
    dice = 2 * overlap / size.clamp_min(1e-6)
    return 1 - (dice * present).sum() / present.sum().clamp_min(1)


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
