"""The part between two cuts: behind the first cut's head, before the second one's tail, it is the network, exactly."""

import pytest
import torch
from torch import nn

from splitsem.errors import SplitPointError
from splitsem.models.unet import UNet
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.onnx_graph import graph_of


class WritesInPlace(nn.Module):
    """A skip that is written into after a cut, and a size that is read off the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = self.one(x)
        made = self.two(kept)
        kept.add_(1.0)
        return self.three(torch.relu_(made) + kept).view(x.shape[0], 2, 3)


class Boxed(nn.Module):
    """A network with something behind it that is not captured."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    class Postprocess(nn.Module):
        def forward(self, made: torch.Tensor) -> torch.Tensor:
            return made.sort(1).values

    def __init__(self) -> None:
        super().__init__()
        self.network, self.postprocess = self.Network(), self.Postprocess()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.postprocess(self.network(x))


@pytest.mark.parametrize(
    ("model", "shape"), [(UNet((3, 16, 16), (2, 16, 16)), (3, 16, 16)), (WritesInPlace(), (6,)), (Boxed(), (6,))]
)
def test_every_pair_of_cuts_gives_the_network_bit_for_bit_for_any_batch(model, shape):
    graph = SplitGraph(model, shape)
    x = torch.rand(3, *shape)
    names = [point.name for point in graph.points]
    with torch.inference_mode():
        expected = model(x)
        for i, start in enumerate(names):
            first = graph.cut(start)
            z = first.head(x)
            for end in names[i:]:
                last = graph.cut(end)
                onward = graph.between(start, end)(*z)
                assert isinstance(onward, tuple)
                assert [tuple(tensor.shape[1:]) for tensor in onward] == [t.shape[1:] for t in last.point.tensors]
                assert torch.equal(last.tail(*onward), expected), (start, end)


def test_cuts_are_named_in_order_and_weights_are_shared():
    graph = SplitGraph(WritesInPlace(), (6,))
    with pytest.raises(SplitPointError, match="one comes before add@2: name the cuts of a chain in their order"):
        graph.between("add@2", "one")
    with pytest.raises(SplitPointError, match="no split point 'twos'"):
        graph.between("one", "twos")
    own = {id(weight) for weight in graph.model.parameters()}
    assert {id(weight) for weight in graph.between("one", "add@2").parameters()} <= own


def test_an_onnx_file_has_parts_between_its_cuts_too(tmp_path):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    from splitsem.models.onnx_model import OnnxModel
    from tests.unit.onnx_files import residual

    x = torch.rand(1, 3, 8, 8)
    graph = graph_of(OnnxModel(residual(tmp_path / "residual.onnx")), x, granularity="op")
    expected = graph.cut("input").tail(x)
    names = [point.name for point in graph.points]
    for i, start in enumerate(names):
        for end in names[i:]:
            onward = graph.between(start, end)(*graph.cut(start).head(x))
            assert torch.equal(graph.cut(end).tail(*onward), expected), (start, end)
