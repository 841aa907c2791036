"""Detector: a network that is cut, followed by a postprocess that is not."""

from typing import Any

from torch import Tensor, nn


class Detector(nn.Module):
    """See ``splitsem.network.HasPostprocess``.

    Args:
        network: what is cut: from pictures ``(batch, 3, height, width)``, float32 in [0, 1], to a structure of tensors.
        postprocess: from that structure to detections ``(batch, most, 6)``, see ``splitsem.detections``.
    """

    def __init__(self, network: nn.Module, postprocess: nn.Module) -> None:
        super().__init__()
        self.network, self.postprocess = network, postprocess

    def forward(self, x: Tensor) -> Any:
        """Detections in eval mode; what the network itself returns in train mode."""
        made = self.network(x)
        return made if self.training else self.postprocess(made)
