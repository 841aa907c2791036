"""TailTrainer trains a client's copy of the tail on the server, with a loss and an optimiser."""

import contextlib
import copy
import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import safetensors.torch
import torch
from torch import Tensor

from splitsem.codecs.codec import Codec, Tensors
from splitsem.errors import ConfigError, DataError, PayloadError
from splitsem.remote.training_messages import StepReply
from splitsem.splitting.trainable import TrainableCut, TrainableHalf
from splitsem.training.optimiser import HalfOptimiser, OptimiserSettings

_generator = threading.Lock()  # torch's generator is one for the whole process


@contextlib.contextmanager
def seeded(seed: int, step: int, side: Literal["head", "tail"], device: torch.device) -> Iterator[None]:
    """Draw random numbers from a stream of this step and side, and leave the process's own stream as it was.

    The halves cannot share one stream across machines, and a server draws for several clients. So dropout masks differ
    from those of unsplit training, but are equal in every run with this seed.
    """
    digest = hashlib.sha256(f"{seed} {step} {side}".encode()).digest()
    with _generator, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:8], "little"))
        yield


class TailTrainer:
    """Trains a copy of the tail of ``cut``; ``cut`` itself, which the server serves, does not change.

    A step has two parts, because the gradient's norm is common to both halves: ``step`` computes the gradients, and
    ``settle`` updates the weights when the next request brings the norm of the head's gradients.

    Args:
        cut: the network at the start.
        loss: of ``(y_hat, y)``, computed on the CPU, where unfit labels raise an error and do not crash CUDA.
        settings: the optimiser's.
        gradient_codec: encodes the gradients that go back.
        seed: of dropout.
        device: where the tail is.
    """

    def __init__(
        self,
        cut: TrainableCut,
        loss: Callable[[Tensor, Tensor], Tensor],
        settings: OptimiserSettings,
        gradient_codec: Codec,
        seed: int,
        device: torch.device,
    ) -> None:
        self.cut = cut
        self.tail = TrainableHalf(*copy.deepcopy((cut.tail.train, cut.tail.evaluate)))
        self.optimiser = HalfOptimiser(self.tail.parameters(), settings)
        self.loss, self.gradient_codec, self.seed, self.device = loss, gradient_codec, seed, device
        self._head_learns, self._draws = cut.head_learns, self.tail.draws
        self._has_gradients = False
        self._kept: bytes | None = None

    def step(self, z_hat: Tensors, y: Tensor) -> StepReply:
        """Forward, loss and backward for one batch; ``settle`` must come before the next step.

        Raises:
            PayloadError: the labels do not fit the output.
            ConfigError: the loss is not finite, or all planned steps are done.
        """
        number = self.optimiser.num_steps
        if number >= self.optimiser.settings.total_steps:
            raise ConfigError(f"expected {self.optimiser.settings.total_steps} steps as planned, got one more")
        received = self.cut.steps.received(z_hat)
        leaves = tuple(t.requires_grad_(self._head_learns and t.is_floating_point()) for t in received)
        with seeded(self.seed, number, "tail", self.device) if self._draws else contextlib.nullcontext():
            output = self.tail.train(*leaves)
        loss = self._loss(output, y, number)
        if loss.requires_grad:
            loss.backward()
        self._has_gradients = True
        return StepReply(loss.item(), self.optimiser.norm(), self._encoded_gradients(leaves, number))

    def settle(self, head_norm: float) -> None:
        """Update the weights by the gradients of ``step``; harmless when there are none."""
        if self._has_gradients:
            if not (math.isfinite(head_norm) and head_norm >= 0):
                raise PayloadError(f"expected the norm of the head's gradients, got {head_norm}")
            self._has_gradients = False
            self.optimiser.step(head_norm)

    @torch.no_grad()
    def evaluate(self, z_hat: Tensors) -> Tensor:
        """The tail's output in eval mode, with the present weights."""
        return self.tail.evaluate(*self.cut.evaluation.received(z_hat))

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load weights and statistics, under the model's own names, and forget the kept weights."""
        for name, tensor in self.tail.state().items():
            tensor.copy_(state[name])
        self._kept = None

    def keep(self) -> None:
        """Remember the present weights."""
        self._kept = self._serialised()

    def weights(self) -> bytes:
        """The weights kept last, else the present weights, as a safetensors file under the model's own names."""
        if self._kept is None:
            self.keep()
        assert self._kept is not None
        return self._kept

    def _loss(self, output: Tensor, y: Tensor, number: int) -> Tensor:
        try:
            loss = self.loss(output.cpu(), y)
        except (DataError, RuntimeError, IndexError, ValueError, TypeError) as exc:
            reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
            raise PayloadError(f"labels {y.dtype} {tuple(y.shape)} do not fit the task's loss: {reason}") from exc
        if not bool(loss.isfinite()):
            rate = self.optimiser.settings.learning_rate
            raise ConfigError(f"the loss is {loss.item()} at step {number}: lower trainer.learning_rate (now {rate:g})")
        return loss

    def _encoded_gradients(self, leaves: Tensors, number: int) -> bytes:
        gradients = tuple(t.grad if t.grad is not None else torch.zeros_like(t) for t in leaves if t.requires_grad)
        if not gradients:
            return b""
        try:
            return self.gradient_codec.payload(gradients)
        except ValueError as exc:
            raise ConfigError(f"the gradients of step {number} cannot be sent: {exc}") from exc

    def _serialised(self) -> bytes:
        state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self.tail.state().items()}
        return safetensors.torch.save(state)
