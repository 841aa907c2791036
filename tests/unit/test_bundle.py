"""A bundle: written, read, checked; what is missing, damaged or of another version is named in one line."""

import functools
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from splitsem.codecs.quantise import Quantise
from splitsem.cost.lut import read_lut
from splitsem.errors import ConfigError
from splitsem.export import bundle_writer, onnx_file
from splitsem.export.bundle_writer import Parts
from splitsem.remote.labels import codec_label, weights_digest
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.answer import TopClasses
from splitsem_device.bundle import FACTS, Bundle, BundleFacts
from splitsem_device.onnx_half import OnnxHalf
from splitsem_device.picture_input import PictureInput
from splitsem_device.program import command_line
from tests.conftest import ROOT

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
SHAPE = (3, 16, 16)


@functools.cache
def made() -> tuple[nn.Module, SplitGraph, Parts]:
    """A small network, cut after its first layers, and a codec."""
    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))
    network = nn.Sequential(*body).eval()
    graph = SplitGraph(network, SHAPE)
    cut = graph.cut(next(p for p in graph.points if p.tensors[0].shape[1:] == (8, 16, 16)))
    codec = Quantise(8).eval()
    _, framing = onnx_file.export(cut, codec)
    return network, graph, Parts(cut, codec, framing, TopClasses(10, 2))


@functools.cache
def onnx_files() -> dict[str, bytes]:
    """The head and the whole network of ``made``."""
    _, graph, parts = made()
    program, framing = onnx_file.export(parts.cut, parts.codec)
    with tempfile.TemporaryDirectory() as folder:
        onnx_file.write(program, head := Path(folder) / "head.onnx", framing.outputs)
        onnx_file.write(onnx_file.export_whole(graph), whole := Path(folder) / "whole.onnx", ["output_0"])
        return {"head.float32.onnx": head.read_bytes(), "whole.onnx": whole.read_bytes()}


def write(folder: Path, archive: str = "folder") -> Path:
    """A bundle of ``made``."""
    (network, _, parts), contents = made(), onnx_files()
    inputs = list(torch.rand(4, 1, *SHAPE, generator=torch.Generator().manual_seed(1)))
    heads = {"float32": OnnxHalf(contents["head.float32.onnx"], "head.float32.onnx")}
    samples, files = bundle_writer.samples(parts, heads, inputs)
    facts = BundleFacts(
        plan=parts.plan(weights_digest(network), codec_label(parts.codec), "layer"),
        framing=parts.framing,
        answer=parts.answer.reader,
        inputs=parts.inputs(),
        picture=PictureInput([16, 16], 3),
        class_names=[f"class {k}" for k in range(10)],
        heads={"float32": "head.float32.onnx"},
        whole="whole.onnx",
        samples=samples,
        files={},
        scores={},
        versions=bundle_writer.versions(),
        licence="none",
    )
    return bundle_writer.write(facts, contents | files, folder / "bundle", archive)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("kept"))


def test_the_files_tell_nothing_of_the_machine_that_made_them():
    for content in onnx_files().values():
        assert str(ROOT).encode() not in content
        assert b"File " not in content


@pytest.fixture
def folder(kept, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(kept, tmp_path / "copy"))


def test_folder_and_archive_say_the_same_and_equal_archives_are_equal_files(kept, tmp_path):
    one, other = (write(tmp_path / name, "zip") for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    folder, archive = Bundle(kept), Bundle(one)
    assert folder.facts == archive.facts
    assert {name: folder.read(name) for name in folder.facts.files} == {n: archive.read(n) for n in archive.facts.files}
    assert len((kept / "README.md").read_text().splitlines()) <= 12


def test_the_expected_payloads_are_those_of_the_file_and_of_torch_and_the_answers_those_of_the_tail(kept):
    bundle = Bundle(kept)
    samples, (*_, parts) = bundle.facts.samples, made()
    head = OnnxHalf(bundle.head("float32"), "head")
    x = np.load(kept / samples.inputs)["x"]
    for name in ("float32", "torch"):
        payloads = bundle.pieces(samples.payloads[name], samples.payload_bytes[name])
        for k, payload in enumerate(payloads):
            z = parts.cut.head(torch.from_numpy(x[k : k + 1]))
            mine = (
                parts.codec.encode(z) if name == "torch" else bundle.facts.framing.payload(*head({"x": x[k : k + 1]}))
            )
            assert payload == mine
    for payload, answer in zip(payloads, bundle.pieces(samples.answers, samples.answer_bytes), strict=True):
        assert answer == parts.answer.encode(parts.cut.tail(*parts.codec.decode(payload)))


def change_schema(folder: Path) -> None:
    facts = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps(facts | {"schema": "splitsem.bundle/9"}))


def change_facts(folder: Path) -> None:
    (folder / FACTS).write_text((folder / FACTS).read_text().replace('"class 3"', '"class 4"'))


def cut_facts(folder: Path) -> None:
    (folder / FACTS).write_text((folder / FACTS).read_text()[:300])


def drop_facts(folder: Path) -> None:
    (folder / FACTS).unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            change_schema,
            "is a bundle of schema splitsem.bundle/9, and this splitsem-device reads splitsem.bundle/1",
        ),
        (change_facts, "bundle.json is damaged .its digest is of another content.; copy the bundle again"),
        (cut_facts, "bundle.json is damaged"),
        (drop_facts, "has no file bundle.json; copy the bundle again"),
        (shutil.rmtree, "there is no bundle .*: make one with splitsem .workflow=bundle"),
    ],
)
def test_a_bundle_that_cannot_be_read_says_why_in_one_line(damage, said, folder, capsys):
    damage(folder)
    with pytest.raises(ConfigError, match=said) as told:
        Bundle(folder)
    assert "\n" not in str(told.value)
    assert command_line.main(["check", str(folder)]) == 1
    assert capsys.readouterr().err == f"splitsem-device: {told.value} [{told.value.code}]\n"


