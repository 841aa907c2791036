"""Drawn networks, with drawn parts of them under no_grad and autocast: points, work and numbers are the plain ones'."""

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from splitsem.splitting.graph import SplitGraph

CONTEXTS = {
    "none": lambda: torch.set_grad_enabled(torch.is_grad_enabled()),
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "enable": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no_autocast": lambda: torch.autocast("cpu", enabled=False),
}
LAYERS = {
    "conv": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "norm": lambda: nn.BatchNorm2d(4),
    "relu": lambda: nn.ReLU(inplace=True),
    "pool": lambda: nn.AvgPool2d(3, 1, 1),
    "linear": lambda: nn.Linear(6, 6),
}
Step = tuple[str, str, str]


class Drawn(nn.Module):
    """A chain of layers, each called within two contexts, the first one around the second."""

    def __init__(self, steps: list[Step], are_used: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.end = nn.ModuleList(LAYERS[layer]() for layer, _, _ in steps), nn.Linear(6, 3)
        self.contexts = [(outer, inner) if are_used else ("none", "none") for _, outer, inner in steps]

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        for layer, (outer, inner) in zip(self.layers, self.contexts, strict=True):
            with CONTEXTS[outer](), CONTEXTS[inner]():
                y = layer(y.float())
        return self.end(y.float())


def facts(graph: SplitGraph) -> list[tuple[object, ...]]:
    """Names, bytes and work, without the casts between two dtypes, which the plain network has not."""
    points = [(p.name, p.raw_bytes, p.head_flops, p.tail_flops) for p in graph.points]
    return [point for point in points if not str(point[0]).startswith("to")]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(list(LAYERS)), st.sampled_from(list(CONTEXTS)), st.sampled_from(list(CONTEXTS))),
        min_size=1,
        max_size=5,
    )
)
def test_contexts_change_no_point_no_work_and_no_number(steps: list[Step]) -> None:
    model, plain = Drawn(steps, True).eval(), Drawn(steps, False).eval()
    with torch.no_grad():
        try:
            model(torch.rand(2, 4, 6, 6))
        except RuntimeError as exc:  # torch itself refuses to write into what inference_mode made
            assume("nference tensor" not in str(exc))
            raise
    graph = SplitGraph(model, (4, 6, 6), granularity="op")
    assert facts(graph) == facts(SplitGraph(plain, (4, 6, 6), granularity="op"))
    with torch.no_grad():
        x = torch.rand(2, 4, 6, 6)
        y = model(x)
        for point in graph.points:
            cut = graph.cut(point)
            assert torch.equal(cut.tail(*cut.head(x)), y), point.name
