"""StagedCnn: a small plain convolutional network as ordered named stages."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn


class StagedCnn(nn.Sequential):
    """``stem``, ``stage1``, ``stage2``, …, ``pool``, ``classifier``.

    Every stage halves height and width with a wide 3×3 convolution and then narrows to its width with a second one:
    what leaves a stage is small, so that the cuts between stages are natural bottlenecks, while the work inside is
    wide.

    Args:
        input_shape: ``(channels, height, width)`` of one image.
        output_shape: ``(classes,)``.
        stem_width: channels of the stem.
        widths: channels that leave each stage.
        inner_widths: channels inside each stage; None for twice its width.
        stem_stride: 2 or 4 shrinks large images at once.
        dropout: probability of dropping a feature in front of the classifier, in [0, 1).

    Raises:
        ValueError: a shape or width makes no sense, or the image is too small for so many halvings.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        widths: Sequence[int] = (16, 32, 64),
        inner_widths: Sequence[int] | None = None,
        stem_width: int = 16,
        stem_stride: int = 1,
        dropout: float = 0.0,
    ) -> None:
        inner_widths = [2 * width for width in widths] if inner_widths is None else inner_widths
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        _check(input_shape, output_shape, widths, inner_widths, stem_width, stem_stride)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["stem"] = _conv(input_shape[0], stem_width, stem_stride)
        channels = stem_width
        for number, (width, inner_width) in enumerate(zip(widths, inner_widths, strict=True), start=1):
            layers[f"stage{number}"] = nn.Sequential(_conv(channels, inner_width, 2), _conv(inner_width, width, 1))
            channels = width
        layers["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        if dropout > 0:
            layers["dropout"] = nn.Dropout(dropout)
        layers["classifier"] = nn.Linear(channels, output_shape[0])
        super().__init__(layers)


def _conv(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
            bn=nn.BatchNorm2d(out_channels),
            relu=nn.ReLU(inplace=True),
        )
    )


def _check(
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    widths: Sequence[int],
    inner_widths: Sequence[int],
    stem_width: int,
    stem_stride: int,
) -> None:
    if len(input_shape) != 3:
        raise ValueError(f"input_shape must be (channels, height, width), got {tuple(input_shape)}")
    if len(output_shape) != 1:
        raise ValueError(f"output_shape must be (classes,), got {tuple(output_shape)}: StagedCnn only classifies")
    if not widths or len(widths) != len(inner_widths) or min(*widths, *inner_widths, stem_width) < 1:
        raise ValueError(
            "widths and inner_widths must be as many, at least one, and positive, "
            f"got {tuple(widths)}, {tuple(inner_widths)} and stem_width {stem_width}"
        )
    if stem_stride not in (1, 2, 4):
        raise ValueError(f"stem_stride must be 1, 2 or 4, got {stem_stride}")
    smallest = stem_stride * 2 ** (len(widths) - 1)
    if min(input_shape[1:]) < smallest:
        raise ValueError(
            f"input_shape {tuple(input_shape)} is too small: {len(widths)} stages with stem_stride {stem_stride} need "
            f"at least {smallest}×{smallest} pixels; give fewer widths"
        )
