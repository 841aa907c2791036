"""ImageTensors: small images kept in memory as uint8, handed out as float32 in [0, 1] a batch at a time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

Sample = tuple[Tensor, Tensor]


class ImageTensors(Dataset[Sample]):
    """Images and labels in memory.

    A quarter of the memory of float32 tensors, and ``__getitems__`` (which DataLoader calls when it is there)
    converts and augments a whole batch at once: on the CPU that costs far less than image by image.

    Args:
        images: uint8, shape ``(n, channels, height, width)``.
        labels: class indices, int64, shape ``(n,)``.
        augment: turns a uint8 batch into another of the same shape, drawing from torch's global generator.
    """

    def __init__(self, images: Tensor, labels: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(labels):
            raise ValueError(
                f"images must be uint8 (n, channels, height, width) with n labels, got {images.dtype} "
                f"{tuple(images.shape)} with {len(labels)}"
            )
        self.images = images
        self.labels = labels.long()
        self.augment = augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """The samples of a batch, as the list that ``default_collate`` expects."""
        rows = torch.as_tensor(indices)
        x = self.images[rows]
        if self.augment is not None:
            x = self.augment(x)
        return list(zip((x.float() / 255).unbind(0), self.labels[rows].unbind(0), strict=True))


class RandomCropFlip:
    """Shift each image by up to ``padding`` pixels (zeros come in) and mirror half of them.

    Args:
        padding: largest shift in pixels, at least 0.
    """

    def __init__(self, padding: int) -> None:
        if padding < 0:
            raise ValueError(f"padding must be at least 0, got {padding}")
        self.padding = padding

    def __call__(self, x: Tensor) -> Tensor:
        """Augment a batch ``(batch, channels, height, width)``; every image gets its own shift and mirroring."""
        batch, channels, height, width = x.shape
        padded = F.pad(x, [self.padding] * 4)
        top, left = torch.randint(0, 2 * self.padding + 1, (2, batch, 1))
        rows = top + torch.arange(height)
        columns = left + torch.arange(width)
        columns = torch.where(torch.rand(batch, 1) < 0.5, columns, columns.flip(1))
        return padded[
            torch.arange(batch)[:, None, None, None],
            torch.arange(channels)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]
