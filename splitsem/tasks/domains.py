"""Domains: one image classification task seen by several machines, each through a corruption of its own."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from splitsem.errors import ConfigError
from splitsem.tasks.classification import ClassificationTask, Sample, labels_of
from splitsem.tasks.corruption import Corruption
from splitsem.tasks.degradations import corruption
from splitsem.tasks.partitions import Indices, Partition, class_counts, split_alike
from splitsem.tasks.task import Splits, Task


class CorruptedImages(Dataset[Sample]):
    """Some samples of ``base``, each of them corrupted alike whenever it is read, also in training.

    Args:
        base: gives ``(x, y)``, x float32 in [0, 1], ``(channels, height, width)``.
        indices: which samples of ``base``, shape ``(n,)``.
        domains: the domain of each sample, an index into ``corruptions``, shape ``(n,)``.
        corruptions: the corruption of each domain.
        seed: seed of all corruptions.
        split: number of the split, so that the splits draw different numbers.

    Attributes:
        domains: the domain of each sample, as given.
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


MIN_CLASSES = 2


def suits(task: Task) -> bool:
    """Whether domains can be made of a task: pictures that are classified, with labels."""
    return isinstance(task, ClassificationTask) and task.is_image and not task.is_agreement


class Domains(ClassificationTask):
    """Divides the samples of ``base`` among domains; the task's data are those of one domain, or of all.

    The splits of ``base`` stay apart: its test samples are in no domain's training data. Within each split no two
    domains share a sample. ``partition`` divides the training data; val and test follow with the same share of each
    class, so that a domain is scored on what it was trained for. The output keeps all classes of ``base``: networks of
    all domains have one shape, and a network does not know which classes its domain lacks.

    Args:
        base: the task underneath, any image classification.
        domains: a corruption for each, ``{corruption: fog, severity: 3}``; see ``degradations.corruption``.
        domain: the domain whose data the task has, from 0; None for all domains, each sample in its own.
        partition: which samples belong to which domain.
        seed: seed of the corruptions, and of the division of val and test.

    Raises:
        ValueError: a domain is not known, ``domain`` is out of range, or ``base`` does not classify images.

    Attributes:
        corruptions: the corruption of each domain.
    """

    def __init__(
        self,
        base: Task,
        domains: Sequence[Corruption | Mapping[str, Any]],
        partition: Partition,
        domain: int | None = 0,
        seed: int = 0,
    ) -> None:
        if not suits(base):
            name = type(base).__name__
            raise ValueError(f"base must be an image classification task with labels, such as digits, got {name}")
        self.corruptions = tuple(corruption(settings) for settings in domains)
        if not self.corruptions:
            raise ValueError("domains must name at least one corruption, got none")
        last = len(self.corruptions) - 1
        if domain is not None and (type(domain) is not int or not 0 <= domain <= last):
            raise ValueError(f"domain must be 0…{last}, or null for all of them, got {domain}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        channels, height, width = base.input_shape
        super().__init__(base.class_names, (channels, height, width))
        self.base, self.domain, self.partition, self.seed = base, domain, partition, seed

    def data_paths(self) -> Sequence[Path]:
        """The files and folders that ``base`` reads."""
        return self.base.data_paths()

    def _load(self) -> Splits:
        return self.data_of(range(len(self.corruptions)) if self.domain is None else [self.domain])

    def data_of(self, domains: Sequence[int]) -> Splits:
        """The data of some domains together; each split is a ``CorruptedImages``, which knows the samples' domains."""
        made = []
        for split, (base, parts) in enumerate(zip(self.base.splits(), self.parts, strict=True)):
            mine = [parts[domain] for domain in domains]
            of_each = np.repeat(np.asarray(domains), [len(part) for part in mine])
            made.append(CorruptedImages(base, np.concatenate(mine), of_each, self.corruptions, self.seed, split))
        return Splits(*made)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Training samples of each class in each domain, shape ``(domains, classes)``."""
        return class_counts(labels_of(self.base.splits().train), self.parts[0])

    @cached_property
    def parts(self) -> tuple[list[Indices], list[Indices], list[Indices]]:
        """Which samples of ``base`` each domain holds, for each split.

        Raises:
            ConfigError: a domain has samples of one class only, or none to validate or test on.
        """
        train, val, test = (labels_of(split) for split in self.base.splits())
        parts = self.partition.split(train, len(self.corruptions))
        counts = class_counts(train, parts)
        for domain, num_classes in enumerate((counts > 0).sum(1)):
            if num_classes < MIN_CLASSES:
                raise ConfigError(
                    f"domain {domain} gets samples of {num_classes} class, which is no classification; take fewer "
                    "domains, another partition, or a larger task.partition.beta"
                )
        others = [split_alike(labels, counts, self.seed + n) for n, labels in enumerate((val, test), start=1)]
        for name, held in zip(("val", "test"), others, strict=True):
            for domain, part in enumerate(held):
                if not len(part):
                    raise ConfigError(
                        f"domain {domain} of {len(self.corruptions)} gets none of the {sum(map(len, held))} {name} "
                        "samples; take fewer domains, or a partition that gives each more"
                    )
        return parts, others[0], others[1]
