"""CorruptedImages: some samples of another data set, each corrupted as its domain says."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from splitsem.tasks.corruption import Corruption
from splitsem.tasks.image_tensors import Sample
from splitsem.tasks.labels import labels_of


class CorruptedImages(Dataset[Sample]):
    """A part of ``base``; sample ``i`` of it is corrupted alike whenever it is drawn, also in training.

    Args:
        base: gives ``(x, y)``, x float32 in [0, 1], ``(channels, height, width)``.
        indices: which samples of ``base``, shape ``(n,)``.
        domains: the domain of each, an index into ``corruptions``, shape ``(n,)``.
        corruptions: of each domain.
        seed: of all corruptions.
        split: number of the split, so that the splits draw different numbers.

    Attributes:
        domains: as given.
        labels: class index of each sample, shape ``(n,)``.
    """

    def __init__(
        self,
        base: Dataset[Sample],
        indices: NDArray[np.int64],
        domains: NDArray[np.int64],
        corruptions: Sequence[Corruption],
        seed: int,
        split: int,
    ) -> None:
        self.base, self.indices, self.domains = base, indices, domains
        self.corruptions, self.seed, self.split = corruptions, seed, split
        self.labels = labels_of(base)[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """The samples of a batch, as the list that ``default_collate`` expects."""
        rows = np.asarray(indices, np.int64)
        chosen = self.indices[rows].tolist()
        clean = self._clean(chosen)
        x = torch.stack([image for image, _ in clean])
        domains = self.domains[rows]
        for domain in np.unique(domains):
            mine = np.flatnonzero(domains == domain)
            keys = [(self.seed, self.split, chosen[i]) for i in mine]
            x[mine] = self.corruptions[domain](x[mine], keys)
        return [(image, y) for image, (_, y) in zip(x.unbind(0), clean, strict=True)]

    def _clean(self, indices: list[int]) -> list[Sample]:
        if hasattr(self.base, "__getitems__"):
            return self.base.__getitems__(indices)
        return [self.base[index] for index in indices]
