"""The training loss of a one-stage detector without anchors, and which places of its maps answer for which box.

Places as in FCOS (Tian et al., ICCV 2019, arXiv 1904.01355) with centre sampling; focal loss of the classes (Lin et
al., arXiv 1708.02002), GIoU loss of the boxes (Rezatofighi et al., arXiv 1902.09630), and the IoU that a box has as the
target of its quality, in place of FCOS's centre-ness (Wu et al., arXiv 1912.05992).

B: batch, P: places of all maps, M: targets of a picture, C: classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from splitsem import extras
from splitsem.errors import ConfigError

NUM_FIXED = 5
"""Channels before the classes: the distances left, top, right, bottom in strides, and the logit of the quality."""

_RADIUS = 1.5
"""A box is answered for by places at most so many strides from its centre, across and down."""

_LONGEST = 5.0
"""The longest side, in strides, of a box that a map answers for; the coarsest map answers for all longer ones."""


class Places(NamedTuple):
    """The places of all maps, one map after the other.

    Attributes:
        centres: ``(P, 2)`` x and y in pixels.
        strides: ``(P,)`` pixels between neighbours, the same across and down.
        least: ``(P,)`` and
        longest: ``(P,)``: they answer for boxes whose longest side in pixels is above ``least``, up to ``longest``.
    """

    centres: Tensor
    strides: Tensor
    least: Tensor
    longest: Tensor


def places(maps: Sequence[Tensor], height: int) -> Places:
    """The places of maps ``(batch, channels, h, w)``, in any order of strides, for pictures of ``height`` pixels."""
    strides = [height / found.shape[-2] for found in maps]
    rising = sorted(strides)
    bounds = dict(zip(rising, zip([0.0, *(_LONGEST * s for s in rising)], rising, strict=False), strict=True))
    parts = []
    for found, stride in zip(maps, strides, strict=True):
        rows, columns = (torch.arange(size, device=found.device) for size in found.shape[-2:])
        y, x = torch.meshgrid((rows + 0.5) * stride, (columns + 0.5) * stride, indexing="ij")
        longest = float("inf") if stride == rising[-1] else _LONGEST * stride
        facts = torch.tensor((stride, bounds[stride][0], longest), device=found.device).expand(x.numel(), 3)
        parts.append(torch.cat([x.reshape(-1, 1), y.reshape(-1, 1), facts], 1))
    whole = torch.cat(parts)
    return Places(whole[:, :2], *whole[:, 2:].unbind(1))


def assign(at: Places, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which box each place answers for.

    A place answers for the smallest box that it lies in, not far from that box's centre, if the box suits its map; the
    place nearest to a box's centre answers for it even where the box is so small that it lies between places.

    Args:
        at: the places.
        targets: ``(B, M, 6)``, see ``splitsem.detections``.

    Returns:
        The number of each place's target ``(B, P)``, −1 for none, and whether it lies in a crowd and answers for
        nothing ``(B, P)``: what is found there is neither right nor wrong.
    """
    corners, is_used, is_crowd = targets[..., None, :4], targets[..., 5] >= 0, targets[..., 4] > 0.5
    offsets = torch.cat([at.centres - corners[..., :2], corners[..., 2:] - at.centres], -1)  # (B, M, P, 4)
    is_inside = offsets.amin(-1) > 0
    size = (corners[..., 2:] - corners[..., :2])[..., 0, :]
    longest = size.amax(-1, keepdim=True)
    suits = (longest > at.least) & (longest <= at.longest)
    away = (at.centres - (corners[..., :2] + corners[..., 2:]) / 2).abs().amax(-1) / at.strides
    answers = suits & ((is_inside & (away < _RADIUS)) | (away <= 0.5)) & (is_used & ~is_crowd)[..., None]
    area = (size[..., 0] * size[..., 1])[..., None]
    smallest = torch.where(answers, area, torch.inf).min(1)
    numbers = torch.where(smallest.values.isinf(), -1, smallest.indices)
    return numbers, (is_inside & (is_used & is_crowd)[..., None]).any(1) & (numbers < 0)


def detection_loss(maps: Sequence[Tensor], targets: Tensor, height: int) -> Tensor:
    """Focal + 2 · GIoU + quality loss, summed over all places, divided by the number of those that answer for a box.

    Args:
        maps: one ``(B, 5 + C, h, w)`` a scale: the distances from a place to the left, top, right and bottom edges of
            its box in strides (positive), the logit of the IoU that this box is expected to have, the classes' logits.
        targets: ``(B, M, 6)``, see ``splitsem.detections``.
        height: of the pictures in pixels; a map's stride is ``height / h``.

    Returns:
        A scalar; a detector's score of a box is the geometric mean of its class's and its quality's probabilities.
    """
    with extras.needed("vision", "training a detector"):
        from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss  # 1.5 s to import

    targets = targets.to(maps[0].device)
    at = places(maps, height)
    made = torch.cat([found.flatten(2) for found in maps], 2).transpose(1, 2).float()  # (B, P, 5 + C)
    numbers, is_ignored = assign(at, targets)
    rows, columns = torch.nonzero(numbers >= 0, as_tuple=True)
    num = max(len(rows), 1)
    chosen = targets[rows, numbers[rows, columns]]
    is_class = torch.zeros_like(made[..., NUM_FIXED:])
    is_class[rows, columns, chosen[:, 5].long()] = 1
    by_class = sigmoid_focal_loss(made[..., NUM_FIXED:], is_class)[~is_ignored].sum()
    found, centres, strides = made[rows, columns], at.centres[columns], at.strides[columns, None]
    corners = torch.cat([centres - found[:, :2] * strides, centres + found[:, 2:4] * strides], 1)
    overlap = paired_iou(corners.detach(), chosen[:, :4])
    by_box = generalized_box_iou_loss(corners, chosen[:, :4], reduction="sum")
    by_quality = functional.binary_cross_entropy_with_logits(found[:, 4], overlap, reduction="sum")
    return (by_class + 2 * by_box + by_quality) / num


def paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union ``(n,)`` of boxes ``(n, 4)`` and boxes ``(n, 4)``."""
    sides = (torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])).clamp_min(0)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    both = sides.prod(1)
    return both / (areas[0] + areas[1] - both).clamp_min(1e-9)


def check_maps(made: object, num_classes: int) -> Sequence[Tensor]:
    """What the network returned in train mode, if ``detection_loss`` can take it. Raises ConfigError if it cannot."""
    is_maps = isinstance(made, list | tuple) and made and all(isinstance(m, Tensor) and m.ndim == 4 for m in made)
    if not is_maps or any(found.shape[1] != NUM_FIXED + num_classes for found in made):  # type: ignore[attr-defined]
        got = [tuple(found.shape) for found in made] if is_maps else type(made).__name__  # type: ignore[attr-defined]
        raise ConfigError(
            f"task=detection trains networks that return, in train mode, a list of maps (batch, {NUM_FIXED} + "
            f"{num_classes} classes, h, w), as model=detector does; got {got}: give trainer.max_epochs=0 and the "
            "network's own weights, or train it elsewhere"
        )
    return made  # type: ignore[return-value]
