"""Cifar: CIFAR-10 and CIFAR-100, 60,000 real 32×32 colour images (Krizhevsky 2009), read by torchvision."""

from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10, CIFAR100

from splitsem.errors import DataError
from splitsem.tasks.classification import ClassificationTask, ImageTensors, RandomCropFlip, hold_out
from splitsem.tasks.task import Splits

VAL_FRACTION = 0.1
MAX_SHIFT_PIXELS = 4
DATASETS: dict[int, type[CIFAR10]] = {10: CIFAR10, 100: CIFAR100}
# fmt: off
CLASS_NAMES = {
    10: [
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ],
    100: [
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl",
        "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee",
        "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant",
        "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower",
        "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
        "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate",
        "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark",
        "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower",
        "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor", "train", "trout", "tulip",
        "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    ],
}
# fmt: on


class Cifar(ClassificationTask):
    """Train: 45,000 images, shifted and mirrored; val: 5,000 more of the official training set; test: the official one.

    torchvision unpickles the official files, but only after it has checked their MD5 sums.

    Args:
        root: folder that holds ``cifar-10-batches-py`` or ``cifar-100-python``.
        num_classes: 10 or 100.
        download: whether torchvision may download the archive (170 MB) into ``root``.
        augment: whether training images are shifted by up to 4 pixels and mirrored.
        seed: which training images are held out for val.
    """

    def __init__(
        self, root: str, num_classes: int = 10, download: bool = False, augment: bool = True, seed: int = 0
    ) -> None:
        if num_classes not in DATASETS:
            raise ValueError(f"num_classes must be 10 or 100, got {num_classes}")
        super().__init__(class_names=CLASS_NAMES[num_classes], input_shape=(3, 32, 32))
        self.root = Path(root)
        self.download = download
        self.augment = RandomCropFlip(MAX_SHIFT_PIXELS) if augment else None
        self.seed = seed

    def data_paths(self) -> Sequence[Path]:
        """The folder of the official files."""
        return (self.root / DATASETS[len(self.class_names)].base_folder,)

    def _load(self) -> Splits:
        images, labels = self._read(train=True)
        train, val = hold_out(labels, VAL_FRACTION, self.seed)
        return Splits(
            train=ImageTensors(images[train], labels[train], self.augment),
            val=ImageTensors(images[val], labels[val]),
            test=ImageTensors(*self._read(train=False)),
        )

    def _read(self, train: bool) -> tuple[Tensor, Tensor]:
        source = DATASETS[len(self.class_names)]
        where = f"CIFAR-{len(self.class_names)} ({self.root / source.base_folder})"
        try:
            dataset = source(self.root, train=train, download=self.download)
        except (URLError, RuntimeError, OSError) as exc:
            state = "could not be downloaded" if self.download else "was not found, or its MD5 sums are wrong"
            remedy = "name the folder that holds it by the task's root=, or let it be downloaded by its download=true"
            raise DataError(f"{where} {state}: {' '.join(str(exc).split())}. Way out: {remedy}") from exc
        return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)
