"""A chain of four small units, for tests of what measures and reads tables of units."""

from dataclasses import dataclass
from math import prod

from torch import Tensor, nn

from splitsem.cost.branch_lut import BranchLut
from splitsem.models.branches import GAMMAS, Branch, Gamma, offered, whole_gamma


@dataclass(frozen=True)
class ToySpec:
    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    flops: dict[int, float]
    bytes: dict[int, float]

    @property
    def gammas(self) -> tuple[int, ...]:
        return tuple(self.flops)


class ToyBlock(nn.Module):
    """Groups of branches, one convolution a group, summed."""

    def __init__(self, inputs: int, outputs: int, stride: int, gamma: Gamma) -> None:
        super().__init__()
        sizes = [3 if Branch.D in g else 1 if Branch.K in g else 0 for g in gamma.groups]
        convs = [nn.Conv2d(inputs, outputs, k, stride, k // 2) if k else nn.Identity() for k in sizes]
        self.groups = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (group(x) for group in self.groups)
        return sum(others, first).relu()


def block_spec(name: str, inputs: int, outputs: int, size: int, stride: int) -> ToySpec:
    shapes = (inputs, size, size), (outputs, size // stride, size // stride)
    flops, num_bytes = {}, {}
    for gamma in offered(inputs == outputs and stride == 1):
        weights = sum(inputs * outputs * (9 if Branch.D in g else 1) for g in gamma.groups if g != {Branch.I})
        flops[gamma.index] = prod(shapes[1]) * 2.0 + 2.0 * weights * shapes[1][1] * shapes[1][2]
        num_bytes[gamma.index] = 4.0 * (weights + prod(shapes[0]) + prod(shapes[1]))
    return ToySpec(name, *shapes, flops, num_bytes)


class ToyChain:
    """Stem, a block with 14 ways, a block with 4, head."""

    def __init__(self) -> None:
        stem = ToySpec("stem", (3, 8, 8), (4, 8, 8), {0: 2e4}, {0: 2e3})
        blocks = [block_spec("stage1.0", 4, 4, 8, 1), block_spec("stage1.1", 4, 8, 8, 2)]
        head = ToySpec("head", (8, 4, 4), (5,), {0: 1e3}, {0: 2e2})
        self.specs: list[ToySpec] = [stem, *blocks, head]
        self.made: list[tuple[int, int]] = []

    def facts(self) -> list[ToySpec]:
        return self.specs

    def unit(self, index: int, gamma: int) -> nn.Module:
        self.made.append((index, gamma))
        if index == 0:
            return nn.Conv2d(3, 4, 3, padding=1)
        if index == 3:
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        return ToyBlock(4, *((4, 1) if index == 1 else (8, 2)), GAMMAS[gamma])


def whole_gammas(lut: BranchLut, folded: bool) -> tuple[int, ...]:
    return tuple(whole_gamma(unit.ways, folded) for unit in lut.units)
