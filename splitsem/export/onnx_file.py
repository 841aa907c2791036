"""The device's half as ONNX, in float32 and with int8 convolutions; needs the optional extra ``export``."""

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from splitsem.codecs.codec import Codec, Tensors
from splitsem.export.coders import Coder, coder
from splitsem.export.framing import Framing
from splitsem.split.capture import Batch
from splitsem.split.cut import Cut
from splitsem.split.half import is_view, op_cost

INPUT = "x"
_QUANTISED = ["Conv", "MatMul", "Gemm"]  # norms, levels and what chooses among them stay in float32


def is_available() -> bool:
    """Whether what writes and runs ONNX files is installed."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))


def write(program: ExportedProgram, path: Path, outputs: Sequence[str]) -> None:
    """Write the program as one ONNX file, weights included, with the input ``x`` and these names of its outputs."""
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": list(outputs)}
    with _quiet():
        made = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    assert made is not None
    made.save(path, external_data=False)


def write_int8(source: Path, path: Path, samples: Iterable[Tensor]) -> None:
    """Write a variant of ``source`` whose convolutions and products run on int8, weights by output channel.

    Args:
        source: of ``write``.
        path: of the variant.
        samples: inputs ``(1, *input_shape)`` from which the ranges of the activations are taken.
    """
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """The samples, one by one."""

        def __init__(self) -> None:
            self._inputs = iter(samples)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            x = next(self._inputs, None)
            return None if x is None else {INPUT: x.numpy()}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        ready = Path(folder) / "ready.onnx"
        quantization.quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantization.quantize_static(ready, path, Reader(), per_channel=True, op_types_to_quantize=_QUANTISED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the exporters' progress is not logged, and what their own libraries call outdated is not warned of."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(logging.NOTSET)


class OnnxDevice:
    """Runs a file of ``write`` or ``write_int8`` on the CPU, one thread.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def outputs(self, x: Tensor) -> list[NDArray[Any]]:
        """What the file puts out for one sample ``(1, *input_shape)``, e.g. symbols ``(1, N)``; for a framing."""
        return self._session.run(None, {INPUT: x.numpy()})


class EdgeNet(nn.Module):
    """From a batch of samples to the outputs of a coder; holds nothing of the server's.

    Args:
        cut: gives the head.
        coder: see ``coders.coder``.
    """

    def __init__(self, cut: Cut, coder: Coder) -> None:
        super().__init__()
        self.head = cut.head
        self.coder = coder

    def forward(self, x: Tensor) -> Tensors:
        """Outputs for samples ``(B, *input_shape)``, e.g. symbols ``(B, N)``; see the coder's framing."""
        return self.coder(self.head(x))


def export(cut: Cut, codec: Codec) -> tuple[ExportedProgram, Framing]:
    """The device's half for one sample at a time, and how its outputs become what ``codec.encode`` makes.

    Args:
        cut: of a network in float32 on the CPU.
        codec: in eval mode, on the CPU.

    Raises:
        ConfigError: the codec's encoder cannot be exported, or what crosses cannot.
    """
    made = coder(codec)
    with torch.no_grad():
        framing = made.framing(list(cut.example.shape[1:]), cut.head(cut.example))
        program = torch.export.export(EdgeNet(cut, made).eval(), (cut.example,), strict=False)
    return program, framing


class Footprint(NamedTuple):
    """What one run on one sample needs.

    Attributes:
        flops: floating-point operations, see ``op_cost``.
        peak_activation_bytes: see ``footprint``.
    """

    flops: float
    peak_activation_bytes: int


def footprint(program: ExportedProgram) -> Footprint:
    """FLOPs and peak activation memory of a program exported at fixed shapes.

    The peak is the largest sum, over the operations in the order of the graph, of the tensors alive while one runs: its
    inputs, its outputs, and whatever a later one still reads. Each has memory of its own except for views; nothing is
    fused or done in place, and kernels' scratch memory is not counted, so a runtime that fuses needs less. Weights, and
    what is made from weights alone, are no activations.
    """
    batch = Batch(sympy.Symbol("batch"))
    nodes = list(program.graph.nodes)
    active = {node for node in nodes if node.name in program.graph_signature.user_inputs}
    owner = {node: node for node in active}
    flops = 0.0
    for node in nodes:
        if node.op == "call_function" and not active.isdisjoint(node.all_input_nodes):
            active.add(node)
            bases = [owner[n] for n in node.all_input_nodes if n in owner]
            owner[node] = bases[0] if is_view(node) else node
            flops += op_cost(node, batch).flops
    place = {node: number for number, node in enumerate(nodes)}
    last_read = {base: place[base] for base in owner.values()}
    for node, base in owner.items():
        last_read[base] = max([last_read[base], *(place[user] for user in node.users)])
    held = [
        sum(_bytes(base) for base, last in last_read.items() if place[base] <= now <= last) for now in range(len(nodes))
    ]
    return Footprint(flops, max(held))


def _bytes(node: fx.Node) -> int:
    value = node.meta["val"]
    tensors: Sequence[object] = value if isinstance(value, list | tuple) else (value,)
    return sum(prod(t.shape) * t.element_size() for t in tensors if isinstance(t, Tensor))
