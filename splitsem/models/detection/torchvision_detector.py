"""torchvision_detector: any detector of torchvision; its backbone is cut, and all that follows runs as it is."""

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from splitsem.detections import Boxes, pack
from splitsem.errors import ModelError
from splitsem.models.checkpoints import fitted, load_weights
from splitsem.models.detection.detector import Detector
from splitsem.models.image_front import first_line

_OF_SIZES = ("min_size", "max_size", "size", "kwargs")  # image_size stands for them
# torchvision sets the epsilon of their batch normalisation to 0 when it loads what it published for them.
_EPSILON_0 = {f"{family}_resnet50_fpn" for family in ("fasterrcnn", "maskrcnn", "keypointrcnn", "retinanet")}


def torchvision_detector(
    name: str,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    num_classes: int | None,
    weights: Mapping[str, Tensor] | None = None,
    source: str = "",
    image_size: int | None = None,
    **options: Any,
) -> Detector:
    """Build a detector of torchvision for pictures of one size.

    ``network`` normalises, resizes and pads as the model's own transform does, and runs backbone and feature pyramid;
    ``postprocess`` is the rest of the model: heads, anchors, proposals, regions, suppression. Of Mask and Keypoint
    R-CNN, boxes alone are made. Weights with the labels of COCO give the classes 0…79, in the order of their names.

    Args:
        name: torchvision's name, e.g. ``ssdlite320_mobilenet_v3_large``.
        input_shape: ``(1 or 3, height, width)`` of the picture.
        output_shape: ``(most, 6)``; ``most`` is the largest number of boxes in a picture.
        num_classes: classes of the task, without the background.
        weights: in torchvision's key names; None leaves random weights.
        source: where the weights come from, for messages.
        image_size: height and width that the network sees; None leaves the picture's own, or what an SSD was made for.
        **options: further arguments of torchvision's constructor, e.g. ``score_thresh=0.1``.

    Raises:
        ModelError: the task is no detection, or torchvision cannot build the model or the weights do not fit it.
    """
    if num_classes is None or len(output_shape) != 2 or output_shape[1] != 6:
        raise ModelError(f"{name} only detects, but the task needs {tuple(output_shape)}; choose task=detection")
    model, classes = _weighted(name, num_classes, weights, source, options)
    transform = model.transform
    own_size = None if transform.fixed_size is None else (transform.fixed_size[1], transform.fixed_size[0])
    if own_size is not None and image_size not in (None, own_size[0]):
        raise ModelError(f"{name} always sees pictures of {own_size}; leave image_size=null, got {image_size}")
    picture_size = (input_shape[1], input_shape[2])
    size = own_size or (picture_size if image_size is None else (image_size, image_size))
    network = BackboneOfPictures(model.backbone, transform, picture_size, size)
    return _Ready(network, RestOfModel(model, classes, picture_size, size, output_shape[0]))


class _Ready(Detector):
    """A detector with weights from elsewhere."""

    def forward(self, x: Tensor) -> Any:
        """Detections. Raises ModelError in train mode."""
        if self.training:
            raise ModelError(
                "torchvision's detectors are not trained here; give them weights by pretrained=true or "
                "weights=FILE, with max_epochs=0 for the trainer, or train model=detector"
            )
        return super().forward(x)


class BackboneOfPictures(nn.Module):
    """The model's own transform, for a batch of pictures of one size, and its backbone.

    Args:
        backbone: from ``(batch, 3, height, width)`` to features by name.
        transform: the model's own; says how to normalise, and what the sides are divisible by after padding.
        picture_size: height and width of the pictures.
        network_size: height and width to which they are resized.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        transform: GeneralizedRCNNTransform,
        picture_size: tuple[int, int],
        network_size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(transform.image_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(transform.image_std).view(-1, 1, 1), persistent=False)
        self.network_size = None if network_size == picture_size else network_size
        height, width = (-side % transform.size_divisible for side in network_size)
        self.padding = (0, width, 0, height)

    def forward(self, x: Tensor) -> Mapping[str, Tensor]:
        """Features by name of pictures ``(batch, 1 or 3, height, width)`` in [0, 1]."""
        x = (x.expand(-1, 3, -1, -1) - self.mean) / self.std
        if self.network_size is not None:
            x = functional.interpolate(x, self.network_size, mode="bilinear", align_corners=False)
        if any(self.padding):
            x = functional.pad(x, self.padding)
        return self.backbone(x)


class RestOfModel(nn.Module):
    """A model of torchvision without transform and backbone: from features to detections ``(batch, most, 6)``.

    Args:
        model: loses both.
        classes: ``(labels,)`` int64: the class of each label of the model; −1 for what is none.
        picture_size: height and width of the pictures, in whose pixels the boxes are.
        network_size: height and width that the backbone sees, before padding.
        most: boxes in a picture.
    """

    classes: Tensor

    def __init__(
        self,
        model: nn.Module,
        classes: Tensor,
        picture_size: tuple[int, int],
        network_size: tuple[int, int],
        most: int,
    ) -> None:
        super().__init__()
        model.transform = _AlreadyTransformed(cast(GeneralizedRCNNTransform, model.transform), network_size)
        model.backbone = nn.Identity()
        for part in ("mask", "keypoint"):
            if hasattr(model, "roi_heads") and hasattr(model.roi_heads, f"{part}_roi_pool"):
                setattr(model.roi_heads, f"{part}_roi_pool", None)
        self.model, self.picture_size, self.most = model, picture_size, most
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Detections ``(batch, most, 6)`` of the backbone's features."""
        found = []
        for boxes in self.model(_Pictures(features, self.picture_size)):
            classes = self.classes[boxes["labels"]]
            known = classes >= 0
            found.append(Boxes(boxes["boxes"][known], boxes["scores"][known], classes[known]))
        return pack(found, self.most)


