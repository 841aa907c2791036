"""libreyolo_detector: YOLOX and YOLOv9 of the package libreyolo, whose licence is MIT."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from splitsem import extras
from splitsem.detections import suppress
from splitsem.models.checkpoints import load_weights, read_weights
from splitsem.models.detection.detector import Detector
from splitsem.models.detection.yolo_heads import DistanceBoxes, TowerMaps, centres, check_pictures
from splitsem.models.image_front import check_name

_NAMES = [*(f"yolox_{size}" for size in "ntsmlx"), *(f"yolo9_{size}" for size in "tsmc")]
_STRIDES = (8, 16, 32)


class YoloxMaps(nn.Module):
    """YOLOX up to its maps. It was trained with pictures in blue, green, red and 0 … 255.

    Args:
        model: libreyolo's; its backbone and head keep their names.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = model.get_submodule("backbone"), model.get_submodule("head")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """From ``x`` in [0, 1], red first, to maps ``(batch, 5 + classes, height, width)``, scores in [0, 1]."""
        return tuple(self.head(self.backbone(x.flip(1) * 255)))


class Yolo9Maps(nn.Module):
    """YOLOv9 up to its maps, see ``TowerMaps``.

    Args:
        model: libreyolo's; its backbone, neck and head keep their names.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck = model.get_submodule("backbone"), model.get_submodule("neck")
        self.head = TowerMaps(model.get_submodule("head"))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """From ``x`` in [0, 1] to maps ``(batch, 4 · bins + classes, height, width)``."""
        return self.head(self.neck(*self.backbone(x)))


class YoloxBoxes(nn.Module):
    """From YOLOX's maps to detections.

    At place ``(i, j)`` of a map of stride ``s``, centre ``s (i + x), s (j + y)`` and size ``s exp(w), s exp(h)``.
    Ge et al., "YOLOX: exceeding YOLO series in 2021", arXiv:2107.08430.

    Args:
        most, score_threshold, iou_threshold: see ``splitsem.detections.suppress``.
    """

    def __init__(self, most: int, score_threshold: float, iou_threshold: float) -> None:
        super().__init__()
        self.most, self.score_threshold, self.iou_threshold = most, score_threshold, iou_threshold

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Detections ``(batch, most, 6)``."""
        corners, scores = self.proposals(maps)
        return suppress(corners, scores, self.score_threshold, self.iou_threshold, self.most)

    def proposals(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Corners ``(batch, places, 4)`` in pixels and scores ``(batch, places, classes)`` of all places."""
        parts = []
        for raw, stride in zip(maps, _STRIDES, strict=True):
            flat = raw.float().flatten(2).transpose(1, 2)
            middle = (flat[..., :2] + centres(raw.shape[-2], raw.shape[-1], flat, offset=0)) * stride
            half = flat[..., 2:4].exp() * (stride / 2)
            parts.append((torch.cat([middle - half, middle + half], -1), flat[..., 4:5] * flat[..., 5:]))
        corners, scores = (torch.cat(part, 1) for part in zip(*parts, strict=True))
        return corners, scores


def libreyolo_detector(
    name: str,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    num_classes: int = 80,
    weights: str | None = None,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.65,
) -> Detector:
    """A YOLO network of libreyolo. The network ends with the raw maps of its head. Nothing is downloaded.

    Args:
        name: ``yolox_n`` … ``yolox_x``, ``yolo9_t`` … ``yolo9_c``.
        input_shape: ``(3, height, width)`` of one picture, both multiples of 32.
        output_shape: ``(most, 6)``: boxes of a picture at most.
        num_classes: classes of a box.
        weights: a local checkpoint in libreyolo's key names, see ``read_weights``; None starts with random weights.
        score_threshold, iou_threshold: see ``splitsem.detections.suppress``.

    Raises:
        ConfigError: the package is missing, the name is unknown, or pictures or weights do not fit.
    """
    check_name(name, _NAMES, "libreyolo")
    check_pictures(name, input_shape)
    family, size = name.split("_")
    with extras.needed("detection", "model=libreyolo", "its licence is MIT"):
        from libreyolo.models.yolo9.nn import LibreYOLO9Model
        from libreyolo.models.yolox.nn import LibreYOLOXModel
    is_yolox = family == "yolox"
    model = (LibreYOLOXModel if is_yolox else LibreYOLO9Model)(config=size, nb_classes=num_classes)
    if weights is not None:
        load_weights(model, read_weights(weights), num_classes, weights)
    if is_yolox:
        return Detector(YoloxMaps(model), YoloxBoxes(output_shape[0], score_threshold, iou_threshold)).eval()
    postprocess = DistanceBoxes(_STRIDES, model.reg_max, output_shape[0], score_threshold, iou_threshold)
    return Detector(Yolo9Maps(model), postprocess).eval()
