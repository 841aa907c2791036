"""code_importance tells how much each symbol of a code matters to the task's loss, for a batch of samples."""

from typing import Any

import torch
from torch import Tensor

from splitsem.codecs.learned.learned import LearnedCodec
from splitsem.codecs.learned.symbol_codec import SymbolCodec
from splitsem.splitting.cut import Cut
from splitsem.tasks.task import Task
from splitsem.training.codec_module import integrated_gradients
from splitsem.training.output_loss import OutputLoss
from splitsem.trees import call, mapped, num_samples


def code_importance(
    codec: LearnedCodec, cut: Cut, task: Task, x: Any, y: Any, num_steps: int = 16
) -> tuple[Tensor, str]:
    """Magnitude of the integrated gradients of the task's loss over a clean link, and ``symbols`` or ``features``.

    A codec of symbols is attributed at the levels of its symbols ``(B, K, h, w)``, any other codec at the features that
    the tail receives ``(B, C, H, W)``. The second result names which of the two.

    Args:
        codec: in eval mode.
        cut: head and tail.
        task: gives the loss, or distillation takes its place, see ``OutputLoss``.
        x: a batch of samples, where the network is.
        y: the samples' targets.
        num_steps: points on the path from zero.
    """
    with torch.no_grad():
        (z,) = call(cut.head, x)
        coded = codec.code(z, None)
        wanted = cut.network_tail(z)
    y, tail = mapped(lambda tensor: tensor.to(z.device), y), cut.with_tail(codec.tail).network_tail
    output_loss = OutputLoss.of(task, wanted, y, cut.postprocess is not None).towards(y, lambda: wanted)

    def task_loss(z_hat: Tensor) -> Tensor:
        output = tail(z_hat)
        return num_samples(y) * output_loss(output if coded.local is None else codec.combine(coded.local, output))

    shape: tuple[int, ...]
    if isinstance(codec, SymbolCodec) and coded.code is not None:
        values, shape, what = coded.code, codec.code_shape, "symbols"

        def loss(code: Tensor) -> Tensor:
            return task_loss(codec.reconstruct(code, [None] * len(code), z.dtype))
    else:
        values, shape, what = coded.z_hat.flatten(1), codec.tensor_shape, "features"

        def loss(code: Tensor) -> Tensor:
            return task_loss(code.reshape(coded.z_hat.shape))

    return integrated_gradients(loss, values, num_steps).abs().reshape(-1, *shape), what
