"""Figures of a division of samples: who has how many of each class, and of each domain where there are domains."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from splitsem.plots.partition import partition
from splitsem.tasks.classification import ClassificationTask
from splitsem.tasks.dealing import class_counts
from splitsem.tasks.domains import Domains
from splitsem.tasks.labels import domains_of
from splitsem.tasks.task import Task


def who_has_what(
    task: Task, labels: NDArray[np.int64] | None, parts: Sequence[NDArray[np.int64]], subtitle: str
) -> dict[str, Figure]:
    """``partition``, and ``partition_domains`` where the samples are of several domains.

    Args:
        task: whose training split was divided.
        labels: of that split; None where its samples have none, then there is no figure.
        parts: each client's samples.
        subtitle: how they were divided.
    """
    if labels is None:
        return {}
    counts = class_counts(labels, parts)
    figures = {"partition": partition(counts, _class_names(task, counts.shape[1]), subtitle)}
    if isinstance(task, Domains) and task.domain is None and len(task.corruptions) > 1:
        names = [f"{i} {c.name} {c.value:.3g}" for i, c in enumerate(task.corruptions)]
        figures["partition_domains"] = partition(
            class_counts(domains_of(task.splits().train), parts), names, subtitle, kinds="domains"
        )
    return figures


def _class_names(task: Task, num_classes: int) -> list[str]:
    names = task.class_names if isinstance(task, ClassificationTask) else ()
    return [*map(str, names[:num_classes]), *map(str, range(len(names), num_classes))]
