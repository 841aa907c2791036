"""ultralytics_detector: YOLOv5, v8, 11 and 12 of the package ultralytics, whose licence is AGPL-3.0."""

import os
from collections.abc import Sequence
from typing import Any

from splitsem import extras
from splitsem.models.checkpoints import load_weights, read_weights
from splitsem.models.detection.detector import Detector
from splitsem.models.detection.yolo_heads import DistanceBoxes, TowerMaps, check_pictures
from splitsem.models.image_front import check_name

_NAMES = [f"{family}{size}" for family in ("yolov5", "yolov8", "yolo11", "yolo12") for size in "nsmlx"]


def ultralytics_detector(
    name: str,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    num_classes: int = 80,
    weights: str | None = None,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.7,
) -> Detector:
    """A YOLO network of ultralytics, built from its own description; its modules and weights keep their names.

    The network ends with the raw maps of its head; ``DistanceBoxes`` decodes them. Nothing is downloaded.

    Args:
        name: ``yolov5n`` … ``yolo12x``.
        input_shape: ``(3, height, width)`` of one picture, both multiples of 32.
        output_shape: ``(most, 6)``: boxes of a picture at most.
        num_classes: classes of a box.
        weights: a local state dict, see ``read_weights``; None starts with random weights. A ``.pt`` as published holds
            a whole pickled network: where it is trusted, ``YOLO(file).model.state_dict()`` gives what to save.
        score_threshold, iou_threshold: see ``splitsem.detections.suppress``; ultralytics suppresses above 0.7.

    Raises:
        ConfigError: the package is missing, the name is unknown, or pictures or weights do not fit.
    """
    check_name(name, _NAMES, "ultralytics (AGPL-3.0)")
    os.environ.setdefault("YOLO_OFFLINE", "1")  # it asks a server for news on import otherwise
    os.environ.setdefault("YOLO_VERBOSE", "false")
    with extras.needed("ultralytics", "model=ultralytics", "its licence is AGPL-3.0; model=libreyolo is MIT"):
        from ultralytics.nn.tasks import DetectionModel
    check_pictures(name, input_shape)
    network = DetectionModel(f"{name}.yaml", ch=3, nc=num_classes, verbose=False)
    if weights is not None:
        load_weights(network, read_weights(weights), num_classes, weights)
    layers: Any = network.model
    head = layers[-1]
    layers[-1] = TowerMaps(head)
    for name_kept in ("f", "i", "type"):  # where a layer's inputs come from, as the package keeps it
        setattr(layers[-1], name_kept, getattr(head, name_kept))
    strides = [int(stride) for stride in head.stride]
    return Detector(
        network, DistanceBoxes(strides, head.reg_max, output_shape[0], score_threshold, iou_threshold)
    ).eval()
