"""Lookalikes: which known photograph is most like this one, for networks that describe pictures by numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from splitsem.errors import DataError
from splitsem.tasks.agreement import OwnResults
from splitsem.tasks.agreement_metrics import MeanCosine, SameLookalike
from splitsem.tasks.answer import AnswerCoder, Values
from splitsem.tasks.metrics import Metrics
from splitsem.tasks.photos import Photos
from splitsem.tasks.task import Splits, Task

_BATCH = 16


class Lookalikes(Task):
    """Crops of photographs, described by numbers; the score is how often the most similar known crop stays the same.

    The known crops are those of train, as the unsplit network describes them; similar is what has the largest cosine.
    The crops of test are of other photographs.

    Args:
        num_values: how many numbers the network gives for a picture.
        root: see ``Photos``, as all that follow.
        image_size: height and width given to the network, in pixels.
        scales: sides of the crops.
        most_per_photograph: so many crops of a photograph at most.
        train_fraction: share of the photographs that are known.
        val_fraction: share for choosing; the rest is test.
        seed: which photographs are in which split.
        white: brightest value of pictures of more than 8 bits that do not state it.
    """

    is_agreement = True
    is_image = True

    def __init__(
        self,
        num_values: int = 1280,
        root: str | None = None,
        image_size: int = 224,
        scales: Sequence[float] = (1.0, 0.75, 0.5),
        most_per_photograph: int = 8,
        train_fraction: float = 0.3,
        val_fraction: float = 0.2,
        seed: int = 0,
        white: float | None = None,
    ) -> None:
        if num_values < 1:
            raise ValueError(f"num_values must be at least 1, got {num_values}")
        self.photos = Photos(root, image_size, scales, most_per_photograph, train_fraction, val_fraction, seed, white)
        self.input_shape, self.input_bytes = self.photos.input_shape, self.photos.input_bytes
        self.output_shape = (num_values,)
        self._splits: Splits | None = None
        self._known: Tensor | None = None

    def data_paths(self) -> Sequence[Path]:
        """The folder of the photographs."""
        return self.photos.data_paths()

    def splits(self) -> Splits:
        """The crops of different photographs; their targets are the unsplit network's descriptions."""
        if self._splits is None:
            self._splits = Splits(*(OwnResults(part, _as_they_are) for part in self.photos.crops()))
        return self._splits

    def label_by(self, network: Callable[[Any], Any]) -> None:
        """Take what this network finds as the target of each sample, and of train as what is known."""
        for split in self.splits():
            assert isinstance(split, OwnResults)
            split.label_by(network)
        self._known = torch.cat([y for _, y in DataLoader(self.splits().train, batch_size=_BATCH)])

    def answer_coder(self) -> AnswerCoder:
        """All numbers: whoever asks compares them."""
        return Values(self.output_shape)

    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """1 − the mean cosine of descriptions ``(batch, num_values)``."""
        return 1 - F.cosine_similarity(y_hat, y).mean()

    def metrics(self) -> Metrics:
        """``score`` = share of the samples with the same lookalike; ``cosine`` = mean cosine, negative ones as 0."""
        if self._known is None:
            raise DataError("this task has no labels, and no network was given whose results are the targets")
        return Metrics({"score": SameLookalike(self._known), "cosine": MeanCosine()})


def _as_they_are(output: Tensor) -> Tensor:
    return output
