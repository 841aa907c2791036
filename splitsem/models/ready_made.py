"""torchvision_model, timm_model: any network of torchvision or timm, fitted to a task's pictures and classes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from splitsem import extras
from splitsem.errors import ModelError
from splitsem.models.checkpoints import fitted, load_weights, read_weights
from splitsem.models.detection.torchvision_detector import torchvision_detector
from splitsem.models.image_front import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageFront,
    attach,
    check_name,
    check_output,
    first_line,
    resized,
)

# In densenet's published files, a module's own name holds a dot, which torch does not allow.
OLD_DENSENET_KEY = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.\w+)$")


def torchvision_model(
    name: str,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    pretrained: bool = False,
    weights: str | None = None,
    image_size: int | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network of torchvision with a head for the task's classes; of a detector, a ``Detector``.

    Its modules and weights keep torchvision's names. Pictures in [0, 1] of one or three channels go in; resizing,
    repeating of a grey channel and ImageNet's normalisation happen inside (``front``). One tensor comes out: logits
    ``(batch, classes)``, or ``(batch, classes, height, width)`` from a segmentation network; auxiliary heads are left
    out. Of detectors, see ``detection.torchvision_detector``.

    Args:
        name: torchvision's name, e.g. ``resnet18`` or ``lraspp_mobilenet_v3_large``.
        input_shape: ``(1 or 3, height, width)`` of one picture.
        output_shape: ``(classes,)`` or ``(classes, height, width)``, or ``(most, 6)`` of a detection task.
        pretrained: start from the published weights (downloaded once).
        weights: start from a local checkpoint in torchvision's key names, see ``read_weights``.
        image_size: height and width that the network sees; None leaves the picture's own.
        num_classes: of a detection task.
        **options: further arguments of torchvision's constructor, e.g. ``dropout=0.5``.

    Raises:
        ValueError: both ``pretrained`` and ``weights`` are given, or the shape is not a picture's.
        ModelError: the name is unknown, the weights cannot be had or do not fit, or the output has another shape.
    """
    if pretrained and weights is not None:
        raise ValueError(f"weights must be null when pretrained is true, got {weights}")
    segmenters, detectors = (models.list_models(module=kind) for kind in (models.segmentation, models.detection))
    check_name(name, models.list_models(module=models) + segmenters + detectors, "torchvision")
    if name in detectors:
        state = _published(name) if pretrained else None if weights is None else read_weights(weights)
        source = weights or f"torchvision's published {name}"
        return torchvision_detector(name, input_shape, output_shape, num_classes, state, source, image_size, **options)
    front = ImageFront(input_shape, image_size=image_size)
    arguments = _family_arguments(name, front.network_size, bool(pretrained or weights)) | options
    try:
        network = models.get_model(name, weights=None, num_classes=output_shape[0], **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as exc:
        raise ModelError(
            f"torchvision cannot build {name} with {arguments}: {first_line(exc)}. "
            "Way out: a picture size it was made for, e.g. image_size=224"
        ) from exc
    if pretrained:
        _load(network, _published(name), output_shape[0], f"torchvision's published {name}")
    elif weights is not None:
        _load(network, read_weights(weights), output_shape[0], weights)
    attach(front, network)
    if name in segmenters:
        network.register_forward_hook(_one_map)
    check_output(network, name, torch.zeros(1, *input_shape), output_shape)
    return network


def _family_arguments(name: str, network_size: tuple[int, int], has_weights: bool) -> dict[str, Any]:
    """What a family's constructor must be told so that it fits the picture and makes one output."""
    family = name.partition("_")[0]
    if family in ("googlenet", "inception"):
        # The published weights were trained with another normalisation, which transform_input makes from ImageNet's.
        return {"aux_logits": False, "init_weights": True, "transform_input": has_weights}
    if family in ("fcn", "deeplabv3", "lraspp"):
        return {"weights_backbone": None}
    if family == "maxvit":
        return {"input_size": network_size}
    if family == "vit":
        if network_size[0] != network_size[1]:
            raise ModelError(f"{name} needs square pictures, got {network_size}; give e.g. image_size=224")
        return {"image_size": network_size[0]}
    return {}


def _published(name: str) -> Mapping[str, Tensor]:
    try:
        return models.get_model_weights(name).DEFAULT.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as exc:
        raise ModelError(
            f"the published weights of {name} could not be downloaded: {first_line(exc)}. "
            "Way out: fetch the file elsewhere and give weights=path, or pretrained=false"
        ) from exc


def _load(network: nn.Module, weights: Mapping[str, Tensor], num_outputs: int, source: str) -> None:
    own = network.state_dict()
    if isinstance(network, models.DenseNet):
        weights = {OLD_DENSENET_KEY.sub(r"\1\2", key): value for key, value in weights.items()}
    weights = fitted(weights, own, source) if weights.keys() != own.keys() else weights
    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in weights:
        # Positions are learned for one picture size; torchvision's own recipe carries them over to another.
        try:
            weights = interpolate_embeddings(network.image_size, network.patch_size, dict(weights))
        except ValueError as exc:
            raise ModelError(f"weights from {source} do not fit {type(network).__name__}: {first_line(exc)}") from exc
    load_weights(network, weights, num_outputs, source)


def _one_map(network: nn.Module, args: tuple[Tensor], outputs: dict[str, Tensor]) -> Tensor:
    """Forward hook: only the main map, at the picture's own size."""
    front = network.get_submodule("front")
    assert isinstance(front, ImageFront)
    return resized(outputs["out"], front.picture_size)


def timm_model(
    name: str,
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    pretrained: bool = False,
    weights: str | None = None,
    image_size: int | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network of timm with a head for the task's classes.

    Its modules and weights keep timm's names. Pictures in [0, 1] of one or three channels go in; resizing, repeating
    of a grey channel and the normalisation in the network's timm configuration happen inside (``front``).

    Args:
        name: timm's name, e.g. ``mobilevit_s`` or, with the tag of certain weights, ``resnet18.a1_in1k``.
        input_shape: ``(1 or 3, height, width)`` of one picture.
        output_shape: ``(classes,)``.
        pretrained: start from the published weights (downloaded once).
        weights: start from a local checkpoint in timm's key names, see ``read_weights``.
        image_size: height and width that the network sees; None leaves the picture's own.
        **options: further arguments of timm's constructor, e.g. ``drop_path_rate=0.1``.

    Raises:
        ValueError: both ``pretrained`` and ``weights`` are given, or the shape is not a picture's.
        ModelError: the name is unknown, the weights cannot be had or do not fit, or the output has another shape.
    """
    if pretrained and weights is not None:
        raise ValueError(f"weights must be null when pretrained is true, got {weights}")
    with extras.needed("vision", "model=timm"):
        import timm  # seconds, which a network of torchvision does not take

    if not timm.is_model(name):
        check_name(name, timm.list_models(), "timm")
    configuration = timm.get_pretrained_cfg(name)
    mean, std = (configuration.mean, configuration.std) if configuration else (IMAGENET_MEAN, IMAGENET_STD)
    front = ImageFront(input_shape, mean, std, image_size)
    arguments = dict(options)
    if configuration and configuration.fixed_input_size and configuration.input_size[1:] != front.network_size:
        arguments["img_size"] = front.network_size
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=output_shape[0], **arguments)
    except (OSError, RuntimeError, ValueError, TypeError, AssertionError) as exc:
        what = f"{name} with its published weights" if pretrained else name
        remedy = "fetch the file elsewhere and give weights=path" if pretrained else "try another image_size"
        raise ModelError(f"timm cannot build {what} and {arguments}: {first_line(exc)}. Way out: {remedy}") from exc
    if weights is not None:
        load_weights(network, read_weights(weights), output_shape[0], weights)
    attach(front, network)
    check_output(network, name, torch.zeros(1, *input_shape), output_shape)
    return network
