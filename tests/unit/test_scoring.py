"""Scores by sample, and the intervals made of them."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from splitsem.intervals import NUM_DRAWS, ci95, half_width, resamples
from splitsem.scoring import SampleScores, score, score_samples
from splitsem.tasks.digits import Digits
from splitsem.tasks.disaster import Disaster
from splitsem.tasks.netqos import NetQos


def right_of(num_right: int, num: int) -> tuple[Tensor, Tensor]:
    y = torch.zeros(num, dtype=torch.int64)
    y[num_right:] = 1
    return torch.nn.functional.one_hot(torch.zeros(num, dtype=torch.int64), 10).float(), y


def scored(outputs: Tensor, y: Tensor) -> np.ndarray:
    samples = SampleScores(Digits())
    samples.add(outputs, y)
    draws = samples.finish().draws
    assert draws is not None
    return draws


def test_the_interval_of_an_accuracy_is_that_of_a_share() -> None:
    draws = scored(*right_of(320, 400))
    assert draws.mean() == pytest.approx(0.8, abs=0.01)
    assert half_width(draws) == pytest.approx(1.96 * (0.8 * 0.2 / 400) ** 0.5, rel=0.15)


def test_networks_that_err_on_the_same_samples_differ_by_less_than_their_intervals() -> None:
    draws, fewer = scored(*right_of(320, 400)), scored(*right_of(318, 400))
    assert half_width(draws - fewer) < 0.2 * half_width(draws)
    assert half_width(draws - draws) == 0.0


@pytest.mark.parametrize("task", [Digits(), Disaster(num_train=1, num_val=1, num_test=6), NetQos()])
def test_scores_are_those_of_the_task_whatever_the_batches(task) -> None:
    num = 6
    x = torch.arange(num).reshape(num, 1)
    outputs = torch.randn(num, *task.output_shape, generator=torch.Generator().manual_seed(0))
    y = torch.stack([torch.as_tensor(task.splits().test[i][1]) for i in range(num)])

    def network(index: Tensor) -> Tensor:
        return outputs[index.flatten()]

    whole = score(network, task, [(x, y)])
    found = score_samples(network, task, zip(x.split(4), y.split(4), strict=True))
    assert found.metrics == pytest.approx(whole)
    assert found.num_samples == num
    assert found.draws is not None
    assert found.draws.shape == (NUM_DRAWS,)


def test_draws_of_a_mean_iou_are_the_mean_iou_of_the_drawn_samples() -> None:
    task = Disaster(num_train=1, num_val=1, num_test=6)
    outputs = torch.randn(6, *task.output_shape, generator=torch.Generator().manual_seed(0))
    y = torch.stack([task.splits().test[i][1] for i in range(6)])
    samples = SampleScores(task)
    samples.add(outputs, y)
    draws = samples.finish().draws
    assert draws is not None
    for draw in (0, 7):
        chosen = torch.from_numpy(resamples(6)[draw].astype(int))
        again = [index for index, times in enumerate(chosen.tolist()) for _ in range(times)]
        assert draws[draw] == pytest.approx(score(torch.clone, task, [(outputs[again], y[again])])["score"])


def test_a_single_sample_has_no_interval() -> None:
    outputs, y = right_of(1, 1)
    samples = SampleScores(Digits())
    samples.add(outputs, y)
    assert samples.finish().draws is None


class Largest(Metric):
    """The largest output seen: no function of sums over samples."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("largest", torch.tensor(0.0), dist_reduce_fx="max")

    def update(self, y_hat: Tensor, y: Tensor) -> None:
        self.largest = torch.maximum(self.largest, y_hat.max())

    def compute(self) -> Tensor:
        return self.largest


def test_a_score_that_is_no_function_of_sums_has_no_interval() -> None:
    class Odd(Digits):
        def metrics(self) -> MetricCollection:
            return MetricCollection({"score": Largest()})

    samples = SampleScores(Odd())
    samples.add(*right_of(3, 4))
    found = samples.finish()
    assert found.metrics == {"score": 1.0}
    assert found.draws is None


def test_ci95_is_students_and_says_nothing_of_a_single_value() -> None:
    assert ci95([0.5]) is None
    assert ci95([0.90, 0.92, 0.94]) == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)
