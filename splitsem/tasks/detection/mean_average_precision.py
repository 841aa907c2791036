"""MeanAveragePrecision: COCO's mAP 50–95 and mAP 50 of what was matched picture by picture, on any draw of pictures.

The rules are pycocotools' (Lin et al., ECCV 2014, arXiv 1405.0312), and the numbers those of torchmetrics'
MeanAveragePrecision over it, which keeps no matches, so that an interval over 500 draws would evaluate 500 times.

B: pictures, D: detections, M: targets of a picture, T: thresholds of the IoU, N: detections of a class, S: draws.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from splitsem.detections import within

# In float32 as torchmetrics has them: a recall of exactly 1/10 does not reach its 0.1.
IOU_THRESHOLDS = torch.linspace(0.5, 0.95, 10).double().numpy()
_RECALLS = torch.linspace(0, 1, 101).double()
_NOT = -1.0
_MOST_VALUES = 1 << 22  # of draws × detections at a time: 32 MB


class Matches(NamedTuple):
    """What some pictures' detections found; used detections and used single targets only, picture by picture.

    Attributes:
        pictures: ``(n,)`` the picture of each detection.
        classes: ``(n,)`` its class.
        scores: ``(n,)`` its score.
        is_right: ``(n, T)`` whether it found a target at this IoU.
        is_ignored: ``(n, T)`` whether it found a crowd, or has no area, and counts neither as right nor as wrong.
        target_pictures: ``(m,)`` the picture of each target that is no crowd.
        target_classes: ``(m,)`` its class.
    """

    pictures: Tensor
    classes: Tensor
    scores: Tensor
    is_right: Tensor
    is_ignored: Tensor
    target_pictures: Tensor
    target_classes: Tensor


def match(detections: Tensor, targets: Tensor) -> Matches:
    """Give each detection, the highest score first, the free target of its class that it overlaps most.

    Args:
        detections: ``(B, D, 6)`` and
        targets: ``(B, M, 6)``, see ``splitsem.detections``.
    """
    found = _by_score(detections.detach().float().cpu().numpy())
    wanted = targets.detach().float().cpu().numpy()
    is_crowd, is_wanted = wanted[..., 4] > 0.5, wanted[..., 5] >= 0
    overlaps = _overlaps(found[..., :4], wanted[..., :4], is_crowd)
    is_possible = (found[:, :, None, 5].astype(np.int64) == wanted[:, None, :, 5].astype(np.int64)) & is_wanted[:, None]
    overlaps = np.where(is_possible, overlaps, _NOT)
    rows, needed = np.arange(len(found))[:, None], np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    is_free = np.repeat((is_wanted & ~is_crowd)[:, None], len(needed), 1)  # (B, T, M)
    is_right = np.zeros((*found.shape[:2], len(needed)), bool)
    is_ignored = np.zeros_like(is_right)
    for number in range(found.shape[1] if wanted.shape[1] else 0):
        overlap = overlaps[:, number, None]  # (B, 1, M)
        single = np.where(is_free, overlap, _NOT)
        best = single.shape[2] - 1 - single[..., ::-1].argmax(-1)  # the last of several, as pycocotools has it
        is_right[:, number] = hit = np.take_along_axis(single, best[..., None], 2)[..., 0] >= needed
        is_free[rows, np.arange(len(needed)), best] &= ~hit
        in_crowd = np.where(is_crowd[:, None], overlap, _NOT).max(-1)
        is_ignored[:, number] = ~hit & (in_crowd >= needed)
    is_odd = (found[..., 2:4] - found[..., :2]).prod(-1) < 0  # left of its left edge: pycocotools ignores it
    is_ignored |= ~is_right & is_odd[..., None]
    used, single_ones = found[..., 4] > 0, is_wanted & ~is_crowd
    parts = (
        np.nonzero(used)[0],
        found[used][:, 5].astype(np.int64),
        found[used][:, 4].astype(np.float64),
        is_right[used],
        is_ignored[used],
        np.nonzero(single_ones)[0],
        wanted[single_ones][:, 5].astype(np.int64),
    )
    return Matches(*map(torch.from_numpy, parts))


def _by_score(found: NDArray[np.float32]) -> NDArray[np.float32]:
    order = np.argsort(-found[..., 4], axis=1, kind="stable")
    return np.take_along_axis(found, order[..., None], 1)


def _overlaps(found: NDArray[Any], wanted: NDArray[Any], is_crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU ``(B, D, M)``; with a crowd, the share of the detection that lies in it."""
    sides = [(boxes[..., 2:] - boxes[..., :2]).astype(np.float64) for boxes in (found, wanted)]
    areas = [side.prod(-1) for side in sides]
    starts = [boxes[..., :2].astype(np.float64) for boxes in (found, wanted)]
    ends = [start + side for start, side in zip(starts, sides, strict=True)]
    low = np.maximum(starts[0][:, :, None], starts[1][:, None])
    high = np.minimum(ends[0][:, :, None], ends[1][:, None])
    both = (high - low).clip(0).prod(-1)
    whole = np.where(is_crowd[:, None], areas[0][..., None], areas[0][..., None] + areas[1][:, None] - both)
    return both / np.maximum(whole, 1e-12)


