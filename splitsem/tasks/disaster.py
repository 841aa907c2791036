"""Disaster: segmentation of drone pictures after a hurricane into RescueNet's 12 classes; its loss, data and score."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from splitsem.errors import ConfigError
from splitsem.tasks.aerial import scene
from splitsem.tasks.answer import AnswerCoder, ClassMap
from splitsem.tasks.metrics import Metrics
from splitsem.tasks.pictures import checked_white
from splitsem.tasks.rescuenet import CLASS_NAMES, IGNORED, PALETTE, RescueNetPatches, data_folders
from splitsem.tasks.segmentation_metrics import SegmentationIoU
from splitsem.tasks.task import Splits, Task


def dice_loss(y_hat: Tensor, y: Tensor, ignore_index: int) -> Tensor:
    """1 − mean over the classes present in ``y`` of 2·Σ p·t / (Σ p + Σ t), sums over the whole batch.

    Rare classes weigh as much as common ones, as they do in the mean IoU (Milletari et al., arXiv 1606.04797).
    torchmetrics' Dice scores compare classes, not probabilities, and so have no gradient.

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


_FIRST_SCENE = {"train": 0, "val": 1_000_000, "test": 2_000_000}  # apart, so that a split's size moves no other split


class Disaster(Task):
    """Segment aerial pictures; score = mean IoU over the classes that the data set holds.

    Args:
        root: RescueNet's folder; None paints procedural scenes.
        size: height and width of a sample in pixels.
        num_train: procedural scenes to train on.
        num_val: procedural scenes to validate on.
        num_test: procedural scenes to score on.
        seed: seed of the procedural scenes, not of the training.
        augment: whether training samples are turned and mirrored at random.
        dice_weight: weight of the Dice term beside cross-entropy.
        image_height: RescueNet only: photographs are resized to this height in pixels (3000 originally).
        stride: RescueNet only: pixels between patches; None for ``size``, that is without overlap.
        label_map: RescueNet only: class for each number in the masks, see `rescuenet.RELEASE_1`; None for release 2.0.
        white: RescueNet only: brightest value of photographs of more than 8 bits, see `pictures.read_picture`.

    Raises:
        ValueError: an argument out of range.
    """

    is_image = True
    class_names, palette = CLASS_NAMES, PALETTE

    def __init__(
        self,
        root: str | None = None,
        size: int = 64,
        num_train: int = 768,
        num_val: int = 64,
        num_test: int = 96,
        seed: int = 0,
        augment: bool = True,
        dice_weight: float = 1.0,
        image_height: int = 750,
        stride: int | None = None,
        label_map: Sequence[int] | None = None,
        white: float | None = None,
    ) -> None:
        counts = {"num_train": num_train, "num_val": num_val, "num_test": num_test}
        for name, count in counts.items():
            if not 1 <= count <= 1_000_000:
                raise ValueError(f"{name} must be 1…1000000, got {count}")
        if size < 8:
            raise ValueError(f"size must be at least 8 pixels, got {size}")
        if stride is not None and stride < 1:
            raise ValueError(f"stride must be at least 1 pixel, got {stride}")
        if dice_weight < 0:
            raise ValueError(f"dice_weight must be at least 0, got {dice_weight}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self.input_shape = (3, size, size)
        self.output_shape = (len(CLASS_NAMES), size, size)
        self.input_bytes = 3 * size * size
        self._root = root
        self._counts = {name.removeprefix("num_"): count for name, count in counts.items()}
        self._seed = seed
        self._augment = augment
        self._dice_weight = dice_weight
        self._image_height = image_height
        self._stride = size if stride is None else stride
        self._label_map = label_map
        self._white = checked_white(white)
        self._splits: Splits | None = None

    def splits(self) -> Splits:
        """Pictures (3, size, size) and labels (size, size) int64. Raises ConfigError when ``root`` is no RescueNet."""
        if self._splits is None:
            train, val, test = (self._split(name) for name in ("train", "val", "test"))
            self._splits = Splits(Turned(train) if self._augment else train, val, test)
        return self._splits

    def data_paths(self) -> Sequence[Path]:
        """RescueNet's folders; none for procedural scenes."""
        return () if self._root is None else data_folders(Path(self._root))

    def answer_coder(self) -> AnswerCoder:
        """The class of each pixel."""
        return ClassMap(self.output_shape)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy + ``dice_weight`` · soft Dice loss."""
        cross_entropy = functional.cross_entropy(y_hat, y, ignore_index=IGNORED)
        return cross_entropy + self._dice_weight * dice_loss(y_hat, y, IGNORED)

    def metrics(self) -> Metrics:
        """``score`` (mean IoU) and ``iou_<class>`` for each class that occurs, from one confusion matrix."""
        return Metrics({"iou": SegmentationIoU(CLASS_NAMES, ignore_index=IGNORED)})

    def _split(self, name: str) -> Dataset:
        size = self.input_shape[1]
        if self._root is None:
            return Scenes(self._seed, _FIRST_SCENE[name], self._counts[name], size)
        if not Path(self._root).is_dir():
            raise ConfigError(f"task.root must be RescueNet's folder, but {self._root} is not a folder")
        return RescueNetPatches(self._root, name, size, self._image_height, self._stride, self._label_map, self._white)


class Scenes(Dataset):
    """Procedural scenes ``first … first + count − 1`` of a seed, painted when the first one is asked for.

    Args:
        seed: seed of the data set.
        first: number of the first scene.
        count: number of scenes.
        size: height and width in pixels.
    """

    def __init__(self, seed: int, first: int, count: int, size: int) -> None:
        self.indices = range(first, first + count)
        self._seed, self._size = seed, size

    def __len__(self) -> int:
        """How many scenes there are."""
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Picture (3, size, size) float32 in [0, 1], exactly uint8/255, and labels (size, size) int64."""
        images, labels = _paint(self._seed, self.indices, self._size)
        return images[index] / 255, labels[index].long()


@lru_cache(maxsize=6)
def _paint(seed: int, indices: range, size: int) -> tuple[Tensor, Tensor]:
    """All scenes of a split as uint8; kept for the process, because a sweep makes the same task again and again."""
    images = torch.empty(len(indices), 3, size, size, dtype=torch.uint8)
    labels = torch.empty(len(indices), size, size, dtype=torch.uint8)
    for row, index in enumerate(indices):
        picture, classes = scene(seed, index, size)
        images[row], labels[row] = torch.from_numpy(picture), torch.from_numpy(classes)
    return images, labels


class Turned(Dataset):
    """Another data set's samples, each in one of a square's eight positions, drawn from torch's generator.

    Args:
        dataset: gives square pictures and label maps.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Sample number ``index``, picture and labels turned alike."""
        x, y = self.dataset[index]
        position = int(torch.randint(8, ()))
        x, y = torch.rot90(x, position % 4, (-2, -1)), torch.rot90(y, position % 4, (-2, -1))
        return (x.flip(-1), y.flip(-1)) if position >= 4 else (x, y)
