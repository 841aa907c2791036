"""Two inputs, one of whole numbers, and two outputs by name: through bytes, links, training and files."""

import pytest
import torch
from torch import nn

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.export import onnx_file
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Answering, Frames, Pipeline
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.answer import AllTensors
from splitsem.trees import call, leaves, rows
from splitsem_device import framing as framing_file
from tests.conftest import ROOT

FOLDER = ROOT / "examples"


@pytest.fixture
def two(monkeypatch):
    """The network of the examples, its graph, and three samples by name."""
    monkeypatch.syspath_prepend(FOLDER)
    from my_two_inputs import Net

    torch.manual_seed(0)
    net, x = Net().eval(), {"image": torch.rand(3, 1, 8, 8), "number": torch.tensor([1, 9, 4])}
    return net, SplitGraph(net, **rows(x)[0]), x


@pytest.mark.parametrize("at", ["edge", "server"])
def test_bytes_without_loss_give_the_networks_own_outputs_at_every_cut(two, at):
    net, graph, x = two
    with torch.inference_mode():
        for batch in (x, rows(x)[1]):
            expected = net(**batch)  # of the same batch: other kernels compute one sample
            for point in graph.points:
                frames, cut = Frames(), graph.cut(point)
                answering = Answering(AllTensors(rows(expected)[0]), at)
                link = SimulatedLink(bandwidth_bps=1e6, rtt_s=0.0, energy_j_per_bit=0.0)
                found = Pipeline(cut, Identity(), Identity(), link, answering).run(batch, frames)
                assert list(found) == ["digit", "is_more"]
                assert all(map(torch.equal, leaves(found), leaves(expected))), point.name
                assert frames.num_lost == 0


def test_a_head_with_two_inputs_becomes_a_file_with_their_names(two, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    _, graph, _ = two
    cut, codec = graph.cut("mix"), Quantise(bit_width=8).eval()
    program, framing = onnx_file.export(cut, codec)
    names = onnx_file.input_names(cut)
    onnx_file.write(program, tmp_path / "device.onnx", framing.outputs, names)
    device = onnx_file.read(tmp_path / "device.onnx")
    assert device.inputs == names == ["image", "number"]
    assert framing_file.to_card(framing)["input_shape"] == {"image": [1, 8, 8], "number": []}
    num_away = 0
    many = {"image": torch.rand(100, 1, 8, 8), "number": torch.randint(10, (100,))}
    for one in rows(many):
        z, outputs = call(cut.head, one), device(onnx_file.named(names, one))
        sent = codec.decode(framing.payload(*outputs))
        for k, (made, received) in enumerate(zip(z, sent, strict=True)):
            q, scale, zero = map(torch.tensor, outputs[3 * k : 3 * k + 3])
            integers, affine = codec.integers(made)
            assert torch.equal(received, (q - zero) * scale)  # the payload holds what the file gave
            assert scale.item() == pytest.approx(affine.scale.item(), rel=2e-6)  # sums in another order
            assert torch.equal(zero.flatten(), affine.zero_point.flatten())
            raw = (made / affine.scale).double()
            is_away = (raw - raw.floor() - 0.5).abs() > 1e-3  # from where rounding goes up or down
            assert torch.equal(q[is_away].float(), integers[is_away])
            assert ((q - integers).abs() <= 1).all()
            num_away += int(is_away.sum())
    assert num_away > 0.99 * 100 * 64


def test_a_cut_where_whole_numbers_cross_sends_them_as_they_are(two):
    cut, codec = two[1].cut("look"), Quantise(bit_width=8).eval()
    program, framing = onnx_file.export(cut, codec)
    assert "int64" in framing.dtypes
    (one, *_) = rows(two[2])
    with torch.no_grad():
        outputs = [out.numpy() for out in program.module()(*one.values())]
    assert framing.payload(*outputs) == codec.encode(call(cut.head, one))


class Likeliest(nn.Module):
    """What no graph holds: how many rows it works on depends on the data."""

    def forward(self, made):
        return torch.stack([row * (row > row[row > row.mean()].min()) for row in made["digit"]])


class TwoParts(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.postprocess = network, Likeliest()

    def forward(self, image, number):
        made = self.network(image, number)
        return made if self.training else self.postprocess(made)


def test_what_follows_a_network_gives_its_own_results_at_every_cut(two):
    net, _, x = two
    whole = TwoParts(net).eval()
    graph = SplitGraph(whole, **rows(x)[0])
    with torch.inference_mode():
        expected = whole(**x)
        for point in graph.points:
            link = SimulatedLink(bandwidth_bps=1e6, rtt_s=0.0, energy_j_per_bit=0.0)
            found = Pipeline(graph.cut(point), Identity(), Identity(), link).run(x, Frames())
            assert torch.equal(found, expected), point.name
