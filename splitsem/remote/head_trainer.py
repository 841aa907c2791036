"""HeadTrainer is the edge's side of split training: head, codec and an optimiser around a TrainingTail."""

import contextlib
import time

import torch
from torch import Tensor, nn

from splitsem.codecs.codec import Codec, Tensors
from splitsem.codecs.expected import Expected
from splitsem.errors import ConfigError, PayloadError
from splitsem.remote.tail_trainer import seeded
from splitsem.remote.training_plan import TrainingPlan
from splitsem.remote.training_tail import TrainingTail
from splitsem.splitting.trainable import TrainableCut
from splitsem.training.optimiser import HalfOptimiser


class HeadTrainer:
    """Trains the head of ``cut`` here, in place, and the tail of ``cut`` through ``tail``: split learning with labels.

    Gupta & Raskar, "Distributed learning of deep neural network over multiple agents", 2018, arXiv 1810.06060;
    Vepakomma et al., "Split learning for health", 2018, arXiv 1812.00564.

    A step is one round trip: features and labels go up; loss, gradients and the norm of the tail's gradients come back.
    The gradient passes through the codec as ``codec.forward`` defines (straight through).

    Args:
        model: the whole network; shares its weights with the halves of ``cut``.
        cut: head and tail.
        codec: encodes the features.
        tail: the server's end.
        plan: what both ends agree on; the trainer opens the plan.
    """

    def __init__(
        self, model: nn.Module, cut: TrainableCut, codec: Codec, tail: TrainingTail, plan: TrainingPlan
    ) -> None:
        self.model, self.cut, self.head, self.codec = model, cut, cut.head, codec
        self.tail, self.plan = tail, plan
        self.device = cut.evaluation.device
        self.optimiser = HalfOptimiser(self.head.parameters(), plan.optimiser())
        self._gradient_codec = plan.make_gradient_codec()
        self._draws = self.head.draws
        self._kept: dict[str, Tensor] | None = None
        tail.open(plan)

    def step(self, x: Tensor, y: Tensor) -> float:
        """Train both halves on one batch; returns the loss.

        Args:
            x: ``(batch, *input_shape)``.
            y: labels, as the task's loss takes them.

        Raises:
            ConfigError: the features or the loss are not finite.
        """
        began = time.perf_counter()
        number = self.optimiser.num_steps
        with seeded(self.plan.seed, number, "head", self.device) if self._draws else contextlib.nullcontext():
            z = self.head.train(x.to(self.device))
        self.tail.traffic.raw_bytes += sum(t.nbytes for t in z)
        reply = self.tail.step(self._encoded(z), y)
        self._backward(z, reply.gradients)
        self.tail.settle(self.optimiser.norm())
        self.optimiser.step(reply.tail_norm)
        self.tail.traffic.step_s += time.perf_counter() - began
        return reply.loss

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """The output for ``x`` ``(batch, *input_shape)`` in eval mode with the present weights, through real bytes."""
        return self.tail.evaluate(self._encoded(self.head.evaluate(x.to(self.device)))).to(x.device)

    def keep(self) -> None:
        """Remember the present weights of both halves."""
        self._kept = {name: tensor.detach().clone() for name, tensor in self.head.state().items()}
        self.tail.keep()

    def finish(self) -> None:
        """Give ``model`` the weights of both halves that were kept last, else the present weights."""
        own = self.model.state_dict()
        tail = self.tail.weights(sum(tensor.nbytes for tensor in own.values()))
        unknown = [name for name, tensor in tail.items() if name not in own or own[name].shape != tensor.shape]
        if unknown:
            raise PayloadError(f"expected weights of this network, got {unknown[0]}")
        self.model.load_state_dict({**own, **(self._kept or {}), **tail})

    def _encoded(self, z: Tensors) -> bytes:
        try:
            return self.codec.payload(z)
        except ValueError as exc:
            number, rate = self.optimiser.num_steps, self.plan.learning_rate
            raise ConfigError(
                f"the features cannot be sent after {number} steps: {exc}; lower trainer.learning_rate (now {rate:g})?"
            ) from exc

    def _backward(self, z: Tensors, payload: bytes | memoryview) -> None:
        if not self.optimiser.parameters:
            return
        floats = [t for t in self.codec(z) if t.is_floating_point()]
        gradients = self._gradient_codec.read(payload, Expected.like(floats)._replace(place=" as gradients"))
        pairs = [(t, g.to(self.device)) for t, g in zip(floats, gradients, strict=True) if t.requires_grad]
        torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
