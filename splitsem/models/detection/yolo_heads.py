"""What YOLO networks share: their places and pictures, and the anchor-free heads of YOLOv8 and its like."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from splitsem.detections import suppress
from splitsem.errors import ModelError

_STRIDE = 32  # of the coarsest map


def centres(height: int, width: int, like: Tensor, offset: float = 0.5) -> Tensor:
    """``(height · width, 2)``: column and row of each place of a map, plus ``offset``, row by row."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows], -1).reshape(-1, 2).to(like) + offset


def check_pictures(name: str, input_shape: Sequence[int]) -> None:
    """Raise ModelError unless a YOLO network can take such pictures."""
    if len(input_shape) != 3 or input_shape[0] != 3 or any(size % _STRIDE for size in input_shape[1:]):
        raise ModelError(
            f"{name} takes pictures of 3 channels, height and width multiples of {_STRIDE}, got {tuple(input_shape)}; "
            "give the task such a size, e.g. size=[416,416]"
        )


class TowerMaps(nn.Module):
    """A head without its decoding: for each scale one map, the boxes' channels before the classes'.

    Args:
        head: has the towers ``cv2`` (boxes) and ``cv3`` (classes), one a scale; they keep their names.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.cv2, self.cv3 = head.get_submodule("cv2"), head.get_submodule("cv3")

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``(batch, 4 · bins + classes, height, width)``."""
        towers = zip(features, self.cv2.children(), self.cv3.children(), strict=True)
        return tuple(torch.cat([boxes(feature), classes(feature)], 1) for feature, boxes, classes in towers)


class DistanceBoxes(nn.Module):
    """From the maps of ``TowerMaps`` to detections.

    A distance from a place's centre to a side is the mean of ``0 … bins − 1`` under the softmax of its ``bins``
    channels, times the map's stride. Li et al., "Generalized focal loss", NeurIPS 2020, section 3.2.

    Args:
        strides: pixels of the picture from one place to the next, of each map.
        bins: channels of one distance.
        most, score_threshold, iou_threshold: see ``splitsem.detections.suppress``.
    """

    def __init__(
        self, strides: Sequence[int], bins: int, most: int, score_threshold: float, iou_threshold: float
    ) -> None:
        super().__init__()
        self.strides, self.bins, self.most = tuple(strides), bins, most
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Detections ``(batch, most, 6)``."""
        corners, scores = self.proposals(maps)
        return suppress(corners, scores, self.score_threshold, self.iou_threshold, self.most)

    def proposals(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Corners ``(batch, places, 4)`` in pixels and scores ``(batch, places, classes)`` of all places."""
        parts = [self._decoded(raw.float(), stride) for raw, stride in zip(maps, self.strides, strict=True)]
        corners, scores = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        return corners, scores

    def _decoded(self, raw: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        height, width = raw.shape[-2:]
        flat = raw.flatten(2).transpose(1, 2)
        shares = flat[..., : 4 * self.bins].unflatten(2, (4, self.bins)).softmax(-1)
        left_top, right_bottom = (shares @ torch.arange(self.bins).to(shares)).chunk(2, -1)
        places = centres(height, width, flat)
        corners = torch.cat([places - left_top, places + right_bottom], -1) * stride
        return corners, flat[..., 4 * self.bins :].sigmoid()
