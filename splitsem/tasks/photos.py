"""Photos: real photographs without labels, for classifiers with ImageNet weights; the score is agreement."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.models._meta import _IMAGENET_CATEGORIES
from torchvision.transforms.functional import pil_to_tensor

from splitsem import data
from splitsem.errors import DataError
from splitsem.tasks.agreement import OwnResults
from splitsem.tasks.answer import likeliest
from splitsem.tasks.classification import ClassificationTask
from splitsem.tasks.pictures import checked_white, find_pictures, read_picture
from splitsem.tasks.task import Splits
from splitsem_device.picture_input import PictureInput

NAME = "photographs"
_FEWEST = 3  # one photograph for each of train, val and test


class Crop(NamedTuple):
    """A square of a photograph, in pixels."""

    left: int
    top: int
    side: int


class Photos(ClassificationTask):
    """Crops of photographs; the target of each is the unsplit network's own likeliest class of ImageNet's 1,000.

    Few photographs can be had offline, so each gives several samples: squares whose sides are ``scales`` of its shorter
    side, at the places of a grid, resized to ``image_size``. Squares smaller than that are left out, but for the
    largest one, so that hardly any picture is enlarged. Crops of one photograph resemble each other: intervals over
    samples are narrower than those over photographs would be. A photograph is in one of train, val and test only.

    Args:
        root: a folder of pictures, at any depth; None for the photographs of ``python -m splitsem.data get``.
        image_size: height and width given to the network, in pixels.
        scales: sides of the crops as shares of the shorter side, each in (0, 1].
        most_per_photograph: so many crops of a photograph at most, spread over all.
        train_fraction: share of the photographs that codecs may be trained on.
        val_fraction: share for choosing; the rest is test.
        seed: which photographs are in which split.
        white: brightest value of pictures of more than 8 bits that do not state it, see `pictures.read_picture`.
    """

    is_agreement = True

    def __init__(
        self,
        root: str | None = None,
        image_size: int = 224,
        scales: Sequence[float] = (1.0, 0.75, 0.5),
        most_per_photograph: int = 8,
        train_fraction: float = 0.3,
        val_fraction: float = 0.2,
        seed: int = 0,
        white: float | None = None,
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        if not scales or not all(0 < scale <= 1 for scale in scales):
            raise ValueError(f"scales must be one or more shares in (0, 1], got {list(scales)}")
        if most_per_photograph < 1:
            raise ValueError(f"most_per_photograph must be at least 1, got {most_per_photograph}")
        if not (train_fraction > 0 and val_fraction > 0 and train_fraction + val_fraction < 1):
            raise ValueError(
                "train_fraction and val_fraction must be above 0 and leave a rest for test, "
                f"got {train_fraction} and {val_fraction}"
            )
        super().__init__(class_names=_IMAGENET_CATEGORIES, input_shape=(3, image_size, image_size))
        self.root = None if root is None else Path(root)
        self.image_size, self.scales, self.most = image_size, tuple(scales), most_per_photograph
        self.fractions = (train_fraction, val_fraction)
        self.seed, self.white = seed, checked_white(white)

    def data_paths(self) -> Sequence[Path]:
        """The folder of the photographs."""
        return (self.root or data.path(NAME),)

    def picture_input(self) -> PictureInput | None:
        """See Task."""
        found = super().picture_input()
        return None if found is None else found._replace(resample="bicubic")

    def label_by(self, network: Callable[[Any], Any]) -> None:
        """Take the likeliest class that this network finds as the target of each sample."""
        for split in self.splits():
            assert isinstance(split, OwnResults)
            split.label_by(network)

    def photographs(self) -> tuple[list[Path], list[Path], list[Path]]:
        """The files of train, val and test, disjoint."""
        (folder,) = self.data_paths()
        paths, _ = find_pictures(folder)
        if len(paths) < _FEWEST:
            raise DataError(f"{folder} has {len(paths)} pictures; train, val and test need one each, so at least 3")
        order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(self.seed)).tolist()
        shuffled = [paths[index] for index in order]
        num_train, num_val = (max(1, round(share * len(paths))) for share in self.fractions)
        num_train = min(num_train, len(paths) - num_val - 1)
        num_val = min(num_val, len(paths) - num_train - 1)
        parts = shuffled[:num_train], shuffled[num_train : num_train + num_val], shuffled[num_train + num_val :]
        return sorted(parts[0]), sorted(parts[1]), sorted(parts[2])

    def _load(self) -> Splits:
        return Splits(*(OwnResults(part, likeliest) for part in self.crops()))

    def crops(self) -> "tuple[Crops, Crops, Crops]":
        """The crops of train, val and test, without targets."""
        train, val, test = (Crops(self._crops(paths)) for paths in self.photographs())
        return train, val, test

    def _crops(self, paths: Sequence[Path]) -> Tensor:
        """All crops of some photographs, uint8 ``(n, 3, image_size, image_size)``."""
        made = []
        for path in paths:
            photograph = read_picture(path, self.white)
            for left, top, side in crops_of(photograph.size, self.image_size, self.scales, self.most):
                size = (self.image_size, self.image_size)
                box = (left, top, left + side, top + side)
                made.append(pil_to_tensor(photograph.resize(size, Image.Resampling.BICUBIC, box)))
        return torch.stack(made)


class Crops(Dataset[Tensor]):
    """Pictures in memory, without targets: float32 in [0, 1]."""

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        """How many there are."""
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        """Picture number ``index``, ``(3, height, width)``."""
        return self.pictures[index].float() / 255


def crops_of(size: tuple[int, int], image_size: int, scales: Sequence[float], most: int) -> list[Crop]:
    """Squares of a photograph of ``size`` (width, height) at the places of a grid that covers it.

    Along each side there are as many places as overlap by a half or less; those of the largest scale come first.
    """
    width, height = size
    shorter = min(size)
    made = []
    for number, scale in enumerate(sorted(set(scales), reverse=True)):
        side = max(1, round(scale * shorter))
        if number and side < image_size:
            continue
        made += [Crop(left, top, side) for top in _starts(height, side) for left in _starts(width, side)]
    return made if len(made) <= most else [made[k * len(made) // most] for k in range(most)]


def _starts(length: int, side: int) -> list[int]:
    num = -(-2 * (length - side) // side) + 1
    return [round(k * (length - side) / max(1, num - 1)) for k in range(num)]
