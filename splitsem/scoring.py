"""Scores of a network over a data set, and what each sample contributes, so that a score has an interval."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import isclose
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitsem.intervals import resamples
from splitsem.tasks.task import Task

if TYPE_CHECKING:
    from torchmetrics import Metric

Batches = Iterable[tuple[Tensor, Tensor]]


def score(network: Callable[[Tensor], Tensor], task: Task, batches: Batches) -> dict[str, float]:
    """The task's metrics of ``network`` over ``batches`` of ``(x, y)``, computed in float32 on the CPU."""
    metrics = task.metrics()
    with torch.inference_mode():
        for x, y in batches:
            metrics.update(network(x).float().cpu(), y)
    return {name: float(value) for name, value in metrics.compute().items()}


@dataclass(frozen=True)
class Scored:
    """A task's metrics over some samples, and its score on bootstrap draws of them.

    Attributes:
        metrics: as ``score`` gives them.
        num_samples: how many samples there were.
        draws: the score on each draw of the samples, ``(NUM_DRAWS,)`` float32, the same draws for every network; None
            for a single sample, or where the task's score is no function of sums over samples.
    """

    metrics: dict[str, float]
    num_samples: int
    draws: NDArray[np.float32] | None = field(repr=False)


def score_samples(network: Callable[[Tensor], Tensor], task: Task, batches: Batches) -> Scored:
    """``score``, with what the samples say about its uncertainty."""
    samples = SampleScores(task)
    with torch.inference_mode():
        for x, y in batches:
            samples.add(network(x), y)
    return samples.finish()


class SampleScores:
    """The task's metrics, and the sums behind its score, sample by sample.

    The sums are the states of the metric that gives the score. Where adding them up over the samples does not give the
    score, the metric is no function of sums, and there are no draws.
    """

    def __init__(self, task: Task) -> None:
        self._metrics = task.metrics()
        self._one = _score_metric(self._metrics.clone())
        self._names = tuple(self._one.metric_state)
        self._rows: list[NDArray[np.float64]] = []

    def add(self, output: Tensor, y: Tensor) -> None:
        """Count a batch of outputs ``(batch, *output_shape)`` on any device and their targets."""
        output = output.float().cpu()
        self._metrics.update(output, y)
        kind = type(self._one)
        for row, target in zip(output.split(1), y.split(1), strict=True):
            self._one.reset()
            kind.update(self._one, row, target)  # the class's own function, without the wrapper's bookkeeping
            states = [getattr(self._one, name) for name in self._names]
            self._rows.append(np.concatenate([np.asarray(s, dtype=np.float64).ravel() for s in states]))

    def finish(self) -> Scored:
        """The scores of all that was added."""
        metrics = {name: float(value) for name, value in self._metrics.compute().items()}
        return Scored(metrics, len(self._rows), self._draws(metrics["score"]))

    def _draws(self, score: float) -> NDArray[np.float32] | None:
        if len(self._rows) < 2 or len({len(row) for row in self._rows}) > 1:
            return None
        sums = np.stack(self._rows)
        self._one.reset()
        shapes = {name: getattr(self._one, name) for name in self._names}
        if not isclose(self._of(sums.sum(0), shapes), score, rel_tol=1e-5, abs_tol=1e-6):
            return None
        drawn = resamples(len(sums)).astype(np.float64) @ sums
        return np.array([self._of(row, shapes) for row in drawn], dtype=np.float32)

    def _of(self, sums: NDArray[np.float64], shapes: dict[str, Any]) -> float:
        """The score that the metric computes from these sums."""
        at = 0
        for name, like in shapes.items():
            part = torch.from_numpy(sums[at : at + like.numel()]).reshape(like.shape)
            setattr(self._one, name, part.to(like.dtype))
            at += like.numel()
        found = type(self._one).compute(self._one)
        return float(found["score"] if isinstance(found, dict) else found)


def _score_metric(metrics: Any) -> "Metric":
    """The metric of a collection that gives ``score``: the one of this name, or else the one that reports it."""
    by_name = dict(metrics.items(keep_base=True))
    return by_name.get("score") or next(iter(by_name.values()))
