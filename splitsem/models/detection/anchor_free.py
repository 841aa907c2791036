"""AnchorFreeDetector: a small one-stage detector without anchors, narrow where it is worth cutting; trains on a CPU."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from splitsem.detections import suppress
from splitsem.models.detection.detector import Detector

STRIDES = (8, 16)
_NUM_EXTRA = 5  # channels of a map in front of the classes: four distances, quality
_LARGEST_EXPONENT = 6.0  # a distance of 400 cells: larger than any picture, and far from overflow
_RARE = -4.6  # logit of 1 %, which classes start with: nearly all places are background (arXiv 1708.02002)


class AnchorFreeDetector(Detector):
    """Two scales of places, each of which may propose a box around itself (FCOS: Tian et al., arXiv 1904.01355).

    The network returns a list of two maps ``(batch, 5 + num_classes, height / stride, width / stride)`` with strides
    8 and 16: distances from the cell's centre to the box's left, top, right and bottom in units of the stride (above
    0), the logit of the box's quality (the IoU that it is expected to have), then a logit for each class. A box scores
    the geometric mean of its quality's and its class's probabilities.

    Stages, in order: ``stem stage1 stage2 stage3 neck head8 head16``. ``stage2`` ends narrow: all that follows is made
    of its map with stride 8, so that cuts behind it are natural bottlenecks.

    Args:
        input_shape: ``(channels, height, width)`` of the picture; height and width divisible by 16.
        output_shape: ``(most, 6)``; ``most`` is the largest number of boxes in a picture.
        num_classes: classes of things.
        width: channels of the stem; each stage has twice as many inside.
        bottleneck_width: channels that leave ``stage2``.
        score_threshold: boxes with lower scores are dropped.
        iou_threshold: of two boxes of a class that overlap more than this, one is dropped.

    Raises:
        ValueError: sizes that do not fit.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        num_classes: int,
        width: int = 16,
        bottleneck_width: int = 16,
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
    ) -> None:
        if min(width, bottleneck_width, num_classes) < 1:
            raise ValueError(
                "width, bottleneck_width and num_classes must be at least 1, "
                f"got {(width, bottleneck_width, num_classes)}"
            )
        if len(input_shape) != 3 or any(side % STRIDES[-1] for side in input_shape[1:]):
            raise ValueError(
                f"input_shape must be (channels, height, width) with sides divisible by {STRIDES[-1]}, "
                f"got {tuple(input_shape)}"
            )
        if len(output_shape) != 2 or output_shape[1] != 6:
            raise ValueError(
                f"output_shape must be (most, 6), got {tuple(output_shape)}: AnchorFreeDetector only detects; choose "
                "task=detection, or another model"
            )
        network = _Network(input_shape[0], num_classes, width, bottleneck_width)
        super().__init__(network, Decode(STRIDES, score_threshold, iou_threshold, output_shape[0]))


class _Network(nn.Module):
    """From pictures to the maps of both scales."""

    def __init__(self, channels: int, num_classes: int, width: int, bottleneck_width: int) -> None:
        super().__init__()
        self.stem = _conv(channels, width, 4, stride=2)
        self.stage1 = nn.Sequential(_conv(width, 2 * width, 4, stride=2), _conv(2 * width, 2 * width))
        self.stage2 = nn.Sequential(
            _conv(2 * width, 4 * width, 4, stride=2),
            _conv(4 * width, 4 * width),
            _conv(4 * width, bottleneck_width, 1),
        )
        self.stage3 = nn.Sequential(_conv(bottleneck_width, 8 * width, 4, stride=2), _conv(8 * width, 8 * width))
        self.neck = _Neck(bottleneck_width, 8 * width, 4 * width)
        self.head8 = _Head(4 * width, num_classes)
        self.head16 = _Head(4 * width, num_classes)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stage2(self.stage1(self.stem(x)))
        fine, coarse = self.neck(fine, self.stage3(fine))
        return [self.head8(fine), self.head16(coarse)]


class _Neck(nn.Module):
    """Hands what the coarse scale has seen to the fine one (FPN: Lin et al., arXiv 1612.03144)."""

    def __init__(self, fine: int, coarse: int, width: int) -> None:
        super().__init__()
        self.coarse, self.fine = _conv(coarse, width, 1), _conv(fine, width, 1)
        self.joined = _conv(width, width)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        coarse = self.coarse(coarse)
        enlarged = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return self.joined(self.fine(fine) + enlarged), coarse


class _Head(nn.Module):
    """From features to a map of proposals."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.tower = _conv(width, width)
        self.proposals = nn.Conv2d(width, _NUM_EXTRA + num_classes, 1)
        nn.init.normal_(self.proposals.weight, std=0.01)
        bias = torch.cat((torch.zeros(_NUM_EXTRA), torch.full((num_classes,), _RARE)))
        self.proposals.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        proposals = self.proposals(self.tower(x))
        distances = proposals[:, :4].clamp(max=_LARGEST_EXPONENT).exp()
        return torch.cat((distances, proposals[:, 4:]), dim=1)


class Decode(nn.Module):
    """From maps of proposals to detections ``(batch, most, 6)`` inside the picture; see ``AnchorFreeDetector``.

    Args:
        strides: pixels between the places of each map.
        score_threshold: boxes with lower scores are dropped.
        iou_threshold: of two boxes of a class that overlap more than this, one is dropped.
        most: boxes in a picture.
    """

    def __init__(self, strides: Sequence[int], score_threshold: float, iou_threshold: float, most: int) -> None:
        super().__init__()
        self.strides, self.most = tuple(strides), most
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Detections ``(batch, most, 6)`` of the maps of all scales."""
        scales = [_boxes(made, stride) for made, stride in zip(maps, self.strides, strict=True)]
        corners, scores = (torch.cat(parts, dim=1) for parts in zip(*scales, strict=True))
        return suppress(corners, scores, self.score_threshold, self.iou_threshold, self.most)


def _boxes(made: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Corners ``(batch, places, 4)`` and scores ``(batch, places, classes)`` of one map."""
    height, width = made.shape[2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=made.device) + 0.5, torch.arange(width, device=made.device) + 0.5, indexing="ij"
    )
    left, top, right, bottom = made[:, :4].float().unbind(1)
    corners = torch.stack(
        (
            (x - left).clamp(min=0),
            (y - top).clamp(min=0),
            (x + right).clamp(max=width),
            (y + bottom).clamp(max=height),
        ),
        dim=-1,
    )
    scores = (made[:, 4:5].sigmoid() * made[:, 5:].sigmoid()).sqrt().movedim(1, -1)
    return (corners * stride).flatten(1, 2), scores.flatten(1, 2)


def _conv(source: int, channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    padding = (kernel_size - 1) // 2
    return nn.Sequential(
        nn.Conv2d(source, channels, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),  # not in place: a cut may lie before it
    )
