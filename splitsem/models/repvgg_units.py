"""The units of a RepVGG (arXiv 2101.03697, table 2): how they are built, what they cost, which branches to keep."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from splitsem.models.branches import GAMMAS, Branch, Gamma
from splitsem.models.image_front import ImageFront
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


Shape = tuple[int, ...]
_ITEM_BYTES = 4  # float32


@dataclass(frozen=True)
class UnitFacts:
    """One unit of a chain at its real input shape, batch 1.

    Costs are counted as in ``splitsem.splitting.half``: a multiply-add of a convolution or a matrix product is two
    operations, any other operation is one for each element; bytes are all inputs, weights and outputs of every
    operation, in float32.

    Attributes:
        name: name of the unit, e.g. ``stage1.0``.
        input_shape: shape of the input, without the batch.
        output_shape: shape of the output, without the batch.
        gammas: the ways to run it; a unit without branches has γ 0 only.
        flops: γ → floating-point operations.
        bytes: γ → bytes read and written, weights included.
        branch_flops: branch → floating-point operations of that branch by itself; empty for a unit without branches.
    """

    name: str
    input_shape: Shape
    output_shape: Shape
    gammas: tuple[int, ...]
    flops: Mapping[int, float]
    bytes: Mapping[int, float]
    branch_flops: Mapping[Branch, float]


def block_output(block: RepVggBlock, input_shape: Shape) -> Shape:
    """Shape of what ``block`` makes from ``input_shape`` (channels, height, width)."""
    return (block.out_channels, *(-(-size // block.stride) for size in input_shape[1:]))


def branch_flops(block: RepVggBlock, input_shape: Shape) -> dict[Branch, float]:
    """Operations of each branch by itself: a convolution, or one scale and bias a channel."""
    return {Branch(name): _group(block, frozenset({Branch(name)}), input_shape)[0] for name in block.branches}


def block_facts(name: str, block: RepVggBlock, input_shape: Shape, front: ImageFront | None = None) -> UnitFacts:
    """The facts of a block that is fed with ``input_shape``, behind ``front`` where there is one."""
    seen_shape = input_shape if front is None else (3, *front.network_size)
    before = [] if front is None else list(_front(front, input_shape))
    costs = {g.index: [*before, *_operations(block, g, seen_shape)] for g in block.gammas}
    return UnitFacts(
        name=name,
        input_shape=input_shape,
        output_shape=block_output(block, seen_shape),
        gammas=tuple(costs),
        flops={gamma: float(sum(flops for flops, _ in ops)) for gamma, ops in costs.items()},
        bytes={gamma: float(sum(moved for _, moved in ops)) for gamma, ops in costs.items()},
        branch_flops=branch_flops(block, seen_shape),
    )


def head_facts(name: str, input_shape: Shape, num_classes: int) -> UnitFacts:
    """The facts of global average pooling and a linear layer."""
    channels = input_shape[0]
    pooling = _elementwise(prod(input_shape), prod(input_shape), channels)
    linear = 2.0 * channels * num_classes, _moved(channels, channels * num_classes, num_classes, num_classes)
    only = GAMMAS[0].index
    return UnitFacts(
        name=name,
        input_shape=input_shape,
        output_shape=(num_classes,),
        gammas=(only,),
        flops={only: pooling[0] + linear[0]},
        bytes={only: pooling[1] + linear[1]},
        branch_flops={},
    )


def _operations(block: RepVggBlock, gamma: Gamma, input_shape: Shape) -> Iterator[tuple[float, float]]:
    """Operations and bytes of every group, of the additions between them and of the ReLU."""
    made = prod(block_output(block, input_shape))
    groups = [group & set(block.active) for group in gamma.groups]
    for group in groups:
        yield _group(block, group, input_shape)
    for _ in groups[1:]:
        yield _elementwise(made, made, made, made)
    yield _elementwise(made, made, made)


def _group(block: RepVggBlock, group: frozenset[Branch], input_shape: Shape) -> tuple[float, float]:
    read, made = prod(input_shape), prod(block_output(block, input_shape))
    if group == {Branch.I}:
        return _elementwise(made, read, 2 * block.out_channels, made)
    size = 3 if Branch.D in group else 1
    weights = block.out_channels * (block.in_channels // block.groups) * size * size
    return 2.0 * made * weights / block.out_channels, _moved(read, weights, block.out_channels, made)


def _front(front: ImageFront, input_shape: Shape) -> Iterator[tuple[float, float]]:
    made = prod(front.network_size)
    if front.network_size != front.picture_size:
        read, resized = prod(input_shape), input_shape[0] * made
        yield _elementwise(max(read, resized), read, resized)
    for _ in ("mean", "std"):
        yield _elementwise(3 * made, 3 * made, 3, 3 * made)


def _elementwise(num_elements: int, *num_moved: int) -> tuple[float, float]:
    return float(num_elements), _moved(*num_moved)


def _moved(*num_elements: int) -> float:
    return float(_ITEM_BYTES * sum(num_elements))


def most_important(importance: Sequence[Mapping[Branch, float]], share: float) -> tuple[frozenset[Branch], ...]:
    """The branches to keep, block by block: the most important ones of the network, one a block at the least.

    Args:
        importance: block → branch → importance.
        share: share of all branches to keep, in (0, 1]; each block keeps at least one branch, whatever the share.

    >>> kept = most_important([{Branch.D: 1.0, Branch.K: 3.0}, {Branch.D: 0.1, Branch.K: 0.2}], share=0.75)
    >>> [sorted(branches) for branches in kept]
    [[<Branch.D: 'D'>, <Branch.K: 'K'>], [<Branch.K: 'K'>]]

    Raises:
        ValueError: the share is outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    kept = [{max(row, key=row.__getitem__)} for row in importance]
    others = [(row[b], index, b) for index, row in enumerate(importance) for b in row if b not in kept[index]]
    num_more = round(share * sum(map(len, importance))) - len(kept)
    for _, index, branch in sorted(others, key=lambda other: -other[0])[: max(0, num_more)]:
        kept[index].add(branch)
    return tuple(map(frozenset, kept))
