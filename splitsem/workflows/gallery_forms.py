"""The forms that results have in a gallery: how far two of them disagree, and how they are drawn."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from splitsem import extras, trees
from splitsem.detections import Boxes, unpack
from splitsem.errors import ConfigError
from splitsem.report.gallery_samples import NOTHING, Forecast, Found, Label, Shown
from splitsem.tasks.answer import likeliest
from splitsem.tasks.task import Forecasting, Task
from splitsem.workflows.drawing import Drawing

_LEAST_SCORE = 0.25  # of a box that counts, as in agreement
_LEAST_IOU = 0.5
_MOST_BOXES = 20
_FIGURES = "splitsem.report.gallery_figures"


class Kept(NamedTuple):
    """A sample and what both networks made of it; ``x`` and ``y`` are batches of one, the results are rows."""

    number: int
    x: Any
    y: Any
    unsplit: Tensor
    split: Tensor


class Form(ABC):
    """What the results of a task look like.

    Args:
        task: whose results these are.
    """

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
    def results(self, output: Any, raw: Tensor | None = None) -> Tensor:
        """What is compared and drawn of a batch of outputs: one small tensor on the CPU, a row a sample.

        Args:
            output: as it is where it is needed, which may be no more than what an answer says.
            raw: the tail's own output for these samples, or for those of them that did not exit on the edge, where
                that is known.
        """

    @abstractmethod
    def disagreement(self, unsplit: Tensor, split: Tensor) -> Tensor:
        """How far the results of a batch disagree, ``(batch,)``, at least 0; 0 where they are alike."""

    @abstractmethod
    def draw(self, kept: Sequence[Kept], title: str, subtitle: str) -> Drawing:
        """The gallery of these samples."""

    def picture(self, one: Kept) -> NDArray[np.float32] | None:
        """The sample's picture for ``imshow``; a picture of other than three channels shows its first."""
        if not self.task.is_image:
            return None
        pixels: NDArray[np.float32] = one.x[0].float().clamp(0, 1).numpy()
        return pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]

    def class_name(self, number: int) -> str:
        """The class's name, or its number."""
        return str(self.task.class_names[number]) if number < len(self.task.class_names) else str(number)


class Classes(Form):
    """Results are the classes' probabilities; all in one class where an answer names it without saying how sure.

    Where nothing arrived they are all zero.
    """

    def results(self, output: Any, raw: Tensor | None = None) -> Tensor:
        """See Form."""
        output = _first(output)
        best = likeliest(output)
        only_named = functional.one_hot(best, output.shape[1]).float() * (output != 0).any(1, keepdim=True)
        is_answer = (output == output.round()).all(1)
        probabilities = torch.where(is_answer[:, None], only_named, output.softmax(1))
        if raw is not None and raw.shape[1:] == output.shape[1:]:
            # what exits on the edge passes no tail, and says by itself how sure it is
            went_on = is_answer if len(raw) < len(output) else torch.ones_like(is_answer)
            if int(went_on.sum()) == len(raw):
                logits = torch.zeros_like(output)
                logits[went_on] = raw.float().cpu()
                told = went_on & is_answer & (likeliest(logits) == best)
                probabilities = torch.where(told[:, None], logits.softmax(1), probabilities)
        return probabilities

    def disagreement(self, unsplit: Tensor, split: Tensor) -> Tensor:
        """Total variation, and 1 more where the class is another one; 0 where an answer names the same class."""
        is_other = (likeliest(unsplit) != likeliest(split)) | (unsplit.any(1) != split.any(1))
        is_named = split.max(1).values == 1
        return is_other + (unsplit - split).abs().sum(1) / 2 * (is_other | ~is_named)

    def draw(self, kept: Sequence[Kept], title: str, subtitle: str) -> Drawing:
        """See Form."""
        samples = []
        for one in kept:
            truth = None
            if isinstance(one.y, Tensor) and one.y.numel() == 1 and not self.task.is_agreement:
                truth = Label(self.class_name(int(one.y)))
            found = self._label(one.unsplit), self._label(one.split)
            samples.append(Shown(one.number, self.picture(one), *found, truth, self.task.text_of(one.x)))
        return Drawing(f"{_FIGURES}.labels", (samples, title, subtitle))

    def _label(self, probabilities: Tensor) -> Label:
        sure, best = probabilities.max(0)
        if not sure:
            return Label(NOTHING)
        return Label(self.class_name(int(best)), None if sure == 1 else float(sure))


class ClassMaps(Form):
    """Results are the class of each pixel."""

    def results(self, output: Any, raw: Tensor | None = None) -> Tensor:
        """See Form."""
        output = _first(output)
        return likeliest(output).to(torch.uint8 if output.shape[1] <= 256 else torch.int32)

    def disagreement(self, unsplit: Tensor, split: Tensor) -> Tensor:
        """Share of the pixels that are of another class."""
        return (unsplit != split).flatten(1).float().mean(1)

    def draw(self, kept: Sequence[Kept], title: str, subtitle: str) -> Drawing:
        """See Form."""
        samples = [
            Shown(one.number, self.picture(one), one.unsplit.long().numpy(), one.split.long().numpy()) for one in kept
        ]
        names = dict(enumerate(map(str, self.task.class_names)))
        return Drawing(f"{_FIGURES}.masks", (samples, names, self.task.palette, title, subtitle))


