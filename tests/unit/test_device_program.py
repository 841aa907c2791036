"""splitsem-device: its sources, its runs against a server, and what it says when something is missing or wrong."""

import io
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splitsem.errors import ConfigError, LinkError
from splitsem.remote.grpc.server import GrpcServer
from splitsem.remote.grpc.streams import Limits
from splitsem.remote.labels import weights_digest
from splitsem.remote.tail_engine import TailEngine
from splitsem.tasks.answer import AllTensors, AnswerCoder, ClassMap, TopClasses, Values
from splitsem.tasks.detection.box_list import BoxList
from splitsem.tasks.detection.letterbox import fitted
from splitsem_device import answer_reader
from splitsem_device.answers import EVERYTHING, Answer, Counters, Profile, RemoteTail
from splitsem_device.bundle import Bundle, Input
from splitsem_device.fallback import Buffer
from splitsem_device.grpc.connection import Security
from splitsem_device.picture_input import PictureInput, of_card
from splitsem_device.plan import Plan
from splitsem_device.program import command_line, feeds
from splitsem_device.retry import Backoff
from tests.unit.test_bundle import made, write

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
INPUT = Input("x", [1, 3, 16, 16], "float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("bundle"))


@contextmanager
def serving(bind: str = "127.0.0.1:0", **security: str) -> Iterator[str]:
    """The server of the bundle's network; gives its address."""
    network, graph, parts = made()
    engine = TailEngine(graph, weights_digest(network), coders=[parts.answer])
    server = GrpcServer(engine, bind, Security(**security), Limits())
    try:
        yield server.start()
    finally:
        server.stop(1)


def expected(folder: Path) -> np.ndarray:
    samples = Bundle(folder).facts.samples
    return np.frombuffer((folder / samples.answers).read_bytes(), np.uint8).reshape(4, 2)


def test_a_run_gives_the_tails_answers_and_the_times_of_each_stage(folder, tmp_path, capsys):
    report, answers = tmp_path / "r.json", tmp_path / "a.npy"
    with serving() as target:
        kept = ("--json", str(report), "--answers", str(answers))
        assert command_line.main([str(folder), "--target", target, *kept]) == 0  # run is the default
    assert np.array_equal(np.load(answers), expected(folder))
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"0\tclass {expected(folder)[0, 0]}, class {expected(folder)[0, 1]}"
    assert [line.split("  ")[0] for line in out[5:]] == [
        "read",
        "head",
        "encode",
        "round trip",
        "queue",
        "server",
        "decode",
    ]
    found = json.loads(report.read_text())
    assert found["counters"]["frames_answered"] == found["frames"] == 4
    assert set(found["stages"]["head_s"]) == {"p50", "p95", "p99"}
    assert found["rss_bytes"] > 10e6
    assert found["first_payload_s"] > 0


def test_pictures_go_in_and_frames_are_limited(folder, tmp_path, capsys):
    for k in range(3):
        Image.new("RGB", (40 + k, 30), (80 * k, 9, 200)).save(tmp_path / f"{k}.png")
    with serving() as target:
        words = ["run", str(folder), "--target", target, "--source", str(tmp_path), "--frames", "2"]
        assert command_line.main(words) == 0
    assert [line[0] for line in capsys.readouterr().out.splitlines()[:2]] == ["0", "1"]


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_without_a_server_the_whole_network_answers_the_same(folder, tmp_path, capsys):
    words = ["--target", free_address(), "--patience", "0.2", "--on-loss", "fallback", "--answers", str(tmp_path / "a")]
    assert command_line.main(["run", str(folder), *words]) == 0
    network, *_ = made()
    x = torch.from_numpy(np.load(folder / "samples.npz")["x"])
    with torch.no_grad():
        assert np.array_equal(np.load(tmp_path / "a"), network(x).topk(2).indices.numpy())
    assert "fallback frames 4" in capsys.readouterr().err


def test_a_buffer_waits_for_a_server_that_comes_late(folder, tmp_path, caplog):
    address, status = free_address(), []
    words = ["run", str(folder), "--target", address, "--patience", "30", "--on-loss", "buffer", "--buffer", "3"]
    words += ["--answers", str(tmp_path / "a")]

    def go() -> None:
        status.append(command_line._run(command_line._parser().parse_args(words), time.perf_counter()))

    device = threading.Thread(target=go)
    device.start()
    give_up = time.monotonic() + 20
    while "3 payloads wait for the server, and no more are made" not in caplog.text:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    with serving(address):
        device.join(30)
    assert status == [0]
    assert np.array_equal(np.load(tmp_path / "a"), expected(folder))


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("--json", "no/a.json", "--json: there is no folder {}/no; make it, or name another file [E-CONFIG]"),
        ("--json", "", "--json: {} is a folder; name a file in it [E-CONFIG]"),
        ("--answers", "no/a.npy", "--answers: there is no folder {}/no; make it, or name another file [E-CONFIG]"),
        ("--output", "no/p.json", "--output: there is no folder {}/no; make it, or name another file [E-CONFIG]"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_the_work(option, name, said, tmp_path, capsys):
    start = ["profile", "no-bundle"] if option == "--output" else ["run", "no-bundle", "--target", "127.0.0.1:1"]
    assert command_line.main([*start, option, str(tmp_path / name)]) == 1  # the bundle is not even looked for
    assert capsys.readouterr().err == f"splitsem-device: {said.format(tmp_path)}\n"


def test_a_file_without_the_right_to_write_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command_line.os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    assert command_line.main(["profile", "no-bundle", "--output", str(tmp_path / "a")]) == 1
    assert f"--output: {tmp_path / 'a'} cannot be written here" in capsys.readouterr().err


def test_counters_are_written_when_the_server_does_not_come_back(folder, tmp_path, capsys):
    words = ["run", str(folder), "--target", free_address(), "--patience", "0.2", "--on-loss", "buffer"]
    assert command_line.main([*words, "--json", str(tmp_path / "a.json")]) == 1
    assert "the server did not come back; 4 payloads are lost" in capsys.readouterr().err
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["frames"], found["counters"]["frames_answered"]) == (0, 0)
    assert set(found["stages"]) == {"read_s", "head_s", "encode_s"}


def test_a_source_without_frames_is_told(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with serving() as target:
        assert command_line.main(["run", str(folder), "--target", target, "--source", "-"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "splitsem-device: no frames came from standard input\n")


def test_without_arguments_the_command_is_run(capsys):
    with pytest.raises(SystemExit):
        command_line.main([])
    assert (
        "splitsem-device run: error: the following arguments are required: bundle, --target" in capsys.readouterr().err
    )


class Dead(RemoteTail):
    """A server that never answers."""

    def __init__(self) -> None:
        self.counters = Counters()

    def open(self, plan: Plan) -> None:
        raise LinkError("refused")

    def stream(self, payloads, window=None) -> Iterator[Answer]:
        raise LinkError("refused")
        yield

    def echo_s(self, num_bytes: int) -> float:
        raise LinkError("refused")

    def profile(self, asked=EVERYTHING) -> Profile:
        raise LinkError("refused")

    def close(self) -> None:
        pass

    def hurry(self) -> Backoff:
        return Backoff(patience_s=0.05, first_s=0.01)


def test_a_buffer_says_what_is_lost_when_the_server_stays_away():
    remote = Buffer(Dead(), most=2)
    remote.open(Plan.of_probes(0))
    with pytest.raises(LinkError, match="the server did not come back; 2 payloads are lost"):
        list(remote.stream(iter([b"a", b"b", b"c"])))


@pytest.mark.parametrize("on_loss", ["stop", "fallback", "buffer"])
def test_a_wrong_token_is_told_and_not_taken_for_a_lost_link(on_loss, folder, tmp_path, capsys):
    (tmp_path / "right").write_text("secret")
    (tmp_path / "wrong").write_text("guess")
    with serving(token_file=str(tmp_path / "right")) as target:
        words = ["run", str(folder), "--target", target, "--token-file", str(tmp_path / "wrong"), "--on-loss", on_loss]
        assert command_line.main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"splitsem-device: {target}: wrong or missing token: give both ends the same token_file [E-TOKEN]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--target", "127.0.0.1:1", "--patience", "0.1"], "127.0.0.1:1 refuses connections: is the server running"),
        (["--target", "nonsense"], "an address must be host:port"),
        (["--target", "192.0.2.1:1"], "refusing to send to 192.0.2.1 without TLS: give --ca"),
        (["--target", "127.0.0.1:1", "--ca", "/no"], "cannot read /no"),
        (
            ["--target", "127.0.0.1:1", "--source", "nowhere"],
            "there is no nowhere; --source takes a folder of pictures",
        ),
        (["--target", "127.0.0.1:1", "--head", "int8"], "has no head in int8, only in float32"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, said, folder, capsys):
    assert command_line.main(["run", str(folder), *words]) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_another_network_at_the_server_is_told_with_the_way_out(folder, capsys):
    _, graph, parts = made()
    engine = TailEngine(graph, "other", coders=[parts.answer])
    server = GrpcServer(engine, "127.0.0.1:0", Security(), Limits())
    try:
        assert command_line.main(["run", str(folder), "--target", server.start()]) == 1
    finally:
        server.stop(1)
    assert "weights: the server has other, the edge" in capsys.readouterr().err


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_arrays_come_from_files_and_from_standard_input(tmp_path):
    many = np.random.default_rng(0).random((3, 3, 16, 16), np.float32)
    for array in (many, many[0]):
        found = [one["x"] for one in feeds.Arrays(saved(tmp_path / "a.npy", array), [INPUT])]
        assert np.array_equal(np.concatenate(found), array.reshape(-1, 3, 16, 16))
    stream = io.BytesIO()
    for one in (many[0], many[1:]):
        np.save(stream, one)
    stream.seek(0)
    found = [one["x"] for one in feeds.StandardInput(stream, [INPUT])]
    assert np.array_equal(np.concatenate(found), many)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 16, 16)), r"a.npy holds float64, and the network takes float32: .astype\('float32'\)"),
        (np.zeros((2, 16, 16), np.float32), r"has the shape \(2, 16, 16\), and the network takes \(3, 16, 16\)"),
    ],
)
def test_a_source_of_another_shape_or_dtype_is_refused(array, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        feeds.Arrays(saved(tmp_path / "a.npy", array), [INPUT])


def test_what_is_no_array_is_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"junk")
    with pytest.raises(ConfigError, match=r"cannot read arrays from .*a\.npy"):
        feeds.Arrays(tmp_path / "a.npy", [INPUT])
    with pytest.raises(ConfigError, match=r"standard input is no stream of \.npy arrays"):
        list(feeds.StandardInput(io.BytesIO(b"junk and more junk"), [INPUT]))
    np.savez(tmp_path / "a.npz", y=np.zeros(1))
    with pytest.raises(ConfigError, match=r"has y, and this network takes x: give an \.npz of them"):
        feeds.Arrays(tmp_path / "a.npz", [INPUT])
    with pytest.raises(ConfigError, match="carries one input, and this network takes 2"):
        feeds.StandardInput(io.BytesIO(), [INPUT, INPUT])


