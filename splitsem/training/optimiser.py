"""AdamW with a one-cycle learning rate, for a whole network or for its halves on two machines."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR


@dataclass(frozen=True)
class OptimiserSettings:
    """The settings that both halves of a network share, so that training the halves apart equals training the whole.

    Attributes:
        learning_rate: peak of the cycle.
        weight_decay: AdamW's.
        gradient_clip_norm: largest norm of the gradients of both halves together.
        total_steps: length of the cycle.
        constant_rate: ``learning_rate`` in every step in place of the cycle, as for a federated client's training.
    """

    learning_rate: float
    weight_decay: float
    gradient_clip_norm: float
    total_steps: int
    constant_rate: bool = False

    def __post_init__(self) -> None:
        for name in ("learning_rate", "gradient_clip_norm", "total_steps"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be 0 or more and finite, got {self.weight_decay}")


def adamw_one_cycle(
    parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float, total_steps: int
) -> tuple[AdamW, OneCycleLR]:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) under one cycle (Smith & Topin 2018, arXiv 1708.07120)."""
    optimizer = AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    return optimizer, OneCycleLR(optimizer, max_lr=learning_rate, total_steps=total_steps)


class HalfOptimiser:
    """The optimiser of one half of a network; the gradient is clipped by the norm of both halves together.

    AdamW treats each weight by itself, and the learning rate depends on the step's number only, so two optimisers of
    halves equal one of the whole. Only the norm is common: ``‖(g_head, g_tail)‖ = √(‖g_head‖² + ‖g_tail‖²)``.

    Args:
        parameters: of this half; may be empty.
        settings: the same on both sides.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], settings: OptimiserSettings) -> None:
        self.parameters, self.settings = list(parameters), settings
        self.num_steps = 0
        if self.parameters:
            rate, decay = settings.learning_rate, settings.weight_decay
            self._schedule: OneCycleLR | None = None
            if settings.constant_rate:
                self._optimizer = AdamW(self.parameters, lr=rate, weight_decay=decay)
            else:
                self._optimizer, self._schedule = adamw_one_cycle(self.parameters, rate, decay, settings.total_steps)

    def norm(self) -> float:
        """Norm of this half's gradients, 0 when the half has none."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0

    def step(self, other_norm: float) -> None:
        """Clip with the norm of both halves' gradients, update the weights, and drop the gradients."""
        if self.parameters:
            total = torch.tensor(math.hypot(self.norm(), other_norm))
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings.gradient_clip_norm, total)
            self._optimizer.step()
            if self._schedule is not None:
                self._schedule.step()
            self._optimizer.zero_grad()
        self.num_steps += 1
