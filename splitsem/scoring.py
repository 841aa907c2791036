"""Scores of a network over a data set, and what each sample contributes, so that a score has an interval."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitsem.errors import ConfigError
from splitsem.intervals import resamples
from splitsem.tasks.task import Task
from splitsem.trees import mapped, num_samples, rows

Batches = Iterable[tuple[Any, Any]]


def score(network: Callable[..., Any], task: Task, batches: Batches) -> dict[str, float]:
    """The task's metrics over ``batches`` of ``(x, y)``, in float32 on the CPU; ``network`` gets ``x`` as it is."""
    metrics = task.metrics()
    with torch.inference_mode():
        for x, y in batches:
            metrics.update(mapped(plain, network(x)), y)
    return {name: float(value) for name, value in metrics.compute().items()}


def check_found(task: Task, unsplit: float, samples: str) -> None:
    """Raise ConfigError where a network without labels finds nothing in ``samples``: it does not agree with itself."""
    if task.is_agreement and unsplit == 0:
        raise ConfigError(
            f"the unsplit network finds nothing in the {samples} samples, so that agreement with it says nothing: take "
            "trained weights or other samples, or for boxes a lower task.source.score_threshold"
        )


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


def score_samples(network: Callable[..., Any], task: Task, batches: Batches) -> Scored:
    """``score``, with what the samples say about its uncertainty."""
    samples = SampleScores(task)
    with torch.inference_mode():
        for x, y in batches:
            samples.add(network(x), y)
    return samples.finish()


class SampleScores:
    """The task's metrics, and the sums behind its score, sample by sample.

    The sums are the states of the metric that gives the score. Where adding them up over the first batch does not give
    what the metric makes of that batch, the metric is no function of sums, and there are no draws. A metric may have
    ``sample_states(preds, target)``, which gives the states of each sample at once, with a dimension in front;
    ``score_of(**states)``, which takes the states of many draws likewise; or, where it is no function of sums,
    ``draws(resamples)``: the score on each draw, of how often each sample is in it.
    """

    def __init__(self, task: Task) -> None:
        self._metrics = task.metrics()
        self._name, self._one = _score_metric(self._metrics.clone())
        self._names = tuple(self._one.metric_state)
        self._rows: list[NDArray[np.float64]] = []
        self._num_samples = 0
        self._is_sum = True

    def add(self, output: Any, y: Any) -> None:
        """Count a network's output for a batch, on any device, and its targets."""
        output = mapped(plain, output)
        is_first = not self._num_samples
        self._num_samples += num_samples(output)
        if is_first or not self._is_sum or len(self._metrics) > 1:
            self._metrics.update(output, y)
        if self._is_sum:
            self._add_rows(output, y)
        if is_first:
            whole = _flat(self._of_name().metric_state)
            self._is_sum = whole is not None and np.allclose(np.sum(self._rows, axis=0), whole, rtol=1e-5)

    def finish(self) -> Scored:
        """The scores of all that was added."""
        if self._is_sum:
            self._give(self._of_name(), np.sum(self._rows, axis=0))
        metrics = {name: float(value) for name, value in self._metrics.compute().items()}
        return Scored(metrics, self._num_samples, self._draws() if self._num_samples > 1 else None)

    def _of_name(self) -> Any:
        """The metric of the collection that gives the score."""
        return self._metrics[self._name]

    def _add_rows(self, output: Any, y: Any) -> None:
        """Keep the states that each sample by itself gives the metric, by the class's own function: it is faster."""
        at_once: Callable[..., dict[str, Tensor]] | None = getattr(self._one, "sample_states", None)
        if at_once is not None:
            states_of = at_once(output, y)
            self._rows += [*torch.cat([states_of[name].double().flatten(1) for name in self._names], 1).numpy()]
            return
        for row, target in zip(rows(output), rows(y), strict=True):
            self._one.reset()
            type(self._one).update(self._one, row, target)
            states = _flat(self._one.metric_state)
            if states is None:
                self._is_sum = False
                return
            self._rows.append(states)

    def _draws(self) -> NDArray[np.float32] | None:
        """The score on each draw of the samples."""
        own: Callable[..., NDArray[np.float32]] | None = getattr(self._of_name(), "draws", None)
        if own is not None:
            return own(resamples(self._num_samples))
        if not self._is_sum:
            return None
        sums = np.stack(self._rows)
        drawn = resamples(len(sums)).astype(np.float64) @ sums
        score_of: Callable[..., Tensor] | None = getattr(self._one, "score_of", None)
        if score_of is not None:
            return np.asarray(score_of(**self._states(drawn)), dtype=np.float32)
        return np.array([self._of(row) for row in drawn], dtype=np.float32)

    def _of(self, sums: NDArray[np.float64]) -> float:
        """The score that the metric computes from these sums."""
        self._give(self._one, sums)
        found = type(self._one).compute(self._one)
        return float(found["score"] if isinstance(found, dict) else found)

    def _give(self, metric: Any, sums: NDArray[np.float64]) -> None:
        for name, state in self._states(sums).items():
            setattr(metric, name, state)

    def _states(self, sums: NDArray[np.float64]) -> dict[str, Tensor]:
        """The states by name, from sums ``(…, all states)``."""
        states, at = {}, 0
        for name in self._names:
            like: Any = getattr(self._one, name)
            part = torch.from_numpy(sums[..., at : at + like.numel()])
            states[name] = part.reshape((*sums.shape[:-1], *like.shape)).to(like.dtype)
            at += like.numel()
        return states


def plain(tensor: Tensor) -> Tensor:
    """As metrics take it: on the CPU, floating-point values in float32."""
    return tensor.float().cpu() if tensor.is_floating_point() else tensor.cpu()


def _flat(states: dict[str, Any]) -> NDArray[np.float64] | None:
    """All states behind each other; None where one is a list, as in metrics that keep every sample."""
    if not all(isinstance(state, Tensor) for state in states.values()):
        return None
    return np.concatenate([state.double().ravel().numpy() for state in states.values()])


def _score_metric(metrics: Any) -> tuple[str, Any]:
    """The metric of a collection that gives ``score``: the one of this name, or else the first one."""
    by_name = dict(metrics.items(keep_base=True))
    name = "score" if "score" in by_name else next(iter(by_name))
    return name, by_name[name]
