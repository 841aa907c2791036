"""The units of a RepVGG by blocks and widths (arXiv 2101.03697, table 2): trunk, head, and the checks of both."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from splitsem.models.repvgg_block import RepVggBlock

_LAST_GROUPED = 26  # the published networks group the layers 2, 4, …, 26, the stem being layer 0


def trunk(
    in_channels: int, blocks: Sequence[int], widths: Sequence[int], groups: int, stem_stride: int
) -> dict[str, nn.Module]:
    """``stem``, ``stage1.0``, …: name → block, in order; the first block of every stage has stride 2."""
    names = [f"stage{stage}.{place}" for stage, number in enumerate(blocks, start=1) for place in range(number)]
    outs = [width for width, number in zip(widths[1:], blocks, strict=True) for _ in range(number)]
    units: dict[str, nn.Module] = {"stem": RepVggBlock(in_channels, widths[0], stem_stride)}
    for layer, (name, in_width, out_width) in enumerate(zip(names, [widths[0], *outs], outs, strict=False), start=1):
        is_grouped = layer % 2 == 0 and layer <= _LAST_GROUPED
        units[name] = RepVggBlock(in_width, out_width, 2 if name.endswith(".0") else 1, groups if is_grouped else 1)
    return units


def head(width: int, num_classes: int) -> nn.Module:
    """Global average pooling and a linear layer."""
    return nn.Sequential(
        OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), linear=nn.Linear(width, num_classes))
    )


def check_layout(
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    blocks: Sequence[int],
    widths: Sequence[int],
    groups: int,
    stem_stride: int,
) -> None:
    """Raise ValueError when HyperRepVgg's arguments of these names make no sense."""
    if len(input_shape) != 3:
        raise ValueError(f"input_shape must be (channels, height, width), got {tuple(input_shape)}")
    if len(output_shape) != 1:
        raise ValueError(f"output_shape must be (classes,), got {tuple(output_shape)}: HyperRepVgg only classifies")
    if not blocks or min(blocks) < 1:
        raise ValueError(f"blocks must be 1 or more for each of at least one stage, got {tuple(blocks)}")
    if len(widths) != len(blocks) + 1 or min(widths) < 1:
        raise ValueError(
            f"widths must be one for the stem and one for each of the {len(blocks)} stages, got {tuple(widths)}"
        )
    if groups < 1 or any(width % groups for width in widths):
        raise ValueError(f"groups must divide every width of {tuple(widths)}, got {groups}")
    if stem_stride not in (1, 2):
        raise ValueError(f"stem_stride must be 1 or 2, got {stem_stride}")
