"""detections: the boxes that a network finds, as one tensor ``(batch, most, 6)``; targets have the same form.

A row is ``x1, y1, x2, y2, score, class`` in pixels of the network's input, the highest score first; unused rows are all
zero, and a score is never zero. A row of targets is ``x1, y1, x2, y2, is_crowd, class``; unused rows have class −1.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from splitsem import extras

NUM_COLUMNS = 6
_LEAST_SIDE = 0.5  # pixels


class Boxes(NamedTuple):
    """The boxes of one picture.

    Attributes:
        corners: ``(n, 4)`` float32: x1, y1, x2, y2 in pixels.
        scores: ``(n,)`` float32 in (0, 1]; of targets, 1 for a crowd and 0 for a single thing.
        classes: ``(n,)`` int64.
    """

    corners: Tensor
    scores: Tensor
    classes: Tensor


def pack(found: Sequence[Boxes], most: int) -> Tensor:
    """Detections ``(batch, most, 6)``, of each picture the ``most`` with the highest scores."""
    packed = torch.zeros(len(found), most, NUM_COLUMNS)
    for number, (corners, scores, classes) in enumerate(found):
        best = scores.argsort(descending=True, stable=True)[:most]
        packed[number, : len(best)] = torch.cat(
            [corners[best], scores[best, None], classes[best, None].to(corners.dtype)], 1
        )
    return packed if not found else packed.to(found[0].corners.device)


def unpack(detections: Tensor) -> Iterator[Boxes]:
    """The boxes of each picture of ``(batch, most, 6)``."""
    for row in detections:
        used = row[row[:, 4] > 0]
        yield Boxes(used[:, :4], used[:, 4], used[:, 5].long())


def within(detections: Tensor, size: Sequence[int]) -> Tensor:
    """Detections ``(…, 6)`` cut at the edges of a picture of ``size`` (height, width).

    Rows become zero that are not finite, or narrower or lower than half a pixel there, which no overlap can tell.
    """
    height, width = size
    most = torch.tensor([width, height, width, height], dtype=detections.dtype, device=detections.device)
    corners = torch.minimum(detections[..., :4].clamp_min(0), most)
    has_area = (corners[..., 2:] - corners[..., :2] >= _LEAST_SIDE).all(-1) & detections.isfinite().all(-1)
    return torch.where(has_area[..., None], torch.cat([corners, detections[..., 4:]], -1), 0.0)


def pack_targets(targets: Sequence[Boxes], most: int) -> Tensor:
    """Targets ``(batch, most, 6)``. Raises ValueError for a picture with more than ``most`` boxes."""
    packed = torch.zeros(len(targets), most, NUM_COLUMNS)
    packed[..., 5] = -1
    for number, (corners, is_crowd, classes) in enumerate(targets):
        if len(corners) > most:
            raise ValueError(f"most must be at least {len(corners)}, the boxes of a picture, got {most}")
        packed[number, : len(corners)] = torch.cat([corners, is_crowd[:, None], classes[:, None].to(corners.dtype)], 1)
    return packed


def unpack_targets(targets: Tensor) -> Iterator[Boxes]:
    """The boxes of each picture of targets ``(batch, most, 6)``."""
    for row in targets:
        used = row[row[:, 5] >= 0]
        yield Boxes(used[:, :4], used[:, 4], used[:, 5].long())


def suppress(
    corners: Tensor,
    scores: Tensor,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    most: int = 100,
    most_candidates: int = 1000,
) -> Tensor:
    """Non-maximum suppression, class by class, of all that a one-stage detector proposes.

    Args:
        corners: ``(batch, places, 4)`` boxes in pixels.
        scores: ``(batch, places, classes)`` in [0, 1]; a place may be several classes.
        score_threshold: lower scores are dropped.
        iou_threshold: of two boxes of a class that overlap more than this, the one with the lower score is dropped.
        most: boxes a picture.
        most_candidates: of the highest scores of a picture enter the suppression.

    Returns:
        Detections ``(batch, most, 6)``.
    """
    with extras.needed("vision", "suppressing boxes"):
        from torchvision.ops import batched_nms  # 1.5 s to import

    found = []
    for boxes, by_class in zip(corners.float(), scores.float(), strict=True):
        places, classes = torch.nonzero(by_class > score_threshold, as_tuple=True)
        likelihood = by_class[places, classes]
        best = likelihood.argsort(descending=True, stable=True)[:most_candidates]
        places, classes, likelihood = places[best], classes[best], likelihood[best]
        kept = batched_nms(boxes[places], likelihood, classes, iou_threshold)[:most]
        found.append(Boxes(boxes[places[kept]], likelihood[kept], classes[kept]))
    return pack(found, most)