class MeanAveragePrecision(Metric):
    """``score``: mean over the classes and the IoU thresholds 0.50, 0.55, …, 0.95 of the average precision; ``map50``.

    Classes without a target do not count; without any target both are 0.

    Args:
        size: height and width of the pictures, at whose edges the detections are cut, as targets are that a network
            found, see ``detections.within``; None takes detections as they are, as pycocotools does.
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self, size: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.size = size
        for name in Matches._fields:
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self.add_state("num_pictures", default=torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, output: Tensor, y: Tensor) -> None:
        """Match a batch of detections ``(batch, most, 6)`` with its targets, see ``splitsem.detections``."""
        found = output if self.size is None else within(output, self.size)
        first, pictures = int(self.num_pictures), ("pictures", "target_pictures")  # type: ignore[arg-type]
        for name, part in zip(Matches._fields, match(found, y), strict=True):
            getattr(self, name).append(part + first if name in pictures else part)
        self.num_pictures += len(y)  # type: ignore[operator]

    def compute(self) -> dict[str, Tensor]:
        """``{"score": mAP 50–95, "map50": mAP 50}``."""
        precisions = self._precisions(torch.ones(1, int(self.num_pictures)))[0]  # type: ignore[arg-type]
        return {"score": precisions.mean().float(), "map50": precisions[0].float()}

    def draws(self, resamples: ArrayLike) -> NDArray[np.float32]:
        """``score`` on draws of the pictures.

        Args:
            resamples: ``(S, pictures)``, how often each draw has each picture.

        Returns:
            ``(S,)``.
        """
        return self._precisions(torch.tensor(np.asarray(resamples))).mean(1).float().numpy()

    def _precisions(self, weights: Tensor) -> Tensor:
        """Mean over the classes of the average precision ``(S, T)``, by ``weights`` ``(S, pictures)``."""
        summed = torch.zeros(len(weights), len(IOU_THRESHOLDS), dtype=torch.float64)
        num_classes = torch.zeros(len(weights), 1, dtype=torch.float64)
        for found, target_pictures in self._by_class():
            step = max(_MOST_VALUES // max(len(found.pictures), 1), 1)
            for at in range(0, len(weights), step):
                some = slice(at, at + step)
                num_targets = weights[some][:, target_pictures].double().sum(1, keepdim=True)
                summed[some] += _average_precision(found, weights[some], num_targets)
                num_classes[some] += num_targets > 0
        return summed / num_classes.clamp_min(1)

    def _by_class(self) -> Iterator[tuple["_OfClass", Tensor]]:
        """Each class that has targets: its detections, the highest score first, and its targets' pictures."""
        whole = {name: dim_zero_cat(getattr(self, name)).cpu() for name in Matches._fields if getattr(self, name)}
        for number in whole["target_classes"].unique() if whole else ():
            mine = torch.nonzero(whole["classes"] == number)[:, 0]
            mine = mine[whole["scores"][mine].argsort(descending=True, stable=True)]
            found = _OfClass(*(whole[name][mine] for name in _OfClass._fields))
            yield found, whole["target_pictures"][whole["target_classes"] == number]


class _OfClass(NamedTuple):
    """The detections of a class, the highest score first: ``(N,)``, ``(N, T)``, ``(N, T)``."""

    pictures: Tensor
    is_right: Tensor
    is_ignored: Tensor


def _average_precision(found: _OfClass, weights: Tensor, num_targets: Tensor) -> Tensor:
    """The mean ``(S, T)`` over 101 recalls of the highest precision at this recall or a higher one.

    Precision rises and recall grows at right detections only, so that nothing else needs to be looked at.
    """
    each = weights[:, found.pictures].double()
    so_far = each.cumsum(1)
    made = torch.zeros(len(weights), found.is_right.shape[1], dtype=torch.float64)
    for number, (right, ignored) in enumerate(zip(found.is_right.T, found.is_ignored.T, strict=True)):
        at = torch.nonzero(right)[:, 0]
        if not len(at):
            continue
        num_right = each[:, at].cumsum(1)
        num_counted = so_far[:, at] - ((each * ignored).cumsum(1)[:, at] if ignored.any() else 0)
        precision = num_right / num_counted.clamp_min(1)
        precision = precision.flip(1).cummax(1).values.flip(1)
        reached = torch.searchsorted(num_right / num_targets.clamp_min(1), _RECALLS.repeat(len(weights), 1))
        precision = torch.cat([precision, torch.zeros(len(weights), 1, dtype=torch.float64)], 1)
        made[:, number] = precision.gather(1, reached).mean(1)
    return made
