"""The skewness term of AgileNN's training: its local features shall carry most of the importance."""

from collections.abc import Callable

from torch import Tensor

from splitsem.codecs.learned.agilenn import AgileNN
from splitsem.lightning.attribution import integrated_gradients
from splitsem.tasks.task import Task

_NUM_STEPS = 2  # on the path from zero, each with a second derivative of the whole server's half


def skewness(codec: AgileNN, tail: Callable[[Tensor], Tensor], task: Task, z: Tensor, y: Tensor) -> Tensor:
    """``codec.skewness_loss`` of the importance that the codec's features have to the task's loss, differentiable.

    A feature's importance to a sample is the magnitude of its integrated gradients, summed over its positions, through
    encoder, decoder and tail or through the local head, and the combined output.

    Args:
        codec: its features learn to be skewed, and so does what follows them.
        tail: from ``z_hat`` to the output.
        task: gives the loss.
        z: crossing tensors ``(B, C, H, W)``.
        y: their targets.
    """

    def loss(features_BFHW: Tensor) -> Tensor:
        z_hat, local = codec.from_features(features_BFHW)
        return len(y) * task.loss(codec.combine(local, tail(z_hat)), y)

    attributed = integrated_gradients(loss, codec.features(z), _NUM_STEPS, create_graph=True)
    return codec.skewness_loss(attributed.abs().sum((2, 3)))