def test_missing_pillow_and_pyav_are_told_with_the_command(folder, tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"junk")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"a\.mp4 needs PyAV: pip install 'splitsem-device\[video\]'"):
        feeds.feed(str(tmp_path / "a.mp4"), Bundle(folder))
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ConfigError, match=r"need Pillow: pip install 'splitsem-device\[pictures\]'"):
        feeds.feed(str(tmp_path), Bundle(folder))


def test_a_damaged_picture_and_an_empty_folder_are_named(folder, tmp_path):
    with pytest.raises(ConfigError, match="has no pictures"):
        feeds.feed(str(tmp_path), Bundle(folder))
    (tmp_path / "bad.png").write_bytes(b"junk")
    with pytest.raises(ConfigError, match=r"cannot read the picture .*bad\.png"):
        list(feeds.feed(str(tmp_path), Bundle(folder)))


def test_a_video_gives_its_pictures(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height = 64, 48
        for k in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found = [one["x"] for one in feeds.Video(tmp_path / "a.mp4", "x", PictureInput([16, 16], 3))]
    assert [one.shape for one in found] == [(1, 3, 16, 16)] * 4
    assert np.allclose([one.mean() for one in found], np.array([0, 60, 120, 180]) / 255, atol=0.02)
    (tmp_path / "b.mp4").write_bytes(b"junk")
    with pytest.raises(ConfigError, match=r"cannot read the video .*b\.mp4"):
        list(feeds.Video(tmp_path / "b.mp4", "x", PictureInput([16, 16], 3)))


def picture(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))


