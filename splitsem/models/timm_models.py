"""timm_model: any classification network of timm, fitted to a task."""

from collections.abc import Sequence
from typing import Any

import timm
from torch import nn

from splitsem.errors import ConfigError
from splitsem.models.image_front import IMAGENET_MEAN, IMAGENET_STD, ImageFront, attach
from splitsem.models.network_checks import check_name, check_output, first_line
from splitsem.models.weights import load_weights, read_weights


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
        weights: start from a local ``.safetensors`` or ``.pth`` file in timm's key names.
        image_size: height and width that the network sees; None leaves the picture's own.
        **options: further arguments of timm's constructor, e.g. ``drop_path_rate=0.1``.

    Raises:
        ValueError: both ``pretrained`` and ``weights`` are given, or the shape is not a picture's.
        ConfigError: the name is unknown, the weights cannot be had or do not fit, or the output has another shape.
    """
    if pretrained and weights is not None:
        raise ValueError(f"weights must be null when pretrained is true, got {weights}")
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
        remedy = (
            "fetch the file elsewhere and give model.weights=path" if pretrained else "try another model.image_size"
        )
        raise ConfigError(f"timm cannot build {what} and {arguments}: {first_line(exc)}. Way out: {remedy}") from exc
    if weights is not None:
        load_weights(network, read_weights(weights), output_shape[0], weights)
    attach(front, network)
    check_output(network, name, input_shape, output_shape)
    return network
