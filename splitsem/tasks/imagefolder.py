"""ImageFolderTask: any pictures in one folder a class, in ImageNet's layout; read from disk as they are needed."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS, has_file_allowed_extension

from splitsem.errors import ConfigError
from splitsem.tasks.classification import ClassificationTask, hold_out
from splitsem.tasks.task import Splits

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

    Raises:
        ConfigError: a folder is missing, holds no pictures, or has other classes than ``train``.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        augment: bool = True,
        val_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        if image_size < 1:
            raise ValueError(f"image_size must be at least 1, got {image_size}")
        self.root = Path(root)
        self.image_size = image_size
        self.augment = augment
        self.val_fraction = val_fraction
        self.seed = seed
        super().__init__(class_names=_class_folders(self.root / "train"), input_shape=(3, image_size, image_size))

    def data_paths(self) -> Sequence[Path]:
        """The folders ``train``, ``val`` and, where there is one, ``test``."""
        train, val, test = (self.root / name for name in ("train", "val", "test"))
        return (train, val, test) if test.is_dir() else (train, val)

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
        train: Dataset = self._read(train_folder, random if self.augment else fixed)
        if test_folder.is_dir():
            return Splits(train, self._read(val_folder, fixed), self._read(test_folder, fixed))
        test, train_unchanged = self._read(val_folder, fixed), self._read(train_folder, fixed)
        rest, held_out = hold_out(torch.tensor(train_unchanged.targets), self.val_fraction, self.seed)
        return Splits(Subset(train, rest.tolist()), Subset(train_unchanged, held_out.tolist()), test)

    def _read(self, folder: Path, transform: transforms.Compose) -> ImageFolder:
        class_names = _class_folders(folder)
        if class_names != list(self.class_names):
            different = sorted(set(class_names) ^ set(self.class_names))
            raise ConfigError(f"{folder} must have the class folders of train; these are in only one: {different[:10]}")
        try:
            return _VisibleFolder(folder, transform, is_valid_file=_is_picture)
        except FileNotFoundError as exc:
            raise ConfigError(f"{folder}: {exc}") from exc


class _VisibleFolder(ImageFolder):
    """An ImageFolder without the hidden folders that notebooks and systems leave."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """See ImageFolder."""
        names = _class_folders(Path(directory))
        return names, {name: number for number, name in enumerate(names)}


def _is_picture(path: str) -> bool:
    return not Path(path).name.startswith(".") and has_file_allowed_extension(path, IMG_EXTENSIONS)


def _class_folders(folder: Path) -> list[str]:
    folders = (path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()
    names = sorted(path.name for path in folders if not path.name.startswith("."))
    if not names:
        raise ConfigError(
            f"{folder} was looked for and is not a folder with one sub-folder of pictures a class. Expected layout: "
            "train/<class>/*.jpg, val/<class>/*.jpg, perhaps test/<class>/*.jpg; name the folder above by task.root="
        )
    return names
