"""ImageFront: what stands between a task's picture and a ready-made network — size, colour channels, normalisation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageFront(nn.Module):
    """``(resize(x) repeated to 3 channels − mean) / std`` for pictures ``x`` in [0, 1].

    It is part of the network, so that at the point ``input`` the picture itself crosses the cut.

    Args:
        input_shape: ``(channels, height, width)`` of one picture, 1 or 3 channels.
        mean: per-channel mean that the network was trained with.
        std: per-channel standard deviation that the network was trained with.
        image_size: height and width that the network shall see, or None to leave the picture's.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        input_shape: Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        image_size: int | None = None,
    ) -> None:
        if len(input_shape) != 3 or input_shape[0] not in (1, 3):
            raise ValueError(f"input_shape must be (1 or 3, height, width), got {tuple(input_shape)}")
        if image_size is not None and image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        super().__init__()
        self.picture_size = (input_shape[1], input_shape[2])
        self.network_size = self.picture_size if image_size is None else (image_size, image_size)
        # Not persistent: the state dict keeps the network's original keys.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (batch, 1 or 3, height, width) → (batch, 3, *network_size)."""
        if self.network_size != self.picture_size:
            # Antialiasing changes nothing when a picture grows.
            x = F.interpolate(x, self.network_size, mode="bilinear", antialias=True)
        return (x.expand(-1, 3, -1, -1) - self.mean) / self.std


def attach(front: ImageFront, network: nn.Module) -> None:
    """Let ``network`` see its pictures through ``front``.

    A forward pre-hook does it, not a wrapper: the network's modules and weights keep their own names (``layer1.0``),
    and torch.export traces the hook like any other code.
    """
    network.add_module("front", front)
    network.register_forward_pre_hook(_through_front)


def front_of(network: nn.Module) -> ImageFront | None:
    """The front that was attached to ``network``; None where there is none."""
    front = dict(network.named_children()).get("front")
    return front if isinstance(front, ImageFront) else None


def _through_front(network: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    front = network.get_submodule("front")
    return (front(*args),)
