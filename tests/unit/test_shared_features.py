"""Features that the cuts of a sweep share: exact, made once, within their memory."""

import random
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from splitsem.models.cnn import StagedCnn
from splitsem.pipeline import features
from splitsem.splitting.graph import SplitGraph
from splitsem.workflows.shared_features import Batch, SharedFeatures

SHAPE = (1, 8, 8)


class Counts(TorchDispatchMode):
    """Counts the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See TorchDispatchMode."""
        self.of[func.name()] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def graph() -> SplitGraph:
    torch.manual_seed(0)
    return SplitGraph(StagedCnn(SHAPE, (10,), widths=[4, 8], stem_width=4).eval(), SHAPE, granularity="op")


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    return [torch.rand(size, *SHAPE) for size in (4, 4, 1)]


def _num_convolutions(graph: SplitGraph) -> int:
    return sum(op.kind.startswith("conv") for op in graph.points[-1].head_ops)


def _check(shared: SharedFeatures, graph: SplitGraph, batches: list[Tensor], points: list[int]) -> None:
    for index in points:
        cut = graph.cut(index)
        for number, x in enumerate(batches):
            found, wanted = shared.at(graph, cut, Batch("net", "test", number), x), features(cut, x)
            assert [made.num_samples for made in found] == [made.num_samples for made in wanted]
            for ours, theirs in zip(found, wanted, strict=True):
                assert all(map(torch.equal, ours.z, theirs.z))
                assert [z.stride() for z in ours.z] == [z.stride() for z in theirs.z]
            assert shared.num_bytes <= shared.most_bytes


@pytest.mark.parametrize("most_bytes", [0, 5000, 1 << 20])
@pytest.mark.parametrize("order", ["forward", "backward", "any", "again"])
def test_features_are_those_of_the_head_in_any_order_and_any_memory(
    graph: SplitGraph, batches: list[Tensor], most_bytes: int, order: str
) -> None:
    forward = list(range(len(graph.points)))
    points = {
        "forward": forward,
        "backward": forward[::-1],
        "any": random.Random(0).sample(forward, len(forward)),
        "again": [point for point in forward[::2] for _ in range(2)],
    }[order]
    _check(SharedFeatures(most_bytes), graph, batches, points)


def test_a_sweep_in_order_runs_the_network_once(graph: SplitGraph, batches: list[Tensor]) -> None:
    shared = SharedFeatures(1 << 20)
    with Counts() as counts:
        for point in graph.points:
            cut = graph.cut(point)
            for number, x in enumerate(batches):
                shared.at(graph, cut, Batch("net", "test", number), x)
    num_convolutions = counts.of["aten::convolution"] + counts.of["aten::conv2d"]
    assert num_convolutions == _num_convolutions(graph) * len(batches) > 0


def test_with_little_memory_it_goes_on_from_the_last_cut_that_fits_and_says_so_once(
    graph: SplitGraph, batches: list[Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    small, whole = SharedFeatures(1000), SharedFeatures(1 << 20)
    counted = []
    for shared in (small, whole):
        with Counts() as counts:
            for point in graph.points:
                shared.at(graph, graph.cut(point), Batch("net", "test", 0), batches[2])
        counted.append(counts.of["aten::convolution"] + counts.of["aten::conv2d"])
    heads = sum(op.kind.startswith("conv") for point in graph.points for op in point.head_ops)
    assert counted[1] < counted[0] < heads
    (said,) = caplog.messages
    assert "take more than the memory for them" in said
    assert "give workflow.features_mb more, or 0" in said


def test_features_of_other_networks_make_room(graph: SplitGraph, batches: list[Tensor]) -> None:
    cut, x = graph.cut("input"), batches[0]
    shared = SharedFeatures(x.nbytes)
    shared.at(graph, cut, Batch("one", "test", 0), x)
    shared.at(graph, cut, Batch("two", "test", 0), x)
    (made,) = shared.at(graph, cut, Batch("two", "test", 0), torch.zeros_like(x))
    assert made.z[0].data_ptr() == x.data_ptr()
    assert shared.num_bytes == x.nbytes
    (again,) = shared.at(graph, cut, Batch("one", "test", 0), other := torch.ones_like(x))
    assert torch.equal(again.z[0], other)


def test_samples_that_go_alone_are_not_taken_from_a_batch() -> None:
    class Folds(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first(x).reshape(-1, 2, 2)
            return self.second((y * 2).reshape(-1, 4))

    graph = SplitGraph(Folds().eval(), (6, 4), granularity="op")
    _check(SharedFeatures(1 << 20), graph, [torch.rand(3, 6, 4)], list(range(len(graph.points))))
    assert {point.is_batched for point in graph.points} == {True, False}
