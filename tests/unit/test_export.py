"""The exported device half: same bytes as the codec's, from another process without this package; its footprint."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from splitsem.codecs.codec import Codec
from splitsem.codecs.fixed_length import FixedLength
from splitsem.codecs.learned.adjscc import Adjscc
from splitsem.codecs.learned.bottleneck import Bottleneck
from splitsem.codecs.learned.deepcod import DeepCod
from splitsem.codecs.learned.semanticnn import SemanticNN
from splitsem.errors import ConfigError
from splitsem.export import device_net, onnx_file
from splitsem.export.footprint import footprint
from splitsem.split.graph import SplitGraph
from splitsem.split.partition import Cut

# What a device needs: the file, its card, numpy, and one of the two runtimes.
DEVICE = """
import json, sys
import numpy as np
folder = sys.argv[1]
card = json.load(open(f"{folder}/device.json"))
samples = np.load(f"{folder}/samples.npy")

def payload(symbols):
    bits = np.unpackbits(symbols.reshape(-1, 1), axis=1)[:, -card["bits_per_symbol"]:]
    return bytes.fromhex(card["header_hex"]) + np.packbits(bits).tobytes()

import onnxruntime
session = onnxruntime.InferenceSession(f"{folder}/device.onnx")
import torch
network = torch.export.load(f"{folder}/device.pt2").module()
for x in samples:
    onnx = payload(session.run(None, {"x": x})[0])
    pt2 = payload(network(torch.from_numpy(x)).numpy())
    print(pt2.hex(), onnx.hex())
assert not any(name.startswith("splitsem") for name in sys.modules)
"""


def cut_and_codec(kind: type[Codec], **settings) -> tuple[Cut, Codec]:
    """A small convolutional network cut after its first layer, and an untrained codec with shuffled features."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = SplitGraph(model, (3, 16, 16))
    point = next(p for p in graph.points if p.tensors[0].shape[1:] == (8, 16, 16))
    codec = kind((8, 16, 16), **settings).eval()  # type: ignore[call-arg]
    codec.calibrate([graph.cut(point).head(torch.rand(4, 3, 16, 16))[0].detach()])  # type: ignore[attr-defined,operator]
    return graph.cut(point), codec


def test_the_files_give_the_same_bytes_in_a_process_that_knows_nothing_of_this_package(tmp_path):
    cut, codec = cut_and_codec(SemanticNN)
    program, framing = device_net.export(cut, codec)
    torch.export.save(program, tmp_path / "device.pt2")
    onnx_file.write(program, tmp_path / "device.onnx")
    (tmp_path / "device.json").write_text(json.dumps(framing._asdict()))
    samples = torch.rand(6, 1, 3, 16, 16)
    np.save(tmp_path / "samples.npy", samples.numpy())
    command = [sys.executable, "-I", "-c", DEVICE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = [codec.encode(cut.head(x)).hex() for x in samples]
    assert len(set(expected)) == len(expected)
    assert done.stdout.split("\n")[:-1] == [f"{payload} {payload}" for payload in expected]


@pytest.mark.parametrize(
    ("kind", "settings"), [(DeepCod, {}), (Adjscc, {}), (Bottleneck, {"bits_per_symbol": 5}), (SemanticNN, {})]
)
def test_every_codec_of_symbols_exports_to_its_own_bytes_and_nothing_of_the_server(kind, settings):
    cut, codec = cut_and_codec(kind, **settings)
    program, framing = device_net.export(cut, codec)
    network = program.module()
    for x in torch.rand(3, 1, 3, 16, 16):
        assert framing.payload(network(x).numpy()) == codec.encode(cut.head(x))
    assert not any("decoder" in name for name in program.state_dict)


def test_int8_sends_almost_the_same_symbols_from_a_smaller_file(tmp_path):
    cut, codec = cut_and_codec(Bottleneck, widths=(64, 64))
    program, _ = device_net.export(cut, codec)
    onnx_file.write(program, tmp_path / "device.onnx")
    samples = torch.rand(16, 1, 3, 16, 16)
    onnx_file.write_int8(tmp_path / "device.onnx", tmp_path / "int8.onnx", samples)
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * (tmp_path / "device.onnx").stat().st_size
    plain, small = (onnx_file.OnnxDevice(tmp_path / name) for name in ("device.onnx", "int8.onnx"))
    distance = np.stack([np.abs(plain.symbols(x).astype(int) - small.symbols(x).astype(int)) for x in samples])
    assert 0 < distance.mean() < 0.5


def test_a_codec_without_an_encoder_network_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"FixedLength cannot be exported.*choose codec=semanticnn"):
        device_net.check(FixedLength)


class Branches(nn.Module):
    """Two tensors alive at a time, three while the second is made; a view; and one made from weights alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = x.relu()  # x, a: 2 × 400 bytes
        b = torch.cat([a, a, x], 1)  # x, a, b: 400 + 400 + 1200
        return b.view(1, -1).sum(1) + (self.weight.square()).sum()


def test_peak_activation_memory_is_what_is_alive_at_a_time():
    program = torch.export.export(Branches(), (torch.rand(1, 100),))
    assert footprint(program).peak_activation_bytes == 2000


def test_flops_are_those_of_the_split_graph_and_of_the_encoder():
    cut, codec = cut_and_codec(Bottleneck, widths=(), code_channels=4)
    program, _ = device_net.export(cut, codec)
    convolution = 2 * 4 * 8 * 3 * 3 * 8 * 8  # 8 → 4 channels, 3×3, at 8×8 positions
    assert footprint(program).flops > cut.point.head_flops + convolution
    assert footprint(program).flops < 1.5 * (cut.point.head_flops + convolution)
