"""CodecModule trains one stage of a learned codec; integrated gradients give two of the terms of its loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from splitsem.codecs.learned.agilenn import AgileNN
from splitsem.codecs.learned.learned import Coded, LearnedCodec, Stage
from splitsem.codecs.learned.symbol_codec import SymbolCodec
from splitsem.tasks.task import Task


def integrated_gradients(
    loss: Callable[[Tensor], Tensor], code_BN: Tensor, num_steps: int = 4, create_graph: bool = False
) -> Tensor:
    """``code · ∫₀¹ ∂loss/∂code(α·code) dα``, baseline zero, by the midpoint rule; of the code's shape ``(B, N)``.

    If the integration is exact, the sum over N is each sample's loss at the code minus its loss at zero.

    Args:
        loss: takes a code ``(B, N)``, returns the sum of the samples' losses, a scalar.
        code_BN: where to attribute.
        num_steps: points on the path.
        create_graph: whether the result can be differentiated by the code and by the weights that ``loss`` uses; else
            the result is detached.

    >>> integrated_gradients(lambda c: c.square().sum(), torch.tensor([[1.0, 2.0]]))
    tensor([[1., 4.]])
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    code = code_BN if create_graph else code_BN.detach()
    total = torch.zeros_like(code)
    for step in range(num_steps):
        at = code * ((step + 0.5) / num_steps)
        at = at if at.requires_grad else at.requires_grad_()
        with torch.enable_grad():
            total = total + torch.autograd.grad(loss(at), at, create_graph=create_graph)[0]
    return code * total / num_steps


_NUM_STEPS = 2  # on the path from zero; each step takes a second derivative of the decoder and the tail


def skewness(codec: AgileNN, tail: Callable[[Tensor], Tensor], task: Task, z: Tensor, y: Tensor) -> Tensor:
    """``codec.skewness_loss`` of the importance that the codec's features have to the task's loss, differentiable.

    A feature's importance to a sample is the magnitude of its integrated gradients, summed over its positions. The
    gradients pass through the combined output to both ways: encoder, decoder and tail, and the local head.

    Args:
        codec: learns skewed features, together with the networks behind its features.
        tail: from ``z_hat`` to the output.
        task: gives the loss.
        z: crossing tensors ``(B, C, H, W)``.
        y: the samples' targets.
    """

    def loss(features_BFHW: Tensor) -> Tensor:
        z_hat, local = codec.from_features(features_BFHW)
        return len(y) * task.loss(codec.combine(local, tail(z_hat)), y)

    attributed = integrated_gradients(loss, codec.features(z), _NUM_STEPS, create_graph=True)
    return codec.skewness_loss(attributed.abs().sum((2, 3)))


_TEMPERATURE = 2.0
_IMPORTANCE_SAMPLES, _IMPORTANCE_EVERY, _IMPORTANCE_MEMORY = 32, 8, 0.9
_GOLDEN = 0.618034  # steps of this share visit an interval evenly


class Teacher(NamedTuple):
    """The uncoded network, frozen.

    Attributes:
        head: from the sample to the crossing tensor (a tuple of one); None where the data are features already.
        tail: from the crossing tensor to ``(output, *layers)``.
    """

    head: Callable[[Tensor], tuple[Tensor, ...]] | None
    tail: nn.Module


