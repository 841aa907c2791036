"""ExitHead answers on the edge from what crosses at a cut, and says how sure it is of each answer."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_POOLS: dict[int, Callable[[Tensor, Any], Tensor]] = {
    3: F.adaptive_avg_pool1d,
    4: F.adaptive_avg_pool2d,
    5: F.adaptive_avg_pool3d,
}


class ExitHead(nn.Module):
    """A linear classifier of pooled features: the early exit of a network at a cut.

    Each floating-point tensor that crosses is averaged over its positions, in cells: of (batch, channels, height,
    width) the last two dimensions, of (batch, tokens, channels) the middle one; (batch, features) stays as it is. A
    sample exits where the likeliest class has a confidence above the threshold, as in BranchyNet (Teerapittayanon,
    McDanel, Kung, ICPR 2016, arXiv 1709.01686), which takes the entropy instead.

    Args:
        shapes: of the crossing tensors that are pooled, the batch's dimension included.
        num_classes: of the task.
        grid: cells along each dimension of positions, at least 1.

    Attributes:
        temperature: what the logits were divided by in calibration, a scalar that the weights contain (Guo, Pleiss,
            Sun, Weinberger, ICML 2017, arXiv 1706.04599).
        threshold: in [0, 1]. A sample exits above it: at 1 none does, at 0 all do.
    """

    temperature: Tensor

    def __init__(self, shapes: Sequence[tuple[int, ...]], num_classes: int, grid: int = 2) -> None:
        super().__init__()
        if grid < 1:
            raise ValueError(f"grid must be at least 1, got {grid}")
        self.grid, self.threshold = grid, 1.0
        num_features = sum(pooled(torch.zeros(shape), grid).shape[1] for shape in shapes)
        self.linear = nn.Linear(num_features, num_classes)
        self.register_buffer("temperature", torch.ones(()))

    def features(self, z: Sequence[Tensor]) -> Tensor:
        """The pooled floating-point tensors, float32 ``(batch, features)``."""
        parts = [pooled(tensor.float(), self.grid) for tensor in z if tensor.is_floating_point()]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def forward(self, *z: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated logits ``(batch, classes)`` of what crosses, and which samples exit, bool ``(batch,)``."""
        logits: Tensor = self.linear(self.features(z))
        return logits, self.is_sure(logits)

    def is_sure(self, logits: Tensor) -> Tensor:
        """Which samples exit, bool ``(batch,)``, by their calibrated logits."""
        return confidence(logits) > self.threshold


def confidence(logits: Tensor) -> Tensor:
    """Probability of the likeliest class, float64 ``(batch,)``, of logits ``(batch, classes)``.

    >>> confidence(torch.tensor([[0.0, 0.0], [0.0, 99.0]])).tolist()
    [0.5, 1.0]
    """
    return logits.softmax(dim=1, dtype=torch.float64).amax(dim=1)


def pooled(tensor: Tensor, grid: int) -> Tensor:
    """Means over cells of positions, ``(batch, channels · cells)``; there are no more cells than positions.

    >>> pooled(torch.zeros(7, 16, 4, 4), grid=2).shape
    torch.Size([7, 64])
    >>> pooled(torch.zeros(7, 196, 32), grid=1).shape
    torch.Size([7, 32])
    """
    if tensor.dim() not in _POOLS:
        return tensor.flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)
    if tensor.dim() == 3:
        tensor = tensor.transpose(1, 2)  # of tokens
    cells = [min(grid, size) for size in tensor.shape[2:]]
    return _POOLS[tensor.dim()](tensor, cells).flatten(1)
