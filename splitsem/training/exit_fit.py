"""Confidence holds the settings of an early exit; it learns the exit, calibrates it and chooses its threshold."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from splitsem.models.exit_head import ExitHead, confidence

Batches = Iterable[tuple[Sequence[Tensor], Tensor]]
"""Crossing tensors, and class indices."""

_MOST_STEPS = 200
_TEMPERATURES = 0.05, 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2
_NUM_BINS = 15
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Confidence:
    """A sample exits where the exit's calibrated confidence is above a threshold.

    Args:
        threshold: in [0, 1]; None: the lowest one that keeps to ``max_loss`` on the validation split.
        max_loss: score in [0, 1] that the exit may cost, against the same samples without it; half the paired 95 %
            interval of the loss counts as loss.
        grid: see ``ExitHead``.
    """

    threshold: float | None = None
    max_loss: float = 0.01
    grid: int = 2

    def __post_init__(self) -> None:
        for name in ("threshold", "max_loss"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be 0 to 1, got {value}")
        if self.grid < 1:
            raise ValueError(f"grid must be at least 1, got {self.grid}")


def fit_exit(head: ExitHead, train: Batches, val: Batches) -> list[dict[str, float]]:
    """Learn the exit in place: its weights on ``train``, its temperature on ``val``.

    The weights minimise cross-entropy ``+ ‖w‖² / 2n`` over n samples of features of unit variance, which is convex:
    logistic regression with scikit-learn's default penalty, by L-BFGS in float64, without any random number.

    Returns:
        One row: ``train_loss``, and the cross-entropy on ``val``: ``val_loss_uncalibrated``, ``val_loss``.
    """
    x, y = _gathered(head, train)
    mean, deviation = x.mean(dim=0), x.std(dim=0, unbiased=False)
    deviation[deviation < 1e-6] = 1.0  # of what is constant, nothing is learned
    weight, bias, train_loss = _logistic((x - mean) / deviation, y, head.linear.out_features)
    weight = weight / deviation
    bias = bias - weight @ mean
    with torch.no_grad():
        x, y = _gathered(head, val)
        logits = x @ weight.T + bias
        temperature = best_temperature(logits, y)
        head.linear.weight.copy_(weight / temperature)
        head.linear.bias.copy_(bias / temperature)
        head.temperature.fill_(temperature)
    losses = {"val_loss_uncalibrated": logits, "val_loss": logits / temperature}
    return [{"train_loss": train_loss} | {name: F.cross_entropy(of, y).item() for name, of in losses.items()}]


@torch.no_grad()
def _gathered(head: ExitHead, batches: Batches) -> tuple[Tensor, Tensor]:
    """The pooled features of all samples, float64 on the CPU, and their classes."""
    pairs = [(head.features(z).double().cpu(), y.cpu()) for z, y in batches]
    x, y = zip(*pairs, strict=True)
    return torch.cat(x), torch.cat(y)


def _logistic(x: Tensor, y: Tensor, num_classes: int) -> tuple[Tensor, Tensor, float]:
    """Weights ``(classes, features)``, biases ``(classes,)`` and loss of the penalised logistic regression."""
    weight = torch.zeros(num_classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=x.dtype, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=_MOST_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, y) + weight.square().sum() / (2 * len(x))
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)
    weight, bias = weight.detach(), bias.detach()
    return weight, bias, F.cross_entropy(x @ weight.T + bias, y).item()


def best_temperature(logits: Tensor, y: Tensor) -> float:
    """The temperature of least cross-entropy of ``logits / temperature``, between 0.05 and 20.

    The loss is convex in ``1 / temperature``, so that a golden-section search over the logarithm finds its minimum.

    Args:
        logits: ``(samples, classes)``.
        y: class indices ``(samples,)``.
    """
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(logits / math.exp(log_temperature), y).item()

    return math.exp(_least(loss, *map(math.log, _TEMPERATURES)))


def _least(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one minimum is least."""
    while high - low > 1e-4:
        step = _GOLDEN * (high - low)
        low, high = (low, low + step) if value(high - step) <= value(low + step) else (high - step, high)
    return (low + high) / 2


def calibration_error(logits: Tensor, y: Tensor) -> float:
    """Expected calibration error: ``Σ over bins of share · |accuracy − mean confidence|``, in 15 equal bins.

    As Guo et al. (arXiv 1706.04599, equation 3) measure it.

    >>> calibration_error(torch.tensor([[0.0, 99.0], [0.0, 99.0]]), torch.tensor([1, 0]))
    0.5
    """
    sure, is_right = confidence(logits), (logits.argmax(dim=1) == y).double()
    bins = (sure * _NUM_BINS).ceil().long().clamp(1, _NUM_BINS)
    return sum(abs((is_right - sure)[bins == b].sum().item()) for b in bins.unique()) / len(y)


@dataclass(frozen=True)
class TradeOff:
    """What the thresholds do on some samples: one place for each number of samples that may exit.

    Attributes:
        threshold: falling, from 1, where no sample exits, to 0, where all do. Between, it is the middle between the
            confidences of two samples, so that a last bit decides nothing.
        share: of the samples that exit.
        score: share of right answers, of the exit where a sample exits, else of the network.
        loss_ci95: half the paired 95 % interval of the loss ``score[0] - score``, by the normal approximation.
    """

    threshold: list[float]
    share: list[float]
    score: list[float]
    loss_ci95: list[float]

    @classmethod
    def of(cls, sure: Tensor, exit_right: Tensor, right: Tensor) -> "TradeOff":
        """The trade-off of samples.

        Args:
            sure: confidence of each, ``(samples,)``.
            exit_right: bool; whether the exit's answer is right.
            right: bool; whether the answer of the network behind the codec is.
        """
        order = sure.double().sort(descending=True)
        ranked, num = order.values, len(sure)
        gain = (exit_right.double() - right.double())[order.indices]
        mean = torch.cat([torch.zeros(1), gain.cumsum(0) / num])
        square = torch.cat([torch.zeros(1), gain.square().cumsum(0) / num])
        half = _NORMAL_95 * ((square - mean.square()).clamp(min=0) / num).sqrt()
        middles = torch.cat([torch.ones(1), (ranked[:-1] + ranked[1:]) / 2, torch.zeros(1)])
        places = torch.cat([torch.ones(1), ranked[:-1] > ranked[1:], torch.ones(1)]).bool()  # equal ones exit together
        share = torch.arange(num + 1, dtype=torch.float64) / num
        columns = middles, share, right.double().mean() + mean, half
        return cls(*(column[places].tolist() for column in columns))

    def lowest(self, max_loss: float) -> float:
        """The lowest threshold whose loss of score, with half its interval added, is at most ``max_loss``.

        >>> two = TradeOff([1.0, 0.8, 0.0], [0.0, 0.5, 1.0], [0.9, 0.9, 0.6], [0.0, 0.01, 0.1])
        >>> [two.lowest(max_loss) for max_loss in (0.0, 0.01, 0.4)]
        [1.0, 0.8, 0.0]
        """
        losses = (self.score[0] - score + half for score, half in zip(self.score, self.loss_ci95, strict=True))
        return min(t for t, loss in zip(self.threshold, losses, strict=True) if loss <= max_loss + 1e-9)
