"""CompressedGradients sends every step's gradients through a codec's real bytes before the optimiser sees them."""

import time

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError


class CompressedGradients(Callback):
    """Trains with ``ĝ = decode(encode(g + e))`` in place of the gradient g, and keeps the rest: ``e ← g + e − ĝ``.

    The method is error feedback (Seide et al. 2014; Karimireddy et al. 2019, arXiv 1901.09847): a later step carries
    what a step's bytes leave out. Error feedback with TopK is gradient sparsification (Stich et al. 2018, arXiv
    1809.07599). The optimiser gets what a machine that averages gradients would get; clipping comes afterwards.

    One payload holds all gradients of a step. Each parameter's gradient is one row, so a share of values or a range
    applies per parameter. A parameter without a gradient in a step sends nothing in that step and keeps its rest e.

    Args:
        codec: any codec without weights, e.g. TopK or Quantise.

    Attributes:
        epochs: for each epoch, the means over its steps of ``gradient_bytes`` (the payload), ``gradient_raw_bytes`` (as
            float32) and ``gradient_codec_s`` (seconds of encoding and decoding).
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.epochs: list[dict[str, float]] = []
        self._errors: dict[nn.Parameter, Tensor] = {}
        self._num_steps, self._payload_bytes, self._raw_bytes, self._codec_s = 0, 0, 0, 0.0

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        """Called by Lightning after the backward pass and before clipping."""
        self.step([p for group in optimizer.param_groups for p in group["params"]])

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the epoch's means to ``epochs``."""
        num = max(1, self._num_steps)
        self.epochs.append(
            {
                "gradient_bytes": self._payload_bytes / num,
                "gradient_raw_bytes": self._raw_bytes / num,
                "gradient_codec_s": self._codec_s / num,
            }
        )
        self._num_steps, self._payload_bytes, self._raw_bytes, self._codec_s = 0, 0, 0, 0.0

    @torch.no_grad()
    def step(self, parameters: list[nn.Parameter]) -> None:
        """Replace the gradients of ``parameters`` by what the payload of these gradients holds.

        Raises:
            ConfigError: the codec cannot take the gradients, e.g. since a value is not finite.
        """
        began = time.perf_counter()
        wanted = {p: p.grad + self._errors.get(p, 0) for p in parameters if p.grad is not None}
        try:
            payload = self.codec.payload(tuple(gradient.reshape(1, -1) for gradient in wanted.values()))
        except ValueError as exc:
            raise ConfigError(
                f"the gradients cannot be sent by trainer.gradient_codec: {exc}; lower trainer.learning_rate, "
                "or take quant or topk"
            ) from exc
        arrived = self.codec.read(payload)
        for (parameter, gradient), row in zip(wanted.items(), arrived, strict=True):
            parameter.grad = row.reshape(gradient.shape).to(gradient.device, gradient.dtype)
            self._errors[parameter] = gradient - parameter.grad
        self._num_steps += 1
        self._raw_bytes += sum(4 * gradient.numel() for gradient in wanted.values())
        self._payload_bytes += len(payload)
        self._codec_s += time.perf_counter() - began


def compression_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """Means of the gradient metrics over a training's epochs; empty for a training without a gradient codec."""
    names = ("gradient_bytes", "gradient_raw_bytes", "gradient_codec_s")
    if not (history and names[0] in history[0]):
        return {}
    means = {name: sum(epoch[name] for epoch in history) / len(history) for name in names}
    return means | {"gradient_compression_ratio": means["gradient_raw_bytes"] / means["gradient_bytes"]}
