"""Cutting any network of skips, in-place writes, views and batch folding is exact, and its points are consistent."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from splitsem.splitting.graph import SplitGraph

STEPS = ("conv", "norm", "relu_", "add", "add_", "mul_view", "permute", "fold", "cat", "chunk", "pool_scale")


class Drawn(nn.Module):
    """Applies drawn steps to a stack of earlier values; ``back`` says which earlier value a step looks at."""

    def __init__(self, steps: list[tuple[str, int]]) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList(
            nn.Conv2d(4, 4, 3, padding=1) if name == "conv" else nn.BatchNorm2d(4) for name, _ in steps
        )
        self.narrow, self.end = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        values = [x * 1]
        for (name, back), layer in zip(self.steps, self.layers, strict=True):
            values.append(self._step(name, layer, values[-1], values[-1 - back % len(values)]))
        return self.end(values[-1] + values[0])

    def _step(self, name: str, layer: nn.Module, y: Tensor, other: Tensor) -> Tensor:
        n, c, h, w = y.shape
        if name in ("conv", "norm"):
            return layer(y)
        if name == "relu_":
            return torch.relu_(y)
        if name == "add":
            return y + other
        if name == "add_":
            return y.add_(other)
        if name == "mul_view":
            y[:, 0].mul_(0.5)
            return y
        if name == "permute":
            return nn.functional.layer_norm(y.permute(0, 2, 3, 1), (c,)).permute(0, 3, 1, 2)
        if name == "fold":
            return (y.reshape(n * 2, c // 2, h, w) * 1.5).reshape(n, c, h, w)
        if name == "cat":
            return self.narrow(torch.cat([y, other], 1))
        if name == "chunk":
            a, b = y.chunk(2, 1)
            return torch.cat([b.sigmoid(), a], 1)
        return other * y.mean((2, 3), keepdim=True)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 3)), min_size=1, max_size=7))
def test_every_cut_of_a_drawn_network_is_exact(steps: list[tuple[str, int]]) -> None:
    torch.manual_seed(0)
    model = Drawn(steps)
    graph = SplitGraph(model, (4, 4, 4), granularity="op")
    with torch.no_grad():
        for batch in (1, 3):
            x = torch.rand(batch, 4, 4, 4)
            y = model(x)
            for point in graph.points:
                cut = graph.cut(point)
                z = [t.clone(memory_format=torch.contiguous_format) for t in cut.head(x)]
                assert torch.equal(cut.tail(*cut.received(z)), y), point.name
    names = [p.name for p in graph.points]
    assert len(set(names)) == len(names)
    assert {p.head_flops + p.tail_flops for p in graph.points} == {graph.points[0].tail_flops}
    coarse = SplitGraph(model, (4, 4, 4))
    assert [p.name for p in coarse.points] == [n for n in names if n in {p.name for p in coarse.points}]
