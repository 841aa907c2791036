"""TrainingPlan: what the device and the server must agree on before the first training step."""

import json
from dataclasses import dataclass

from splitsem.codecs.codec import Codec
from splitsem.codecs.decoders import builtin_decoders
from splitsem.errors import ConfigError
from splitsem.lightning.optimiser import OptimiserSettings
from splitsem.tasks.task import Task
from splitsem.transport.plan import Plan


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Plan):
    """A Plan, whose weights are those that training starts from, and how both halves are trained.

    Attributes:
        training_fingerprint: of the network as captured in train mode.
        task: name of the task's class; its loss is computed by the server.
        learning_rate, weight_decay, gradient_clip_norm, total_steps: see ``OptimiserSettings``.
        seed: of the random numbers (dropout) that the halves draw.
        gradient_codec: class name of the built-in codec that carries the gradients back.
        gradient_settings: its constructor's arguments as a JSON object.
        constant_rate: see ``OptimiserSettings``.
        group: name of the devices that train one common tail, see ``CommonTail``; empty: a tail of this device's own.
        is_averaged: how the common tail is made of theirs.
        num_samples: the device's, its weight in a mean; 0 for one that only asks.
    """

    training_fingerprint: str
    task: str
    learning_rate: float
    weight_decay: float
    gradient_clip_norm: float
    total_steps: int
    seed: int
    gradient_codec: str = "Identity"
    gradient_settings: str = "{}"
    constant_rate: bool = False
    group: str = ""
    is_averaged: bool = False
    num_samples: int = 0

    def __post_init__(self) -> None:
        try:
            self.optimiser()
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc

    def optimiser(self) -> OptimiserSettings:
        """The optimiser's settings, the same on both sides."""
        return OptimiserSettings(
            self.learning_rate, self.weight_decay, self.gradient_clip_norm, self.total_steps, self.constant_rate
        )

    def make_gradient_codec(self) -> Codec:
        """The codec of the gradients: one of this package's, never a class that the other end names freely.

        Raises ConfigError when there is none of this name, or its settings make no sense.
        """
        kinds = {type(codec).__name__: type(codec) for codec in builtin_decoders()}
        if self.gradient_codec not in kinds:
            raise ConfigError(f"gradients travel by one of {', '.join(kinds)}, got {self.gradient_codec!r}")
        try:
            return kinds[self.gradient_codec](**json.loads(self.gradient_settings))
        except (TypeError, ValueError, RecursionError) as exc:
            raise ConfigError(f"gradient codec {self.gradient_codec} with {self.gradient_settings}: {exc}") from exc


def task_name(task: Task) -> str:
    """The task's class, as both ends must name it."""
    return f"{type(task).__module__}.{type(task).__qualname__}"