@pytest.mark.parametrize("size", [(90, 61), (61, 90), (40, 40), (28, 32)])
def test_a_picture_becomes_the_input_that_the_tasks_make(size):
    transforms = pytest.importorskip("torchvision.transforms")
    from splitsem.tasks.imagefolder import RESIZE_RATIO

    one = picture(size)
    steps = [transforms.Resize(round(28 * RESIZE_RATIO)), transforms.CenterCrop(28), transforms.ToTensor()]
    crop = PictureInput([28, 28], 3, resize_ratio=RESIZE_RATIO).make(one)
    assert np.array_equal(crop[0], transforms.Compose(steps)(one).numpy())
    assert np.array_equal(PictureInput([32, 64], 3, "pad").make(one)[0], fitted(one, (32, 64)) / np.float32(255))
    stretched = np.asarray(one.resize((64, 32), Image.Resampling.BICUBIC), np.float32) / 255
    made = PictureInput([32, 64], 3, "stretch", resample="bicubic", mean=[0.1, 0.2, 0.3], std=[2.0, 2.0, 4.0]).make(one)
    assert np.allclose(made[0].transpose(1, 2, 0), (stretched - [0.1, 0.2, 0.3]) / [2, 2, 4], atol=1e-6)
    assert PictureInput([9, 9], 1).make(one).shape == (1, 1, 9, 9)


