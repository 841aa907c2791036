"""The labels and domains of a data set without its pictures, for partitions."""

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from splitsem.errors import ConfigError


def labels_of(dataset: Dataset) -> NDArray[np.int64]:
    """Class index of every sample, shape ``(n,)``, from the data set's ``labels`` or ``targets``.

    Raises:
        ConfigError: it has neither, so that every picture would have to be read for its label.
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
        ConfigError: it has none, or all samples are of one domain.
    """
    domains = _domains(dataset)
    if len(np.unique(domains)) < 2:
        raise ConfigError(
            f"a partition by domain needs several domains, all {len(domains)} samples are of one: give task.domain=null"
        )
    return domains


def _domains(dataset: Dataset) -> NDArray[np.int64]:
    if isinstance(dataset, Subset):
        return _domains(dataset.dataset)[np.asarray(dataset.indices, np.int64)]
    if not hasattr(dataset, "domains"):
        raise ConfigError(
            f"a partition by domain needs samples of several domains, {type(dataset).__name__} has none: "
            "take task=domains task.domain=null"
        )
    return np.asarray(dataset.domains).astype(np.int64)