class _Pictures(list[Tensor]):
    """As many pictures as there are features of, without pixels."""

    def __init__(self, features: Mapping[str, Tensor], picture_size: tuple[int, int]) -> None:
        first = next(iter(features.values()))
        super().__init__(first.new_empty(0, *picture_size) for _ in first)
        self.features = features


class _Features(OrderedDict[str, Tensor]):
    """Features in the place of the batch that they were made of, whose shape the anchors depend on."""

    shape: tuple[int, ...]


class _AlreadyTransformed(nn.Module):
    """In the place of a model's transform: the backbone saw pictures of this size."""

    def __init__(self, transform: GeneralizedRCNNTransform, network_size: tuple[int, int]) -> None:
        super().__init__()
        self.transform = transform
        self.network_size = network_size
        self.padded_size = tuple(side + -side % transform.size_divisible for side in network_size)

    def forward(self, pictures: _Pictures, targets: None = None) -> tuple[ImageList, None]:
        features = _Features(pictures.features)
        features.shape = (len(pictures), 3, *self.padded_size)
        return ImageList(cast(Tensor, features), [self.network_size] * len(pictures)), targets

    def postprocess(self, found: Any, network_sizes: Any, picture_sizes: Any) -> Any:
        """Boxes in pixels of the picture, by the model's own transform."""
        return self.transform.postprocess(found, network_sizes, picture_sizes)


def _weighted(
    name: str, num_classes: int, weights: Mapping[str, Tensor] | None, source: str, options: Mapping[str, Any]
) -> tuple[Any, Tensor]:
    """torchvision's model with its weights, and the class of each of its labels."""
    num_labels = num_classes + 1  # the first one is the background
    model, classes = _made(name, num_labels, options), torch.arange(-1, num_classes)
    if weights is None:
        return model, classes
    own = model.state_dict()
    weights = fitted(weights, own, source)
    num_given = _num_labels(weights, own, num_labels)
    published = models.get_model_weights(name).DEFAULT.meta["categories"]
    if num_given == len(published):
        named = torch.tensor([label > 0 and text != "N/A" for label, text in enumerate(published)])
        classes = torch.where(named, named.cumsum(0) - 1, -1)
        model = _made(name, num_given, options)
        if name in _EPSILON_0:
            for module in model.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 0.0
    elif num_given != num_labels:
        classes = torch.arange(-1, num_given - 1)
    if (num_known := int(classes.max()) + 1) != num_classes:
        raise ModelError(
            f"weights from {source} know {num_known} classes, the task has {num_classes}; give weights of these classes"
        )
    load_weights(model, weights, None, source)
    return model, classes


def _made(name: str, num_labels: int, options: Mapping[str, Any]) -> Any:
    try:
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=num_labels, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as exc:
        raise ModelError(f"torchvision cannot build {name} with {dict(options)}: {first_line(exc)}") from exc
    # the constructors pass on what they do not know, and nothing reads it
    known = [option for option in inspect.signature(type(model)).parameters if option not in _OF_SIZES]
    if unknown := [option for option in options if option not in known]:
        useful = [option for option in known if option.endswith(("thresh", "per_img"))]
        raise ModelError(f"{name} has no setting {unknown[0]}; it has image_size, {', '.join(useful)} and others")
    return model


def _num_labels(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], num_labels: int) -> int:
    """The labels that weights were made for: their classifiers differ from those of a model of ``num_labels``."""
    for key in own.keys() & weights.keys():
        given, here = weights[key].shape, own[key].shape
        if given != here and given[1:] == here[1:]:
            return given[0] * num_labels // here[0]
    return num_labels