def test_a_picture_input_of_an_unknown_kind_is_refused():
    card = PictureInput([9, 9], 3)._asdict()
    assert of_card(card) == PictureInput([9, 9], 3)
    for change in ({"fit": "fold"}, {"layout": "NHWC"}, {"more": 1}):
        with pytest.raises(ValueError, match=r"picture's input|not known here"):
            of_card(card | change)


BOXES = torch.tensor([[[1.0, 2, 9, 12, 0.9, 3], [0, 0, 5, 5, 0.4, 1], [0, 0, 0, 0, 0, 0]]])
PARTS = {"a": torch.randn(1, 2), "b": torch.ones(1, 3, dtype=torch.int64)}
CODERS: list[tuple[AnswerCoder, object]] = [
    (TopClasses(10, 3), torch.randn(1, 10)),
    (ClassMap((5, 8, 6)), torch.randn(1, 5, 8, 6)),
    (Values((7, 2)), torch.randn(1, 7, 2)),
    (BoxList((16, 20), 4, 3), BOXES),
    (AllTensors(PARTS), PARTS),
]


@pytest.mark.parametrize(("coder", "output"), CODERS, ids=lambda one: getattr(one, "name", ""))
def test_a_reader_without_torch_makes_and_reads_the_coders_answers(coder, output):
    reader = answer_reader.of_card(json.loads(json.dumps(answer_reader.to_card(coder.reader))))
    tensors = [output] if isinstance(output, torch.Tensor) else list(output.values())
    answer = coder.encode(output)
    assert reader.of_output(*(tensor.numpy() for tensor in tensors)) == answer
    found, decoded = reader.read(answer), coder.decode(answer)
    if isinstance(found, dict):
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(found.values(), decoded.values(), strict=True))
    else:
        assert np.array_equal(found, decoded.numpy())
    with pytest.raises(ValueError, match="an answer is one of classes, class map"):
        answer_reader.of_card({"kind": "other"})