class Detected(Form):
    """Results are boxes as in ``splitsem.detections``."""

    def results(self, output: Any, raw: Tensor | None = None) -> Tensor:
        """See Form."""
        return _first(output)

    def disagreement(self, unsplit: Tensor, split: Tensor) -> Tensor:
        """1 − 2·Σ IoU of matched boxes / number of boxes, of those with a score of at least 0.25."""
        shares = []
        for ours, theirs in zip(_clear(unsplit), _clear(split), strict=True):
            num = len(ours.corners) + len(theirs.corners)
            overlap = sum(iou for _, _, iou in matches(ours, theirs))
            shares.append(1 - 2 * overlap / num if num else 0.0)
        return torch.tensor(shares).clamp_min(0)

    def draw(self, kept: Sequence[Kept], title: str, subtitle: str) -> Drawing:
        """See Form."""
        samples = []
        for one in kept:
            ours, theirs = next(_clear(one.unsplit[None])), next(_clear(one.split[None]))
            pairs = matches(ours, theirs)
            found = (self._found(ours, {i for i, _, _ in pairs}), self._found(theirs, {j for _, j, _ in pairs}))
            samples.append(Shown(one.number, self.picture(one), *found))
        return Drawing(f"{_FIGURES}.boxes", (samples, title, f"{subtitle} · boxes of score ≥ {_LEAST_SCORE}"))

    def _found(self, boxes: Boxes, matched: set[int]) -> Found:
        """The boxes with the highest scores, and all that only one network finds among them."""
        names = [
            f"{self.class_name(int(number))} {float(score):.2f}"
            for number, score in zip(boxes.classes, boxes.scores, strict=True)
        ]
        is_matched = np.array([i in matched for i in range(len(names))], bool)
        return Found(boxes.corners.numpy()[:_MOST_BOXES], names[:_MOST_BOXES], is_matched[:_MOST_BOXES])


class Forecasts(Form):
    """Results are how a series goes on, in the task's own numbers."""

    def results(self, output: Any, raw: Tensor | None = None) -> Tensor:
        """See Form."""
        return _first(output)

    def disagreement(self, unsplit: Tensor, split: Tensor) -> Tensor:
        """Root of the mean squared difference."""
        return (unsplit - split).flatten(1).square().mean(1).sqrt()

    def draw(self, kept: Sequence[Kept], title: str, subtitle: str) -> Drawing:
        """See Form."""
        task = self.task
        assert isinstance(task, Forecasting)
        samples = []
        for one in kept:
            made = [task.series(one.x[0], future) for future in (one.unsplit, one.split, one.y[0])]
            unsplit, split, truth = (Forecast(past.numpy(), future.numpy()) for past, future in made)
            samples.append(Shown(one.number, None, unsplit, split, None if self.task.is_agreement else truth))
        return Drawing(f"{_FIGURES}.forecasts", (samples, task.unit, title, subtitle))


class OutputValues(Form):
    """Results are all values of the output, in order."""

    def results(self, output: Any, raw: Tensor | None = None) -> Tensor:
        """See Form."""
        return torch.cat([tensor.float().cpu().flatten(1) for tensor in trees.leaves(output)], 1)

    def disagreement(self, unsplit: Tensor, split: Tensor) -> Tensor:
        """Root of the mean squared difference."""
        return (unsplit - split).square().mean(1).sqrt()

    def draw(self, kept: Sequence[Kept], title: str, subtitle: str) -> Drawing:
        """See Form."""
        samples = [Shown(one.number, None, one.unsplit.numpy(), one.split.numpy()) for one in kept]
        return Drawing(f"{_FIGURES}.bars", (samples, title, subtitle))


def form_of(task: Task) -> Form:
    """The form of a task's results, as its answer coder says; all values where it has none, or says another."""
    if isinstance(task, Forecasting):
        return Forecasts(task)
    try:
        form = task.answer_coder().drawn_as
    except ConfigError:  # it does not say what its answer is
        return OutputValues(task)
    if form == "classes":
        return Classes(task)
    if form == "class map" and len(task.output_shape) == 3:
        return ClassMaps(task)
    return Detected(task) if form == "boxes" and task.is_image else OutputValues(task)


def matches(ours: Boxes, theirs: Boxes) -> list[tuple[int, int, float]]:
    """Pairs of boxes of one class that overlap by at least a half, with their IoU; the largest overlap goes first."""
    with extras.needed("vision", "a gallery of boxes", "or give workflow.gallery=0"):
        from torchvision.ops import box_iou  # 1.5 s to import

    iou = box_iou(ours.corners, theirs.corners) * (ours.classes[:, None] == theirs.classes[None])
    pairs: list[tuple[int, int, float]] = []
    while iou.numel() and (best := float(iou.max())) >= _LEAST_IOU:
        i, j = divmod(int(iou.argmax()), iou.shape[1])
        pairs.append((i, j, best))
        iou[i], iou[:, j] = 0, 0
    return pairs


def _clear(detections: Tensor) -> Any:
    """The boxes of each picture that count."""
    return unpack(detections * (detections[..., 4:5] >= _LEAST_SCORE))


def _first(output: Any) -> Tensor:
    """The output, or the first tensor of a structure, as float32 on the CPU."""
    return trees.leaves(output)[0].float().cpu()
