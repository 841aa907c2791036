"""Detection: find the boxes of things in pictures; score = mean average precision, mAP 50–95."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from splitsem.errors import ConfigError
from splitsem.tasks.agreement import OwnResults
from splitsem.tasks.answer import AnswerCoder
from splitsem.tasks.detection.box_list import BoxList
from splitsem.tasks.detection.boxed_pictures import Mirrored, Renumbered
from splitsem.tasks.detection.class_names import NAMED_CLASSES
from splitsem.tasks.detection.loss import NUM_FIXED, check_maps, detection_loss
from splitsem.tasks.task import Splits, Task
from splitsem_device.picture_input import PictureInput

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

MOST_DETECTIONS = 100
"""COCO's rules count so many a picture."""
_LEAST_SIDE, _MOST_SIDE = 16, 4096


class BoxSource(Protocol):
    """Where pictures and their targets come from.

    Attributes:
        class_names: the classes of the targets, in the order of their numbers.
        used_names: those of them that a target may be of.
        size: height and width that suit the pictures, taken where the task names none.
        is_agreement: whether there are no labels: the splits are then ``OwnResults``.
    """

    is_agreement: ClassVar[bool]

    @property
    def class_names(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def used_names(self) -> frozenset[str]: ...  # noqa: D102

    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102

    def splits(self, size: tuple[int, int]) -> Splits:
        """Pictures ``(3, *size)`` with targets ``(most, 6)``. Raises ConfigError when they are not there."""

    def data_paths(self) -> Sequence[Path]:
        """See Task."""


class Detection(Task):
    """Find boxes. x is a picture, y its targets ``(most of the source, 6)``, see ``splitsem.detections``.

    A picture of other proportions than ``size`` is fitted into it, with grey beside it.

    Args:
        source: the pictures.
        size: height and width of the network's input in pixels; None for the source's own.
        classes: the network's classes in order, or ``coco80`` for those of a network trained on COCO; the source's are
            found among them by name. None for the source's own.
        most: detections of a picture that count.
        augment: whether half of the training samples are mirrored, drawn anew each time.

    Raises:
        ValueError: an argument out of range.
    """

    is_image = True

    def __init__(
        self,
        source: BoxSource,
        size: tuple[int, int] | None = None,
        classes: str | Sequence[str] | None = None,
        most: int = MOST_DETECTIONS,
        augment: bool = True,
    ) -> None:
        height, width = size or source.size
        if not (_LEAST_SIDE <= height <= _MOST_SIDE and _LEAST_SIDE <= width <= _MOST_SIDE):
            raise ValueError(f"size must be two numbers of {_LEAST_SIDE}…{_MOST_SIDE} pixels, got {[height, width]}")
        if not 1 <= most <= MOST_DETECTIONS:
            raise ValueError(f"most must be 1…{MOST_DETECTIONS}, got {most}")
        if isinstance(classes, str) and classes not in NAMED_CLASSES:
            raise ValueError(f"classes must be a list of names, null, or {', '.join(NAMED_CLASSES)}, got {classes!r}")
        self.input_shape = (3, height, width)
        self.output_shape = (most, 6)
        self.input_bytes = 3 * height * width
        self.is_agreement = source.is_agreement
        self.source = source
        self._classes = NAMED_CLASSES[classes] if isinstance(classes, str) else classes
        self._augment = augment
        self._splits: Splits | None = None

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The network's classes. Raises ConfigError where the source's files are not there to name them."""
        return tuple(map(str, self.source.class_names if self._classes is None else self._classes))

    def model_facts(self) -> dict[str, Any]:
        """What a model's constructor is given where it names it: the shapes, and ``num_classes``."""
        return {
            "input_shape": self.input_shape,
            "output_shape": self.output_shape,
            "num_classes": len(self.class_names),
        }

    def picture_input(self) -> PictureInput | None:
        """See Task."""
        found = super().picture_input()
        return None if found is None else found._replace(fit="pad")

    def splits(self) -> Splits:
        """The data, loaded on the first call and kept. Raises ConfigError when it is not there."""
        if self._splits is None:
            _, height, width = self.input_shape
            splits = self.source.splits((height, width))
            if not self.is_agreement:
                if self._classes is not None:
                    numbers = self._numbers()
                    splits = Splits(*(Renumbered(split, numbers) for split in splits))
                if self._augment:
                    splits = splits._replace(train=Mirrored(splits.train))
            self._splits = splits
        return self._splits

    def _numbers(self) -> list[int]:
        """The network's number of each class of the source, −1 where it has none, and no target is of that class."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        if missing := sorted(self.source.used_names - {*numbers}):
            raise ConfigError(
                f"the task's classes lack {', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''}, which "
                f"the targets are of: name the network's classes as the annotations do, or leave classes=null"
            )
        return [numbers.get(name, -1) for name in self.source.class_names]

    def label_by(self, network: Callable[[Any], Any]) -> None:
        """See Task."""
        for split in self.splits():
            if isinstance(split, OwnResults):
                split.label_by(network)

    def data_paths(self) -> Sequence[Path]:
        """The source's files."""
        return self.source.data_paths()

    def answer_coder(self) -> AnswerCoder:
        """The boxes, their scores and classes."""
        return BoxList(self.input_shape[1:], len(self.class_names), self.output_shape[0])

    def loss(self, y_hat: Any, y: Tensor) -> Tensor:
        """The loss of what a one-stage detector returns in train mode, see ``loss.detection_loss``.

        Raises:
            ConfigError: ``y_hat`` is something else, such as another detector's maps.
        """
        return detection_loss(check_maps(y_hat, len(self.class_names)), y, self.input_shape[1])

    def trial_outputs(self, batch: int, seed: int) -> tuple[Any, Tensor]:
        """See Task: maps of three scales, and detections in any places."""
        draw = torch.Generator().manual_seed(seed)
        (_, height, width), num_classes = self.input_shape, len(self.class_names)
        maps = []
        for stride in (4, 8, 16):
            shape = (batch, NUM_FIXED + num_classes, height // stride, width // stride)
            made = torch.randn(shape, generator=draw)
            made[:, :4].abs_()
            maps.append(made)
        rows = torch.rand(batch, self.output_shape[0], 6, generator=draw)
        first, second = (rows[..., at : at + 2] * torch.tensor([width, height]) for at in (0, 2))
        scores = rows[..., 4:5].sort(dim=1, descending=True).values.clamp_min(1e-3)
        classes = (rows[..., 5:] * num_classes).floor().clamp_max(num_classes - 1)
        return maps, torch.cat([torch.minimum(first, second), torch.maximum(first, second), scores, classes], -1)

    def metrics(self) -> "MetricCollection":
        """``score`` (mAP 50–95) and ``map50``."""
        from torchmetrics import MetricCollection

        from splitsem.tasks.detection.mean_average_precision import MeanAveragePrecision

        _, height, width = self.input_shape
        return MetricCollection({"map": MeanAveragePrecision((height, width) if self.is_agreement else None)})