def test_a_damaged_and_a_missing_file_are_named(folder, capsys):
    content = bytearray((folder / "head.float32.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "head.float32.onnx").write_bytes(content)
    (folder / "samples.npz").unlink()
    with pytest.raises(ConfigError, match=r"head.float32.onnx is damaged: expected [\d,]+ bytes of SHA-256 \w{12}…"):
        Bundle(folder).head("float32")
    with pytest.raises(ConfigError, match="has no head in int8, only in float32"):
        Bundle(folder).head("int8")
    assert command_line.main(["check", str(folder)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines] == ["BAD "] * 3
    assert "head.float32.onnx is damaged" in lines[0]
    assert "has no file samples.npz" in lines[1]
    assert lines[2].endswith("files bad: head.float32.onnx, samples.npz")


def test_a_damaged_archive_is_told(kept, tmp_path):
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in kept.iterdir():
            archive.write(file, file.name)
    content = bytearray(path.read_bytes())
    info = zipfile.ZipFile(path).getinfo("whole.onnx")
    content[info.header_offset + 200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"whole\.onnx"):
        Bundle(path).read("whole.onnx")
    path.write_bytes(content[:1000])
    with pytest.raises(ConfigError, match="the archive is damaged"):
        Bundle(path)


def test_check_is_exact_where_it_was_made_and_tolerates_one_step_unless_told_not_to(folder, capsys):
    assert command_line.main(["check", str(folder), "--exact"]) == 0
    said = capsys.readouterr().out
    assert "coders, float32: 4 of 4 payloads identical" in said
    assert "head, float32: 4 of 4 payloads identical" in said
    assert "of 4 payloads are torch's to the last bit; torch rounds in other places, so none need be" in said
    bundle = Bundle(folder)

    def moved(step: int) -> list[int]:
        """Exit status with and without --exact where the integers that came along are others."""
        outputs = dict(np.load(folder / "outputs.float32.npz"))
        outputs["symbols"] = outputs["symbols"].copy()
        outputs["symbols"].reshape(-1)[5] += step
        made = [[outputs[name][k] for name in bundle.facts.framing.outputs] for k in range(4)]
        payloads = [bundle.facts.framing.payload(*one) for one in made]
        files = {"outputs.float32.npz": bundle_writer._npz(outputs), "payloads.float32.bin": b"".join(payloads)}
        sizes = bundle.facts.samples.payload_bytes | {"float32": [len(one) for one in payloads]}
        contents = {name: bundle.read(name) for name in bundle.facts.files if name != "README.md"}
        facts = BundleFacts(**{**vars(bundle.facts), "samples": bundle.facts.samples._replace(payload_bytes=sizes)})
        path = bundle_writer.write(facts, contents | files, folder.parent / f"moved{step}", "folder")
        return [command_line.main(["check", str(path), *flag]) for flag in ([], ["--exact"])]

    assert moved(1) == [0, 1]
    assert "1 of 8,192 integers differ, by at most 1" in capsys.readouterr().out
    assert moved(2) == [1, 1]


def test_profile_writes_the_table_that_splitsem_reads(folder, tmp_path):
    path = tmp_path / "lut.json"
    assert command_line.main(["profile", str(folder), "--output", str(path), "--repeats", "3", "--pause", "0"]) == 0
    _, graph, parts = made()
    lut = read_lut(path)
    assert lut.time_s(parts.cut.halves()[0]) > 0
    assert lut.time_s(graph.cut("output").halves()[0]) > 0


def onnx_bytes(op: str, opset: int, dtype: str = "FLOAT", domain: str = "") -> bytes:
    """An ONNX file with one operation."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    kind = getattr(onnx.TensorProto, dtype)
    ends = [helper.make_tensor_value_info(name, kind, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(op, ["x"], ["y"], domain=domain)], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, ir_version=10, opset_imports=opsets).SerializeToString()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("Relu", 20, "BFLOAT16"), r"lacks the operation Relu of opset 14 or its types: pip install 'onnxruntime>=9'"),
        (("Foo", 20), "lacks the operation Foo of opset 20 or its types"),
        (("Foo", 20, "FLOAT", "mine"), "lacks the operation mine:Foo or its types"),
        (("Relu", 99), "is of opset 99, which onnxruntime .* here does not know"),
        (b"\x08junk", "is no file that onnxruntime .* can run"),
    ],
)
def test_what_onnxruntime_lacks_is_named_with_the_way_out(given, said):
    content = given if isinstance(given, bytes) else onnx_bytes(*given)
    with pytest.raises(ConfigError, match=said) as told:
        OnnxHalf(content, "head.onnx", made_by="9")
    assert "\n" not in str(told.value)
    assert "make the bundle anew with the format float32" in str(told.value)


def test_float16_halves_the_weights_and_changes_hardly_anything(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 1, 1))
    graph = SplitGraph(net.eval(), SHAPE)
    cut = graph.cut(next(p for p in graph.points if p.tensors[0].shape[1:] == (64, 12, 12)))
    program, framing = onnx_file.export(cut, Quantise(8).eval())
    onnx_file.write(program, tmp_path / "a.onnx", framing.outputs)
    onnx_file.write_float16(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").stat().st_size < 0.6 * (tmp_path / "a.onnx").stat().st_size
    x = {"x": torch.rand(1, *SHAPE).numpy()}
    ours, theirs = (onnx_file.read(tmp_path / name)(x)[0].astype(int) for name in ("a.onnx", "b.onnx"))
    assert 0 < np.abs(ours - theirs).max() <= 2
