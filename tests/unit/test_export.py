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
from splitsem.codecs.learned.crbq import CrBq
from splitsem.codecs.learned.deepcod import DeepCod
from splitsem.codecs.learned.entropic_student import EntropicStudent
from splitsem.codecs.learned.learned import LearnedCodec
from splitsem.codecs.learned.semanticnn import SemanticNN
from splitsem.codecs.picture import Webp
from splitsem.codecs.quantise import Quantise
from splitsem.codecs.tensorwise import HalfPrecision, Identity
from splitsem.codecs.topk import TopK
from splitsem.errors import ConfigError
from splitsem.export import coders, onnx_file
from splitsem.export.onnx_file import footprint
from splitsem.splitting.cut import Cut
from splitsem.splitting.graph import SplitGraph
from splitsem_device import framing as framing_file
from tests.conftest import ROOT

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
    pt2 = payload(network(torch.from_numpy(x))[0].numpy())
    print(pt2.hex(), onnx.hex())
assert not any(name.startswith("splitsem") for name in sys.modules)
"""


def cut_and_codec(kind: type[Codec], **settings) -> tuple[Cut, Codec]:
    """A small convolutional network cut after its first layer, and an untrained codec for what crosses there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = SplitGraph(model, (3, 16, 16))
    point = next(p for p in graph.points if p.tensors[0].shape[1:] == (8, 16, 16))
    if not issubclass(kind, LearnedCodec):
        return graph.cut(point), kind(**settings).eval()
    codec = kind((8, 16, 16), **settings).eval()  # type: ignore[call-arg]
    codec.calibrate([graph.cut(point).head(torch.rand(4, 3, 16, 16))[0].detach()])  # type: ignore[attr-defined,operator]
    return graph.cut(point), codec


def test_the_files_give_the_same_bytes_in_a_process_that_knows_nothing_of_this_package(tmp_path):
    cut, codec = cut_and_codec(SemanticNN)
    program, framing = onnx_file.export(cut, codec)
    torch.export.save(program, tmp_path / "device.pt2")
    onnx_file.write(program, tmp_path / "device.onnx", framing.outputs)
    (tmp_path / "device.json").write_text(json.dumps(framing_file.to_card(framing)))
    samples = torch.rand(6, 1, 3, 16, 16)
    np.save(tmp_path / "samples.npy", samples.numpy())
    command = [sys.executable, "-I", "-c", DEVICE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = [codec.encode(cut.head(x)).hex() for x in samples]
    assert len(set(expected)) == len(expected)
    assert done.stdout.split("\n")[:-1] == [f"{payload} {payload}" for payload in expected]


class TwoBranches(nn.Module):
    """Two tensors cross between its first layers and its last."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(4, 5), nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x).sum(1) * self.other(x).sum(1)


def two_branches() -> Cut:
    torch.manual_seed(0)
    graph = SplitGraph(TwoBranches(), (4,))
    return graph.cut(next(p for p in graph.points if len(p.tensors) == 2))


# What a device needs that packs with this package; no torch for an ONNX file.
PACKING = """
import json, sys
from pathlib import Path
import numpy as np
import onnxruntime
folder = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])
from splitsem_device import framing
samples = np.load(folder / "samples.npy")
for path in sorted(folder.glob("*.onnx")):
    session = onnxruntime.InferenceSession(path)
    packing = framing.of_card(json.loads(path.with_suffix(".json").read_text()))
    for x in samples:
        print("onnx", path.stem, packing.payload(*session.run(packing.outputs, {"x": x})).hex())
assert "torch" not in sys.modules
import torch
for path in sorted(folder.glob("*.pt2")):
    network = torch.export.load(path).module()
    packing = framing.of_card(json.loads(path.with_suffix(".json").read_text()))
    for x in samples:
        with torch.no_grad():
            print("pt2", path.stem, packing.payload(*(out.numpy() for out in network(torch.from_numpy(x)))).hex())
"""
OWN_RANGES = {
    "crbq": (CrBq, {"bit_width": 6}),
    "entropic_student": (EntropicStudent, {}),
    "fixed": (FixedLength, {}),
    "fixed4": (FixedLength, {"bit_width": 4, "granularity": "channel", "mapping": "gray", "order": "planes"}),
    "fixed_percentile": (FixedLength, {"clipping": "percentile", "percentile": 99.0}),
    "quant": (Quantise, {}),
    "quant10": (Quantise, {"bit_width": 10, "entropy": "zstd"}),
}


def test_codecs_with_ranges_or_tables_give_the_same_bytes_from_the_torch_file_and_the_same_features_from_onnx(tmp_path):
    """ONNX Runtime's last bit may differ from torch's, and so may the last bit of a scale, which is sent as it is."""
    samples = torch.rand(4, 1, 3, 16, 16)
    np.save(tmp_path / "samples.npy", samples.numpy())
    expected, codecs = {}, {}
    for name, (kind, settings) in OWN_RANGES.items():
        cut, codec = cut_and_codec(kind, **settings)
        program, framing = onnx_file.export(cut, codec)
        network = program.module()
        payloads = [codec.encode(cut.head(x)) for x in samples]
        assert len(set(payloads)) == len(samples)
        with torch.no_grad():
            assert [framing.payload(*(out.numpy() for out in network(x))) for x in samples] == payloads
        assert type(footprint(program).peak_activation_bytes) is int
        assert not any("decoder" in weight or "prior" in weight for weight in program.state_dict)
        if settings and kind is not CrBq:
            continue  # nearly the same operations again: seconds saved
        torch.export.save(program, tmp_path / f"{name}.pt2")
        onnx_file.write(program, tmp_path / f"{name}.onnx", framing.outputs)
        (tmp_path / f"{name}.json").write_text(json.dumps(framing_file.to_card(framing)))
        expected[name], codecs[name] = payloads, codec
    command = [sys.executable, "-I", "-c", PACKING, str(tmp_path), str(ROOT / "device")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [(name, bytes.fromhex(payload)) for kind, name, payload in lines if kind == "pt2"] == [
        (name, payload) for name in sorted(expected) for payload in expected[name]
    ]
    by_onnx = [(name, bytes.fromhex(payload)) for kind, name, payload in lines if kind == "onnx"]
    assert [payload for name, payload in by_onnx if name == "entropic_student"] == expected["entropic_student"]
    in_order = [payload for name in sorted(expected) for payload in expected[name]]
    for (name, payload), sent in zip(by_onnx, in_order, strict=True):
        ours, theirs = (codecs[name].decode(p)[0] for p in (sent, payload))
        assert float((ours - theirs).abs().mean() / ours.std()) < 1e-3


class WithMask(nn.Module):
    """A mask of bools and a tensor cross between its first layer and its last."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask, made = x[:, :1] > 0.5, self.one(x)
        made = made.relu()
        return torch.where(mask, made, -made).sum(1)


