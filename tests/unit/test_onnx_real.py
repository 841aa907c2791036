"""Real ONNX files, got by `splitsem.data`, are cut exactly: PP-OCR's three networks, and Silero VAD with its state."""

import numpy as np
import pytest
import torch

from splitsem.data import shelf

pytest.importorskip("onnx", reason="the extra export is not installed")
pytest.importorskip("onnxruntime", reason="the extra export is not installed")

from splitsem.models.onnx_model import OnnxModel
from splitsem.splitting.onnx_graph import OnnxGraph
from tests.unit.test_onnx_graph import by_onnxruntime, check_all, through


def needs(name):
    missing = shelf.where(shelf.named(name)) is None
    return pytest.mark.skipif(missing, reason=f"`python -m splitsem.data get {name}` was not run here")


@needs("pp-ocrv4")
@pytest.mark.parametrize(
    ("file", "size"),
    [
        ("ch_PP-OCRv4_det_infer.onnx", (96, 128)),
        ("ch_PP-OCRv4_rec_infer.onnx", (48, 96)),
        ("ch_ppocr_mobile_v2.0_cls_infer.onnx", (48, 192)),
    ],
)
def test_every_cut_of_a_text_reader_is_exact(file, size):
    path = str(shelf.path("pp-ocrv4") / file)
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    graph = OnnxGraph(OnnxModel(path), x)
    assert len(graph.points) > 20
    assert max(len(point.tensors) for point in graph.points) > 1
    (wanted,) = by_onnxruntime(path, x=x).values()
    check_all(graph, wanted, x)


@needs("silero-vad")
@pytest.mark.parametrize("rate", [8000, 16000])
def test_a_stream_of_sound_is_cut_exactly_and_its_state_stays(rate):
    path = str(shelf.path("silero-vad") / "silero_vad.onnx")
    frames = 0.1 * torch.randn(5, 1, 576 if rate == 16000 else 288, generator=torch.Generator().manual_seed(0))
    wanted, state = [], np.zeros((2, 1, 128), np.float32)
    for frame in frames:
        made = by_onnxruntime(path, input=frame, state=state, sr=np.int64(rate))
        wanted.append(made["output"])
        state = made["stateN"].numpy()
    graph = OnnxGraph(OnnxModel(path, constants={"sr": rate}, state={"state": "stateN"}), frames[0])
    assert len(graph.points) > 5
    assert all(tensor.shape != (2, 1, 128) for point in graph.points for tensor in point.tensors)
    kept_by_tail = [point.name for point in graph.points if graph.cut(point).tail.part.state]
    assert 1 < len(kept_by_tail) < len(graph.points)
    for point in graph.points:
        cut = graph.cut(point)
        cut.head.begin_stream()
        cut.tail.begin_stream()
        assert all(torch.equal(through(cut, frame), y) for frame, y in zip(frames, wanted, strict=True)), point
