"""BoxedPictures: pictures in memory with their targets; Mirrored: another data set's samples, half of them mirrored."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

Sample = tuple[Tensor, Tensor]


class BoxedPictures(Dataset[Sample]):
    """Pictures of uint8, a quarter of float32's memory, and targets.

    Args:
        pictures: uint8 ``(n, 3, height, width)``.
        targets: ``(n, most, 6)`` float32, see ``splitsem.detections``.
    """

    def __init__(self, pictures: Tensor, targets: Tensor) -> None:
        self.pictures, self.targets = pictures, targets

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        """Picture ``(3, height, width)`` float32 in [0, 1], exactly uint8/255, and targets ``(most, 6)``."""
        return self.pictures[index] / 255, self.targets[index]


class Mirrored(Dataset[Sample]):
    """Another data set's samples, left and right swapped in half of them, drawn from torch's generator.

    Args:
        dataset: gives pictures with targets.
    """

    def __init__(self, dataset: Dataset[Sample]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index``, picture and boxes mirrored alike."""
        x, y = self.dataset[index]
        return mirrored(x, y) if torch.rand(()) < 0.5 else (x, y)


def mirrored(x: Tensor, y: Tensor) -> Sample:
    """A picture ``(3, height, width)`` and its targets ``(most, 6)``, left and right swapped."""
    swapped = y.clone()
    swapped[:, 0], swapped[:, 2] = x.shape[-1] - y[:, 2], x.shape[-1] - y[:, 0]
    swapped[y[:, 5] < 0] = y[y[:, 5] < 0]
    return x.flip(-1), swapped


def renumbered(targets: Tensor, numbers: Tensor) -> Tensor:
    """Targets ``(…, 6)`` with other class numbers.

    Args:
        targets: see ``splitsem.detections``.
        numbers: ``(classes,)``, the new number of each class; −1 leaves its boxes out.
    """
    classes = targets[..., 5].long()
    new = torch.where(classes >= 0, numbers[classes.clamp_min(0)], -1)
    made = torch.where((new >= 0).unsqueeze(-1), targets, 0.0)
    made[..., 5] = new.to(made.dtype)
    return made


class Renumbered(Dataset[Sample]):
    """Another data set's samples with the class numbers of a network.

    Args:
        dataset: gives pictures with targets.
        numbers: see ``renumbered``.
    """

    def __init__(self, dataset: Dataset[Sample], numbers: Sequence[int]) -> None:
        self.dataset, self._numbers = dataset, torch.tensor(numbers)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Sample:
        """Sample number ``index``."""
        x, y = self.dataset[index]
        return x, renumbered(y, self._numbers)
