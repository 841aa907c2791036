"""A TrainingPlan is what the edge and the server agree on before the first step of split training."""

import json
from dataclasses import dataclass

from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError
from splitsem.remote.labels import builtin_decoders
from splitsem.tasks.task import Task
from splitsem.training.optimiser import OptimiserSettings
from splitsem_device.peer_text import shown
from splitsem_device.plan import Plan


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Plan):
    """A Plan of split training: ``weights`` are those at the start, and further fields say how both halves train.

    Attributes:
        training_fingerprint: of the network as captured in train mode.
        task: name of the task's class; the server computes the task's loss.
        learning_rate, weight_decay, gradient_clip_norm, total_steps: see ``OptimiserSettings``.
        seed: of the random numbers (dropout) that the halves draw.
        gradient_codec: class name of the built-in codec that carries the gradients back.
        gradient_settings: its constructor's arguments as a JSON object.
        constant_rate: see ``OptimiserSettings``.
        group: name of the clients that train one common tail, see ``CommonTail``; empty: this client has its own tail.
        is_averaged: how clients' tails become the common tail, see ``CommonTail``.
        num_samples: number of the client's samples, its weight in a mean; 0 for a client that does not train.
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
        """The optimiser's settings, equal on both sides."""
        return OptimiserSettings(
            self.learning_rate, self.weight_decay, self.gradient_clip_norm, self.total_steps, self.constant_rate
        )

    def make_gradient_codec(self) -> Codec:
        """The codec of the gradients, always one of this package, never any class that the other end names.

        Raises ConfigError when the package has no codec of this name, or the settings make no sense.
        """
        kinds = {type(codec).__name__: type(codec) for codec in builtin_decoders()}
        if self.gradient_codec not in kinds:
            raise ConfigError(f"gradients travel by one of {', '.join(kinds)}, got {shown(self.gradient_codec)!r}")
        try:
            return kinds[self.gradient_codec](**json.loads(self.gradient_settings))
        except (TypeError, ValueError, RecursionError) as exc:
            settings = shown(self.gradient_settings)
            raise ConfigError(f"gradient codec {self.gradient_codec} with {settings}: {shown(exc)}") from exc


def task_name(task: Task) -> str:
    """The name of the task's class, by which both ends compare tasks."""
    return f"{type(task).__module__}.{type(task).__qualname__}"
