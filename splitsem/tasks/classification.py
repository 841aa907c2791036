"""ClassificationTask: what all classification tasks share — loss, score, held-out samples, images in memory."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset

from splitsem.errors import ConfigError, DataError
from splitsem.tasks.answer import AnswerCoder, TopClasses
from splitsem.tasks.metrics import Accuracy, Metrics
from splitsem.tasks.task import Splits, Task

TOP5_FROM_CLASSES = 20


class ClassificationTask(Task):
    """One label per sample, an image unless the task says otherwise; the score is top-1 accuracy.

    Args:
        class_names: the classes, in the order of the network's outputs.
        input_shape: shape of one image ``(channels, height, width)``; ``()`` where samples are no single tensors.
    """

    is_image = True

    def __init__(self, class_names: Sequence[str], input_shape: tuple[int, ...]) -> None:
        self.class_names = tuple(class_names)
        self.input_shape = input_shape
        self.output_shape = (len(self.class_names),)
        self.input_bytes = prod(input_shape)
        self._splits: Splits | None = None

    @abstractmethod
    def _load(self) -> Splits:
        """Read the data. Raises ConfigError when it is not there."""

    def splits(self) -> Splits:
        """The data, loaded on the first call and kept. Raises ConfigError when it is not there."""
        if self._splits is None:
            self._splits = self._load()
        return self._splits

    def answer_coder(self) -> AnswerCoder:
        """The likeliest class; the five likeliest where ``top5`` is a metric."""
        num_classes = len(self.class_names)
        return TopClasses(num_classes, most=5 if num_classes >= TOP5_FROM_CLASSES else 1)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of logits ``y_hat`` (batch, classes) against class indices ``y`` (batch,).

        Raises:
            DataError: a label is not the index of a class.
        """
        try:
            return F.cross_entropy(y_hat, y)
        except IndexError as exc:
            if (error := self.label_error(y)) is None:
                raise
            raise error from exc

    def label_error(self, y: Tensor) -> DataError | None:
        """What is wrong with labels, of any shape, that are no indices of the classes; None where nothing is."""
        most, wrong = len(self.class_names) - 1, y[(y < 0) | (y >= len(self.class_names))]
        if not len(wrong):
            return None
        return DataError(
            f"labels must be whole numbers from 0 to {most}, one for each class name, got {wrong[0].item()}"
        )

    def metrics(self) -> Metrics:
        """``score`` = share of right answers; ``top5`` as well where there are at least 20 classes."""
        top5 = {"top5": Accuracy(top_k=5)} if len(self.class_names) >= TOP5_FROM_CLASSES else {}
        return Metrics({"score": Accuracy(), **top5})


def hold_out(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split sample indices in two, each class in the same proportion (stratified).

    Args:
        labels: class index of every sample, shape ``(n,)``.
        fraction: share of each class to hold out, in (0, 1); at least one sample of each class stays on either side
            where the class has two.
        seed: the same seed always holds out the same samples.

    Returns:
        ``(rest, held_out)``: disjoint sorted index tensors that together are ``0 … n-1``.

    Raises:
        ValueError: ``fraction`` is outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be in (0, 1), got {fraction}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = order[labels[order] == label]
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        is_held_out[members[:count]] = True
    return torch.nonzero(~is_held_out).flatten(), torch.nonzero(is_held_out).flatten()


Sample = tuple[Tensor, Tensor]


class ImageTensors(Dataset[Sample]):
    """Images and labels in memory.

    Images of uint8 take a quarter of float32's memory. DataLoader calls ``__getitems__``, which converts and augments a
    whole batch at once: on the CPU that costs far less than image by image.

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


def labels_of(dataset: Dataset) -> NDArray[np.int64]:
    """Class index of every sample, shape ``(n,)``, from the data set's ``labels`` or ``targets``.

    Raises:
        ConfigError: the data set has neither, so that every picture would have to be read for its label.
    """
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset)[np.asarray(dataset.indices, np.int64)]
    for name in ("labels", "targets"):  # ImageTensors, torchvision's data sets
        if hasattr(dataset, name):
            return np.asarray(getattr(dataset, name)).astype(np.int64)
    raise ConfigError(f"{type(dataset).__name__} must have `labels` or `targets`, the class index of every sample")


def domains_of(dataset: Dataset) -> NDArray[np.int64]:
    """The domain of every sample, shape ``(n,)``, from the data set's ``domains``.

    Raises:
        ConfigError: the data set has no ``domains``, or all samples are of one domain.
    """
    domains = _domains(dataset)
    if len(np.unique(domains)) < 2:
        raise ConfigError(
            f"a partition by domain needs several domains, all {len(domains)} samples are of one: give domain=null"
        )
    return domains


def _domains(dataset: Dataset) -> NDArray[np.int64]:
    if isinstance(dataset, Subset):
        return _domains(dataset.dataset)[np.asarray(dataset.indices, np.int64)]
    if not hasattr(dataset, "domains"):
        raise ConfigError(
            f"a partition by domain needs samples of several domains, {type(dataset).__name__} has none: "
            "take the task domains with domain=null"
        )
    return np.asarray(dataset.domains).astype(np.int64)
