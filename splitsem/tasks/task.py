"""Task: the interface between a data set and everything else."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from splitsem.errors import ConfigError
from splitsem.tasks.answer import AnswerCoder
from splitsem_device.picture_input import PictureInput

if TYPE_CHECKING:
    from splitsem.tasks.metrics import AnyMetrics


class Splits(NamedTuple):
    """Three disjoint data sets of (x, y) pairs; nothing is ever fitted or selected on ``test``."""

    train: Dataset
    val: Dataset
    test: Dataset


class Task(ABC):
    """What a network is for: data, loss and score.

    Attributes:
        input_shape: shape of one sample, without the batch, e.g. ``(3, 64, 64)``; empty where a sample is a
            structure of tensors, see ``example``.
        output_shape: shape of the network's output for one sample, e.g. ``(10,)`` or ``(12, 64, 64)``; empty where the
            output is a structure of tensors, which loss, metrics and ``answer_coder`` then take.
        input_bytes: size of one sample as it would be sent without any network (uint8 pixels, or its file format).
        is_agreement: whether there are no labels, so that the unsplit network's own results are the targets: the score
            is then called agreement.
        is_image: whether ``x`` is an image, float32 in [0, 1], that JPEG and WebP can carry.
        class_names: names of the classes, where the output has some, for figures; without, they are shown by number.
        palette: ``(classes, 3)`` RGB, for figures of class maps; None takes colours that can be told apart.
    """

    is_agreement: bool = False
    class_names: Sequence[str] = ()
    palette: NDArray[np.uint8] | None = None
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input_bytes: int
    is_image: bool = False

    @property
    def score_name(self) -> str:
        """What people read for the score."""
        return "agreement" if self.is_agreement else "score"

    def example(self) -> Any:
        """One sample as a batch of one, of any values.

        A task whose samples are structures overrides this: a network gets a mapping by name, a tuple by position.
        """
        return torch.rand(1, *self.input_shape, generator=torch.Generator().manual_seed(0))

    def model_facts(self) -> dict[str, Any]:
        """What a model's constructor is given, where it names it."""
        return {"input_shape": tuple(self.input_shape), "output_shape": tuple(self.output_shape)}

    @abstractmethod
    def splits(self) -> Splits:
        """The data, loaded on the first call and kept. Raises ConfigError when it is not there."""

    def label_by(self, network: Callable[[Any], Any]) -> None:  # noqa: B027 (most tasks have labels)
        """Take the unsplit network's results as the targets, where ``is_agreement``; called once, before any scoring.

        Args:
            network: gives the trained network's output, on the CPU, for a batch of this task.
        """

    def data_paths(self) -> Sequence[Path]:
        """The files and folders that the data are read from; none where all is generated or in an installed package.

        Their contents count in the names of trained weights, so that a network is trained again when they change. A
        folder stands for all files below it but hidden ones. Missing files are named, too: ``splits`` fetches them or
        raises.
        """
        return ()

    def answer_coder(self) -> AnswerCoder:
        """What is needed of the network's output, as bytes: the answer, which travels instead of the output.

        Raises:
            ConfigError: the task does not say so; all of the output then has to travel.
        """
        raise ConfigError(
            f"{type(self).__name__} does not say what its answer is: give it a method answer_coder (see "
            "splitsem.tasks.answer), or let all of the network's output travel: answer=raw"
        )

    def picture_input(self) -> PictureInput | None:
        """How a picture of any size becomes the input, for a device that has pictures; None: the input is none.

        Here, the middle of the picture; a task that makes its own samples of files otherwise says so.
        """
        if not self.is_image or len(self.input_shape) != 3:
            return None
        channels, height, width = self.input_shape
        zeros, ones = [0.0] * channels, [1.0] * channels  # networks normalise for themselves, see ``ImageFront``
        return PictureInput([height, width], channels, mean=zeros, std=ones)

    def text_of(self, x: Any) -> str:
        """The input in words, of a batch of one, for figures; empty where it is no text."""
        return ""

    @abstractmethod
    def loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Mean training loss of a batch, a scalar; ``y_hat`` is the network's output ``(batch, *output_shape)``."""

    @abstractmethod
    def metrics(self) -> "AnyMetrics":
        """Fresh metrics over a data set: ``score`` in [0, 1], higher is better, and any the task adds.

        Of ``tasks.metrics``, or torchmetrics' own.
        """

    def trial_outputs(self, batch: int, seed: int) -> tuple[Any, Tensor]:
        """Random outputs for ``batch`` samples, as a network returns them in train mode, and in eval mode.

        ``check_task`` tries the loss with the former, the metrics with the latter. They are the same
        ``(batch, *output_shape)``, unless the task trains networks that end otherwise in train mode.
        """
        made = torch.randn(batch, *self.output_shape, generator=torch.Generator().manual_seed(seed))
        return made, made


@runtime_checkable
class Forecasting(Protocol):
    """A task whose output says how a series goes on that the input holds.

    Attributes:
        unit: of the series, as a reader should see it, e.g. ``Mbit/s``.
    """

    unit: str

    def series(self, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """The past ``(steps,)`` and the future ``(horizon,)`` in ``unit``, of a sample and its output or ``y``."""
