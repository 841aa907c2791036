"""ImageFolderTask: any pictures in one folder a class, in ImageNet's layout; read from disk as they are needed."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision import transforms

from splitsem.errors import DataError
from splitsem.tasks.classification import ClassificationTask, hold_out
from splitsem.tasks.pictures import SUFFIXES, checked_white, find_pictures, is_hidden, read_picture
from splitsem.tasks.task import Splits
from splitsem_device.picture_input import PictureInput

log = logging.getLogger(__name__)

# The usual evaluation geometry on ImageNet: shorter side to 256, centre crop of 224.
RESIZE_RATIO = 256 / 224
SMALLEST_CROP_AREA = 0.35


class ImageFolderTask(ClassificationTask):
    """Pictures in ``root/{train,val[,test]}/<class>/*``.

    Without a ``test`` folder (ImageNet publishes no test labels) the ``val`` folder is the test set and validation
    images are held out of ``train``. Val and test images are resized and centre-cropped; training images are cropped
    at random and mirrored.

    Args:
        root: folder with ``train``, ``val`` and perhaps ``test``.
        image_size: height and width given to the network, in pixels.
        augment: whether training images are cropped at random and mirrored.
        val_fraction: share of ``train`` that becomes the validation set when there is no ``test`` folder.
        seed: which training images are held out for val.
        white: brightest value of pictures of more than 8 bits that do not state it, see `pictures.read_picture`.

    Raises:
        DataError: a folder is missing, holds one class only or one without pictures, or other classes than ``train``.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        augment: bool = True,
        val_fraction: float = 0.1,
        seed: int = 0,
        white: float | None = None,
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.root = Path(root)
        self.image_size = image_size
        self.augment = augment
        self.val_fraction = val_fraction
        self.seed = seed
        self.white = checked_white(white)
        super().__init__(class_names=_class_folders(self.root / "train"), input_shape=(3, image_size, image_size))

    def data_paths(self) -> Sequence[Path]:
        """The folders ``train``, ``val`` and, where there is one, ``test``."""
        train, val, test = (self.root / name for name in ("train", "val", "test"))
        return (train, val, test) if test.is_dir() else (train, val)

    def picture_input(self) -> PictureInput | None:
        """See Task."""
        found = super().picture_input()
        return None if found is None else found._replace(resize_ratio=RESIZE_RATIO)

    def _load(self) -> Splits:
        train_folder, val_folder, test_folder = (self.root / name for name in ("train", "val", "test"))
        fixed = transforms.Compose(
            [
                transforms.Resize(round(self.image_size * RESIZE_RATIO)),
                transforms.CenterCrop(self.image_size),
                transforms.ToTensor(),
            ]
        )
        random = transforms.Compose(
            [
                transforms.RandomResizedCrop(self.image_size, scale=(SMALLEST_CROP_AREA, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )
        train_samples, val_samples = self._find(train_folder), self._find(val_folder)
        train = PictureFiles(train_samples, random if self.augment else fixed, self.white)
        if test_folder.is_dir():
            test_samples = self._find(test_folder)
            return Splits(train, *(PictureFiles(samples, fixed, self.white) for samples in (val_samples, test_samples)))
        test, train_unchanged = (PictureFiles(samples, fixed, self.white) for samples in (val_samples, train_samples))
        rest, held_out = hold_out(torch.tensor(train.targets), self.val_fraction, self.seed)
        if not len(held_out):
            raise DataError(
                f"{train_folder} has one picture a class, and none can be held out for validation: add pictures, "
                f"or add {test_folder}, so that {val_folder} becomes the validation set"
            )
        return Splits(Subset(train, rest.tolist()), Subset(train_unchanged, held_out.tolist()), test)

    def _find(self, folder: Path) -> list[tuple[Path, int]]:
        """The pictures in a folder, each with the number of its class."""
        names = _class_folders(folder)
        if names != list(self.class_names):
            train = self.root / "train"
            only_train, only_here = sorted({*self.class_names} - {*names}), sorted({*names} - {*self.class_names})
            raise DataError(
                f"{folder} must have the class folders of {train}; only in {folder.name}: {_some(only_here)}; only in "
                f"train: {_some(only_train)}"
            )
        samples: list[tuple[Path, int]] = []
        left_out, empty = [path for paths in find_pictures(folder, is_deep=False) for path in paths], []
        for number, name in enumerate(names):
            pictures, others = find_pictures(folder / name)
            samples += [(path, number) for path in pictures]
            left_out += others
            empty += [] if pictures else [name]
        if left_out:
            log.warning(
                "%s: %d files are no pictures of a class and are left out, the first: %s",
                *(folder, len(left_out), left_out[0].relative_to(folder)),
            )
        if empty:
            raise DataError(f"{folder} has no pictures ({', '.join(SUFFIXES)}) of some classes: {_some(empty)}")
        return samples


class PictureFiles(Dataset[tuple[Tensor, int]]):
    """Pictures that are read when they are asked for.

    Args:
        samples: each file with the number of its class.
        transform: makes a tensor of an upright RGB picture.
        white: see `pictures.read_picture`.
    """

    def __init__(self, samples: Sequence[tuple[Path, int]], transform: transforms.Compose, white: float | None) -> None:
        self.samples = samples
        self.targets = [number for _, number in samples]
        self._transform, self._white = transform, white

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Picture number ``index`` (3, height, width) float32 in [0, 1], and its class."""
        path, number = self.samples[index]
        return self._transform(read_picture(path, self._white)), number


def _class_folders(folder: Path) -> list[str]:
    try:
        paths = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as exc:
        raise DataError(f"cannot read the folder {folder}: {exc.strerror}") from exc
    names = sorted(path.name for path in paths if path.is_dir() and not is_hidden(path))
    layout = "train/<class>/*.jpg, val/<class>/*.jpg, perhaps test/<class>/*.jpg"
    if not names:
        raise DataError(
            f"{folder} was looked for and is not a folder with one sub-folder of pictures a class. Expected layout: "
            f"{layout}; name the folder above by task.root="
        )
    if len(names) == 1:
        raise DataError(f"{folder} has one class only, {names[0]}; classes to tell apart are two or more: {layout}")
    return names


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"