@pytest.mark.parametrize("codec", [Identity(), HalfPrecision(), Quantise(8), FixedLength(6)], ids=lambda c: c.name)
def test_several_tensors_and_those_of_no_floating_point_travel_as_by_the_codec(codec):
    torch.manual_seed(0)
    graph = SplitGraph(WithMask(), (4,), granularity="op")
    cut = graph.cut(
        next(p for p in graph.points if {str(t.dtype) for t in p.tensors} == {"torch.bool", "torch.float32"})
    )
    program, framing = onnx_file.export(cut, codec.eval())
    again = framing_file.of_card(json.loads(json.dumps(framing_file.to_card(framing))))
    assert again == framing
    for x in torch.rand(5, 1, 4):
        with torch.no_grad():
            outputs = [out.numpy() for out in program.module()(x)]
        assert len(outputs) == len(framing.outputs)
        assert again.payload(*outputs) == codec.encode(cut.head(x))


def test_a_framing_of_another_kind_is_refused():
    card = framing_file.to_card(framing_file.RawFraming([4], 1, ["01"], ["float32"]))
    for change in ({"kind": "other"}, {"more": 1}):
        with pytest.raises(ValueError, match="a framing is one of symbols, affine, prior, raw"):
            framing_file.of_card(card | change)


def test_every_tensor_of_a_cut_with_several_has_its_own_range():
    cut, codec = two_branches(), FixedLength(6)
    program, framing = onnx_file.export(cut, codec)
    assert framing.outputs[3:] == ["symbols_1", "scales_1", "zero_points_1"]
    x = torch.rand(1, 4)
    with torch.no_grad():
        outputs = program.module()(x)
    assert framing.payload(*(out.numpy() for out in outputs)) == codec.encode(cut.head(x))


@pytest.mark.parametrize(
    ("kind", "settings"), [(DeepCod, {}), (Adjscc, {}), (Bottleneck, {"bits_per_symbol": 5}), (SemanticNN, {})]
)
def test_every_codec_of_symbols_exports_to_its_own_bytes_and_nothing_of_the_server(kind, settings):
    cut, codec = cut_and_codec(kind, **settings)
    program, framing = onnx_file.export(cut, codec)
    network = program.module()
    for x in torch.rand(3, 1, 3, 16, 16):
        assert framing.payload(*(out.numpy() for out in network(x))) == codec.encode(cut.head(x))
    assert not any("decoder" in name for name in program.state_dict)


def test_int8_sends_almost_the_same_symbols_from_a_smaller_file(tmp_path):
    cut, codec = cut_and_codec(Bottleneck, widths=(64, 64))
    program, framing = onnx_file.export(cut, codec)
    onnx_file.write(program, tmp_path / "device.onnx", framing.outputs)
    samples = torch.rand(16, 1, 3, 16, 16)
    onnx_file.write_int8(tmp_path / "device.onnx", tmp_path / "int8.onnx", samples)
    assert (tmp_path / "int8.onnx").stat().st_size < 0.5 * (tmp_path / "device.onnx").stat().st_size
    plain, small = (onnx_file.read(tmp_path / name) for name in ("device.onnx", "int8.onnx"))
    both = [[half({"x": x.numpy()})[0].astype(int) for half in (plain, small)] for x in samples]
    distance = np.stack([np.abs(ours - theirs) for ours, theirs in both])
    assert 0 < distance.mean() < 0.5


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(TopK, "how many values"), (Webp, "its encoder is an image library")],
)
def test_what_has_no_encoder_that_is_a_network_is_refused_with_the_reason(kind, reason):
    with pytest.raises(ConfigError, match=rf"{kind.__name__} cannot be exported: {reason}.*; choose codec=semanticnn"):
        coders.check(kind)


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
    program, _ = onnx_file.export(cut, codec)
    convolution = 2 * 4 * 8 * 3 * 3 * 8 * 8  # 8 → 4 channels, 3×3, at 8×8 positions
    assert footprint(program).flops > cut.point.head_flops + convolution
    assert footprint(program).flops < 1.5 * (cut.point.head_flops + convolution)
