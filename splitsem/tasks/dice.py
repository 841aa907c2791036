"""dice_loss: the loss of segmentation under heavy class imbalance."""

from torch import Tensor
from torch.nn import functional


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