class CodecModule(lightning.LightningModule):
    """Trains ``codec`` with the loss of ``stage``; validates over the noise that the codec is trained for.

    Args:
        codec: learns, together with the tail that the codec brings.
        stage: terms of the loss, and settings of the optimiser.
        teacher: gives the crossing tensor and the targets, and carries gradients from its output to ``z_hat``.
        task: gives the task's loss and metrics.
    """

    def __init__(self, codec: LearnedCodec, stage: Stage, teacher: Teacher, task: Task) -> None:
        super().__init__()
        self.codec, self.stage, self.task = codec, stage, task
        self._teacher = (teacher,)  # in a tuple, else Lightning would save the teacher's weights with the codec's
        self.val_metrics = task.metrics()
        self.importance: Tensor | None = None

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, at one signal-to-noise ratio of the codec's range."""
        z, y = self._features(batch)
        snr_db = self.codec.draw_snr_db()
        coded = self.codec.code(z, snr_db)
        terms, _ = self._terms(coded, z, y)
        if self.stage.importance_weight and coded.damage is not None:
            terms["importance"] = self._importance_term(coded, y, snr_db, batch_idx)
        if self.stage.skewness_weight and isinstance(self.codec, AgileNN):
            few = slice(_IMPORTANCE_SAMPLES)
            terms["skewness"] = skewness(self.codec, lambda z_hat: self._tail(z_hat)[0], self.task, z[few], y[few])
        loss = self._weigh(terms)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Score and loss of one batch; the batches visit the range of signal-to-noise ratios evenly."""
        z, y = self._features(batch)
        snr_db = None
        if self.codec.snr_range_db is not None:
            low, high = self.codec.snr_range_db
            snr_db = low + (high - low) * (batch_idx * _GOLDEN % 1)
        terms, output = self._terms(self.codec.code(z, snr_db), z, y)
        self.val_metrics.update(output.float(), y)
        self.log("val_loss", self._weigh(terms), batch_size=len(z))

    def on_validation_epoch_end(self) -> None:
        """Log the task's score."""
        self.log("val_score", self.val_metrics.compute()["score"], prog_bar=True)
        self.val_metrics.reset()

    def configure_optimizers(self) -> Any:
        """AdamW, one cycle over all steps of the stage."""
        parameters = [p for p in self.codec.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.stage.learning_rate, weight_decay=self.stage.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.stage.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _features(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = batch
        (teacher,) = self._teacher
        if teacher.head is None:
            return x, y
        with torch.no_grad():
            return teacher.head(x)[0], y

    def _tail(self, z_hat: Tensor) -> tuple[Tensor, ...]:
        """Output and layers behind the codec, from the codec's own tail where the codec brings one."""
        (teacher,) = self._teacher
        if self.codec.tail is None:
            return teacher.tail(z_hat)
        return functional_call(teacher.tail, dict(self.codec.tail.named_parameters()), (z_hat,))

    def _terms(self, coded: Coded, z: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The terms that the stage asks for, and the network's output with the codec in it."""
        stage, (teacher,) = self.stage, self._teacher
        output, *layers = self._tail(coded.z_hat)
        if coded.local is not None:
            output = self.codec.combine(coded.local, output)
        terms = {}
        if stage.feature_weight:
            terms["feature"] = (coded.z_hat - z).square().mean() / self.codec.deviation.square().mean()
        if stage.layers_weight or stage.logits_weight or stage.distill_weight:
            with torch.no_grad():
                target, *target_layers = teacher.tail(z)
            shares = [(a - b).square().mean() / b.var() for a, b in zip(layers, target_layers, strict=True)]
            terms["layers"] = sum(shares, start=z.new_zeros(()))
            terms["logits"] = (output - target).square().mean()
            terms["distill"] = (
                _TEMPERATURE**2
                * F.kl_div(
                    (output / _TEMPERATURE).log_softmax(1),
                    (target / _TEMPERATURE).log_softmax(1),
                    reduction="none",
                    log_target=True,
                )
                .sum(1)
                .mean()
            )
        if stage.task_weight:
            terms["task"] = self.task.loss(output, y)
        if stage.local_weight and coded.local is not None:
            terms["local"] = self.task.loss(coded.local, y)
        if stage.rate_weight and coded.rate_bits is not None:
            terms["rate"] = coded.rate_bits
        return terms, output

    def _weigh(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.stage, f"{name}_weight") * value for name, value in terms.items()]).sum()

    def _importance_term(self, coded: Coded, y: Tensor, snr_db: float | None, batch_idx: int) -> Tensor:
        """Mean expected damage of the symbols, weighted by an importance (mean 1) that is refreshed every few steps."""
        assert coded.code is not None
        assert coded.damage is not None
        if self.importance is None or batch_idx % _IMPORTANCE_EVERY == 0:
            fresh = self._importance(coded.code[:_IMPORTANCE_SAMPLES], y[:_IMPORTANCE_SAMPLES], snr_db)
            if self.importance is not None:
                fresh = _IMPORTANCE_MEMORY * self.importance + (1 - _IMPORTANCE_MEMORY) * fresh
            self.importance = fresh
        return (self.importance * coded.damage).mean()

    def _importance(self, code: Tensor, y: Tensor, snr_db: float | None) -> Tensor:
        """Importance of each position of the code to the task's loss ``(N,)``, of mean 1."""
        codec = self.codec
        assert isinstance(codec, SymbolCodec)

        def loss(values: Tensor) -> Tensor:
            return len(y) * self.task.loss(
                self._tail(codec.reconstruct(values, [snr_db] * len(values), torch.float32))[0], y
            )

        magnitude = integrated_gradients(loss, code).abs().mean(0)
        return magnitude / magnitude.mean().clamp(min=1e-12)
