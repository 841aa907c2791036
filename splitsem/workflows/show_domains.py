"""Workflow domains: draw samples of a task's domains and the classes that each domain holds, without training."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig

from splitsem.errors import ConfigError
from splitsem.report.data_figures import domains, partition
from splitsem.tasks.classification import ClassificationTask, domains_of
from splitsem.tasks.domains import Domains, suits
from splitsem.tasks.partitions import class_counts
from splitsem.tasks.task import Task
from splitsem.workflows.result import Result


def run(cfg: DictConfig, folder: Path) -> Result:
    """Leave ``domains.png`` and ``partition.png``. Raises ConfigError where the task has no domains."""
    choices = HydraConfig.get().runtime.choices
    task = instantiate(cfg.task)
    if not isinstance(task, Domains):
        remedy = f"task=domains task@task.base={choices['task']}" if suits(task) else "task=domains"
        raise ConfigError(f"task={choices['task']} has no domains; take {remedy}, which has pictures with labels")
    held = task.counts
    pictures, captions = [], []
    for domain in range(len(held)):
        shown = task.data_of([domain]).test
        samples = [shown[i] for i in range(min(cfg.workflow.num_samples, len(task.parts[2][domain])))]
        pictures.append(np.stack([x.numpy() for x, _ in samples]))
        captions.append([task.class_names[y] for _, y in samples])
    fewest = min(map(len, pictures))
    base, rule = choices["task@task.base"], choices["partition@task.partition"]
    given = {name: value for name, value in cfg.task.partition.items() if name not in ("_target_", "seed")}
    settings = [f"{name} {value}" for name, value in given.items() if value is not None]
    figures = {
        "domains": domains(
            np.stack([p[:fewest] for p in pictures]),
            [str(corruption) for corruption in task.corruptions],
            captions,
            f"{base} · test samples",
        ),
        "partition": partition(held, task.class_names, " · ".join([base, rule, *settings]), holder="domain"),
    }
    sizes = held.sum(1)
    metrics = {
        "task": choices["task"],
        "num_domains": len(held),
        "num_train": int(sizes.sum()),
        "num_train_least": int(sizes.min()),
        "num_train_most": int(sizes.max()),
        "num_classes_least": int((held > 0).sum(1).min()),
    }
    headline = (
        f"{len(held)} domains of {base}, {rule}: {sizes.min():,} … {sizes.max():,} training samples, at least "
        f"{metrics['num_classes_least']} of {len(task.class_names)} classes each; {folder / 'domains.png'}"
    )
    return Result(metrics, figures, [], headline)


def who_has_what(
    task: Task, labels: NDArray[np.int64] | None, parts: Sequence[NDArray[np.int64]], subtitle: str
) -> dict[str, Figure]:
    """The figures ``partition`` and, for samples of several domains, ``partition_domains``.

    Args:
        task: the task whose training split was divided.
        labels: labels of that split; None where its samples have none, which gives no figure.
        parts: each client's samples, as indices into that split.
        subtitle: how the samples were divided.
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
