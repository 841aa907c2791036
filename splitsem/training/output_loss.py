"""OutputLoss: the losses of a network's raw output, which may be any structure of tensors, for training a codec."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from splitsem.errors import ConfigError
from splitsem.tasks.task import Task
from splitsem.trees import leaves

log = logging.getLogger(__name__)
_TEMPERATURE = 2.0
_LEAST_VARIANCE = 1e-12


def distance(output: Any, target: Any) -> Tensor:
    """Mean over all tensors of ``mean((output − target)²) / var(target)``, a scalar.

    Args:
        output: a structure of tensors.
        target: the same structure.
    """
    pairs = [
        (made.float(), wanted.float())
        for made, wanted in zip(leaves(output), leaves(target), strict=True)
        if wanted.is_floating_point()
    ]
    if not pairs:
        raise ConfigError("the network's raw output has no floating-point tensor, so that no codec can learn from it")
    shares = [(a - b).square().mean() / b.var(correction=0).clamp(min=_LEAST_VARIANCE) for a, b in pairs]
    return sum(shares[1:], start=shares[0]) / len(shares)


def divergence(output: Tensor, target: Tensor) -> Tensor:
    """Kullback–Leibler divergence of classes in dimension 1 at a temperature of 2, mean of the rest; a scalar.

    Hinton et al., "Distilling the knowledge in a neural network", arXiv 1503.02531.
    """
    soft, wanted = ((logits / _TEMPERATURE).log_softmax(1) for logits in (output, target))
    return _TEMPERATURE**2 * F.kl_div(soft, wanted, reduction="none", log_target=True).sum(1).mean()


class OutputLoss(NamedTuple):
    """What a codec's stages mean by ``distill_weight`` and ``task_weight`` for a given network.

    Attributes:
        task: gives its own loss, where it has one for what the network returns.
        has_own: whether it has; else distillation takes its place.
        has_classes: whether the output is one tensor of logits, ``(B, classes, …)``.
    """

    task: Task
    has_own: bool
    has_classes: bool

    @classmethod
    def of(cls, task: Task, output: Any, y: Tensor, has_postprocess: bool) -> "OutputLoss":
        """Found by a trial on one batch; the log says what takes the place of what.

        Args:
            task: of the network.
            output: what the network returns, before any postprocess.
            y: the samples' targets.
            has_postprocess: whether something follows the network, so that its output is no logits.
        """
        has_classes = isinstance(output, Tensor) and output.dim() > 1 and not has_postprocess
        other = "divergence from" if has_classes else "distance of the raw outputs to"
        why = "the targets are the network's own results" if task.is_agreement else ""
        if not why:
            try:
                task.loss(output, y)
            except ConfigError as exc:
                why = f"the task has no loss for this network's raw output: {exc}"
        if why:
            log.info("In place of the task's loss: %s the unsplit network's (%s)", other, why)
        if not has_classes:
            log.info("In place of a divergence of classes: %s the unsplit network's", other)
        return cls(task, not why, has_classes)

    def distillation(self, output: Any, target: Any) -> Tensor:
        """How far the output is from the unsplit network's: ``divergence`` of classes, else ``distance``."""
        return divergence(output, target) if self.has_classes else distance(output, target)

    def towards(self, y: Tensor, target: Callable[[], Any]) -> Callable[[Any], Tensor]:
        """The task's loss of an output, or the distillation in its place.

        Args:
            y: the samples' targets.
            target: makes the unsplit network's output, called only where it is needed.
        """
        if self.has_own:
            return lambda output: self.task.loss(output, y)
        wanted = target()
        return lambda output: self.distillation(output, wanted)
