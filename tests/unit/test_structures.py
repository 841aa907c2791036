"""Two inputs, one of whole numbers, and two outputs by name: through bytes, links, training and files."""

import json

import pytest
import torch

from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import Identity
from splitsem.errors import ConfigError
from splitsem.export import onnx_file
from splitsem.links.simulated import SimulatedLink
from splitsem.pipeline import Answering, Frames, Pipeline
from splitsem.split.graph import SplitGraph
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
    _, graph, x = two
    cut, codec = graph.cut("mix"), Quantise(bit_width=8).eval()
    program, framing = onnx_file.export(cut, codec)
    names = onnx_file.input_names(cut)
    onnx_file.write(program, tmp_path / "device.onnx", framing.outputs, names)
    framing_file.write(framing, tmp_path / "device.json")
    device = onnx_file.OnnxDevice(tmp_path / "device.onnx")
    assert device.inputs == names == ["image", "number"]
    assert json.loads((tmp_path / "device.json").read_text())["input_shape"] == {"image": [1, 8, 8], "number": []}
    for one in rows(x):
        z = call(cut.head, one)
        for sent, made in zip(codec.decode(framing.payload(*device.outputs(one))), z, strict=True):
            step = (made.max() - made.min()) / 255  # the runtime's kernels may round to the next symbol
            assert (sent - made).abs().max() <= 1.5 * step


def test_a_cut_where_whole_numbers_cross_is_not_exported_and_says_so(two):
    with pytest.raises(ConfigError, match="only cuts where floating-point tensors cross can be exported, got int64"):
        onnx_file.export(two[1].cut("look"), Quantise(bit_width=8).eval())
