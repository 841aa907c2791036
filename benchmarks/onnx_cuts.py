"""Are the cuts of real ONNX files exact, and what does cutting cost?

    python -m splitsem.data get pp-ocrv4 silero-vad
    python benchmarks/onnx_cuts.py                       # a point a layer
    python benchmarks/onnx_cuts.py --granularity op      # after every operation
    python benchmarks/onnx_cuts.py --files mine.onnx --shape 3 224 224

A cut is exact where head and tail give, for two inputs, the bits of onnxruntime's own session of the whole file at the
same level of optimisation. `graph` is the time to optimise the file, run it on an example and find its points. `whole`
is the median time of the whole file for one sample in one thread; `cut / whole` is that of head and tail, one after the
other, in shares of it, measured by turns at each point (smallest, median and largest of all points); `layout / whole`
is that of the whole file at onnxruntime's last level, which cuts do not have.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import onnxruntime as ort
import torch
from torch import Tensor

from splitsem.data.shelf import path
from splitsem.errors import ConfigError
from splitsem.models.onnx_model import OnnxModel, Optimisation
from splitsem.splitting.cut import Cut
from splitsem.splitting.cut_graph import Granularity
from splitsem.splitting.onnx_graph import OnnxGraph
from splitsem.trees import is_same, leaves

LEVELS = {"none": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}
LAST = "ORT_ENABLE_ALL"


class File(NamedTuple):
    """A file, the shape of its first input, and settings of ``OnnxModel``."""

    path: str
    shape: tuple[int, ...]
    settings: dict[str, Any]


def shelf_files() -> list[File]:
    """The files that ``splitsem.data`` gets."""
    reader, vad = path("pp-ocrv4"), path("silero-vad") / "silero_vad.onnx"
    return [
        File(str(reader / "ch_PP-OCRv4_det_infer.onnx"), (1, 3, 320, 320), {}),
        File(str(reader / "ch_PP-OCRv4_rec_infer.onnx"), (1, 3, 48, 320), {}),
        File(str(reader / "ch_ppocr_mobile_v2.0_cls_infer.onnx"), (1, 3, 48, 192), {}),
        File(str(vad), (1, 576), {"constants": {"sr": 16000}, "state": {"state": "stateN"}}),
    ]


def medians_ms(calls: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median milliseconds of some calls, which take turns; the first turn does not count."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, own in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            if turn:
                own.append(1000 * (time.perf_counter() - began))
    return [statistics.median(own) for own in times]


def own_session(file: File, model: OnnxModel, level: str) -> Callable[[Tensor], list[Tensor]]:
    """onnxruntime's session of the file as it lies on disk."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(file.path, options, providers=["CPUExecutionProvider"])
    others = {}
    for value in session.get_inputs():
        if value.name in file.settings.get("constants", {}):
            others[value.name] = torch.tensor(file.settings["constants"][value.name]).numpy()
        elif value.name not in model.inputs:
            sizes = [size if isinstance(size, int) and size else 1 for size in value.shape]
            others[value.name] = torch.zeros(sizes).numpy()

    def run(x: Tensor) -> list[Tensor]:
        made = session.run(list(model.outputs), {model.inputs[0]: x.numpy(), **others})
        return [torch.from_numpy(array) for array in made]

    return run


def row(file: File, granularity: Granularity, optimisation: Optimisation, repeats: int) -> str:
    """What was found of a file, as a line of the table."""
    x = torch.rand(*file.shape, generator=torch.Generator().manual_seed(0))
    model = OnnxModel(file.path, optimisation=optimisation, **file.settings)
    began = time.perf_counter()
    graph = OnnxGraph(model, x, granularity=granularity)
    graph_s = time.perf_counter() - began
    run, num_exact, shares, wholes = own_session(file, model, LEVELS[optimisation]), 0, [], []
    for point in graph.points:
        cut = graph.cut(point)
        num_exact += all(is_same(run(scale * x), leaves(through(cut, scale * x))) for scale in (1, 0.3))
        whole_ms, cut_ms = medians_ms([lambda: run(x), lambda: through(cut, x)], repeats)  # noqa: B023 (called at once)
        shares.append(cut_ms / whole_ms)
        wholes.append(whole_ms)
    last = own_session(file, model, LAST)
    whole_ms, layout_ms = medians_ms([lambda: run(x), lambda: last(x)], 3 * repeats)
    name = file.path.rpartition("/")[2]
    return (
        f"{name:36} {len(graph.operations):5} {len(graph.points):6} {num_exact:5} {len(graph.refused):7} "
        f"{graph_s:7.2f} {statistics.median(wholes):8.2f} "
        f"{min(shares):7.2f} {statistics.median(shares):.2f} {max(shares):.2f} {layout_ms / whole_ms:14.2f}"
    )


def through(cut: Cut, x: Tensor) -> Any:
    """Head, then tail, as they run on two machines, without bytes between."""
    return cut.tail(*cut.received(cut.head(x)))


def main() -> None:
    """Print a line a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--granularity", choices=("layer", "op"), default="layer")
    parser.add_argument("--optimisation", choices=tuple(LEVELS), default="extended")
    parser.add_argument("--files", nargs="*", help="in place of those of splitsem.data")
    parser.add_argument("--shape", nargs="*", type=int, default=[3, 224, 224], help="of one sample, for --files")
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    files = [File(one, (1, *given.shape), {}) for one in given.files] if given.files else shelf_files()
    print(
        f"onnxruntime {ort.__version__}, {given.optimisation}, a point a{'n' * (given.granularity == 'op')} "
        f"{given.granularity}, one thread"
    )
    print(f"{'file':36} nodes points exact refused graph s whole ms     cut / whole layout / whole")
    for file in files:
        try:
            print(row(file, given.granularity, given.optimisation, given.repeats), flush=True)
        except ConfigError as exc:
            print(f"{file.path}: {exc}")


if __name__ == "__main__":
    main()
