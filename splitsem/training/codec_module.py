"""CodecModule trains one stage of a learned codec; integrated gradients give two of the terms of its loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor, nn
from torch.func import functional_call

from splitsem.codecs.learned.agilenn import AgileNN
from splitsem.codecs.learned.learned import Coded, LearnedCodec, Stage
from splitsem.codecs.learned.symbol_codec import SymbolCodec
from splitsem.tasks.task import Task
from splitsem.training.output_loss import OutputLoss, distance
from splitsem.trees import call, mapped


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


def skewness(
    codec: AgileNN, tail: Callable[[Tensor], Tensor], output_loss: Callable[[Tensor], Tensor], z: Tensor
) -> Tensor:
    """``codec.skewness_loss`` of the importance that the codec's features have to the task's loss, differentiable.

    A feature's importance to a sample is the magnitude of its integrated gradients, summed over its positions. The
    gradients pass through the combined output to both ways: encoder, decoder and tail, and the local head.

    Args:
        codec: learns skewed features, together with the networks behind its features.
        tail: from ``z_hat`` to the output.
        output_loss: mean loss of the combined outputs.
        z: crossing tensors ``(B, C, H, W)``.
    """

    def loss(features_BFHW: Tensor) -> Tensor:
        z_hat, local = codec.from_features(features_BFHW)
        return len(z) * output_loss(codec.combine(local, tail(z_hat)))

    attributed = integrated_gradients(loss, codec.features(z), _NUM_STEPS, create_graph=True)
    return codec.skewness_loss(attributed.abs().sum((2, 3)))


_IMPORTANCE_SAMPLES, _IMPORTANCE_EVERY, _IMPORTANCE_MEMORY = 32, 8, 0.9
_GOLDEN = 0.618034  # steps of this share visit an interval evenly


class Teacher(NamedTuple):
    """The uncoded network, frozen.

    Attributes:
        head: from the sample to the crossing tensor (a tuple of one); None where the data are features already.
        tail: from the crossing tensor to ``(output, *layers)``; the output may be any structure of tensors.
        postprocess: from that output to what the metrics take; None: nothing follows.
    """

    head: Callable[..., tuple[Tensor, ...]] | None
    tail: nn.Module
    postprocess: nn.Module | None = None


class CodecModule(lightning.LightningModule):
    """Trains ``codec`` with the loss of ``stage``; validates over the noise that the codec is trained for.

    Args:
        codec: learns, together with the tail that the codec brings.
        stage: terms of the loss, and settings of the optimiser.
        teacher: gives the crossing tensor and the targets, and carries gradients from its output to ``z_hat``.
        task: gives the metrics.
        output_loss: of the network's output.
    """

    def __init__(
        self, codec: LearnedCodec, stage: Stage, teacher: Teacher, task: Task, output_loss: OutputLoss
    ) -> None:
        super().__init__()
        self.codec, self.stage, self.output_loss = codec, stage, output_loss
        self._teacher = (teacher,)  # in a tuple, else Lightning would save the teacher's weights with the codec's
        self.val_metrics = task.metrics()
        self.importance: Tensor | None = None

    def training_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, at one signal-to-noise ratio of the codec's range."""
        z, y = self._features(batch)
        snr_db = self.codec.draw_snr_db()
        coded = self.codec.code(z, snr_db)
        terms, _ = self._terms(coded, z, y)
        if self.stage.importance_weight and coded.damage is not None:
            terms["importance"] = self._importance_term(coded, z, y, snr_db, batch_idx)
        if self.stage.skewness_weight and isinstance(self.codec, AgileNN):
            few = slice(_IMPORTANCE_SAMPLES)
            terms["skewness"] = skewness(
                self.codec, lambda z_hat: self._tail(z_hat)[0], self._task_loss(z[few], y[few]), z[few]
            )
        loss = self._weigh(terms)
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Any, Tensor], batch_idx: int) -> None:
        """Score and loss of one batch; the batches visit the range of signal-to-noise ratios evenly."""
        z, y = self._features(batch)
        snr_db = None
        if self.codec.snr_range_db is not None:
            low, high = self.codec.snr_range_db
            snr_db = low + (high - low) * (batch_idx * _GOLDEN % 1)
        terms, output = self._terms(self.codec.code(z, snr_db), z, y)
        (teacher,) = self._teacher
        answer = output if teacher.postprocess is None else teacher.postprocess(output)
        self.val_metrics.update(mapped(lambda t: t.float() if t.is_floating_point() else t, answer), y)
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

    def _features(self, batch: tuple[Any, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = batch
        (teacher,) = self._teacher
        if teacher.head is None:
            return x, y
        with torch.no_grad():
            return call(teacher.head, x)[0], y

    def _tail(self, z_hat: Tensor) -> tuple[Any, ...]:
        """Output and layers behind the codec, from the codec's own tail where the codec brings one."""
        (teacher,) = self._teacher
        if self.codec.tail is None:
            return teacher.tail(z_hat)
        return functional_call(teacher.tail, dict(self.codec.tail.named_parameters()), (z_hat,))

    def _terms(self, coded: Coded, z: Tensor, y: Tensor) -> tuple[dict[str, Tensor], Any]:
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
            if stage.logits_weight:
                terms["logits"] = distance(output, target)
            if stage.distill_weight:
                terms["distill"] = self.output_loss.distillation(output, target)
        if stage.task_weight:
            terms["task"] = self._task_loss(z, y)(output)
        if stage.local_weight and coded.local is not None:
            terms["local"] = self._task_loss(z, y)(coded.local)
        if stage.rate_weight and coded.rate_bits is not None:
            terms["rate"] = coded.rate_bits
        return terms, output

    def _task_loss(self, z: Tensor, y: Tensor) -> Callable[[Any], Tensor]:
        """The loss of an output for these samples, see ``OutputLoss.towards``."""
        (teacher,) = self._teacher

        def target() -> Any:
            with torch.no_grad():
                return teacher.tail(z)[0]

        return self.output_loss.towards(y, target)

    def _weigh(self, terms: dict[str, Tensor]) -> Tensor:
        return torch.stack([getattr(self.stage, f"{name}_weight") * value for name, value in terms.items()]).sum()

    def _importance_term(self, coded: Coded, z: Tensor, y: Tensor, snr_db: float | None, batch_idx: int) -> Tensor:
        """Mean expected damage of the symbols, weighted by an importance (mean 1) that is refreshed every few steps."""
        assert coded.code is not None
        assert coded.damage is not None
        if self.importance is None or batch_idx % _IMPORTANCE_EVERY == 0:
            few = slice(_IMPORTANCE_SAMPLES)
            fresh = self._importance(coded.code[few], self._task_loss(z[few], y[few]), snr_db)
            if self.importance is not None:
                fresh = _IMPORTANCE_MEMORY * self.importance + (1 - _IMPORTANCE_MEMORY) * fresh
            self.importance = fresh
        return (self.importance * coded.damage).mean()

    def _importance(self, code: Tensor, output_loss: Callable[[Any], Tensor], snr_db: float | None) -> Tensor:
        """Importance of each position of the code to the task's loss ``(N,)``, of mean 1."""
        codec = self.codec
        assert isinstance(codec, SymbolCodec)

        def loss(values: Tensor) -> Tensor:
            z_hat = codec.reconstruct(values, [snr_db] * len(values), torch.float32)
            return len(values) * output_loss(self._tail(z_hat)[0])

        magnitude = integrated_gradients(loss, code).abs().mean(0)
        return magnitude / magnitude.mean().clamp(min=1e-12)
