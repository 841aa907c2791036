"""Writes the edge's half as ONNX, in float32 or with int8 convolutions; needs the optional extra ``export``."""

import inspect
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from splitsem.codecs.codec import Codec, Tensors
from splitsem.errors import ConfigError
from splitsem.export.coders import Coder, coder
from splitsem.splitting.capture import Batch
from splitsem.splitting.cut import Cut
from splitsem.splitting.half import is_view, op_cost
from splitsem.trees import leaves
from splitsem_device.framing import Framing

INPUT = "x"
_QUANTISED = ["Conv", "MatMul", "Gemm"]  # norms and the choice of quantiser levels stay in float32


def input_names(cut: Cut) -> list[str]:
    """What the inputs of the edge's files are called: ``x`` where it is one, else as the network's own ``forward``.

    Raises:
        ConfigError: an input is a structure of tensors.
    """
    if not all(isinstance(value, Tensor) for value in cut.example):
        kinds = ", ".join(type(value).__name__ for value in cut.example)
        raise ConfigError(f"a network can be exported whose inputs are tensors, by name or by position, got {kinds}")
    names = list(inspect.signature(cut.head.forward).parameters)
    return [INPUT] if len(cut.example) == 1 else names


def write(program: ExportedProgram, path: Path, outputs: Sequence[str], inputs: Sequence[str] = (INPUT,)) -> None:
    """Write the program as one ONNX file, weights included, with these names of inputs and outputs."""
    names: dict[str, Any] = {"input_names": list(inputs), "output_names": list(outputs)}
    with _quiet():
        made = torch.onnx.export(program, dynamo=True, verbose=False, **names)
    assert made is not None
    made.save(path, external_data=False)


def write_int8(source: Path, path: Path, samples: Iterable[Any]) -> None:
    """Write a variant of ``source`` whose convolutions and products run on int8, weights by output channel.

    Args:
        source: path of a file of ``write``.
        path: of the variant.
        samples: inputs of one sample as a data set gives them, which give the ranges of the activations.
    """
    from onnxruntime import quantization

    names = OnnxDevice(source).inputs

    class Reader(quantization.CalibrationDataReader):
        """The samples, one by one."""

        def __init__(self) -> None:
            self._inputs = iter(samples)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            x = next(self._inputs, None)
            return None if x is None else _feed(names, x)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        ready = Path(folder) / "ready.onnx"
        quantization.quant_pre_process(source, ready, skip_symbolic_shape=True)
        quantization.quantize_static(ready, path, Reader(), per_channel=True, op_types_to_quantize=_QUANTISED)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporters' progress log and their libraries' deprecation warnings inside the context."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(logging.NOTSET)


class OnnxDevice:
    """Runs an ONNX file of the edge's half on the CPU, in one thread.

    Args:
        path: of a file of ``write`` or ``write_int8``.

    Attributes:
        inputs: the names of its inputs.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [one.name for one in self._session.get_inputs()]

    def outputs(self, x: Any) -> list[NDArray[Any]]:
        """The file's outputs for one sample as a data set gives it, e.g. symbols ``(1, N)``; input of a framing."""
        return self._session.run(None, _feed(self.inputs, x))


def _feed(names: Sequence[str], x: Any) -> dict[str, NDArray[Any]]:
    """The inputs that a file has left, by name: an input that no operation reads may not be in it."""
    if isinstance(x, Mapping) and len(x) > 1:
        return {name: x[name].numpy() for name in names}
    return {name: tensor.numpy() for name, tensor in zip(names, leaves(x), strict=True)}


class EdgeNet(nn.Module):
    """Maps a batch of samples to the outputs of a coder; holds no weights of the server.

    Args:
        cut: gives the head.
        coder: see ``coders.coder``.
    """

    def __init__(self, cut: Cut, coder: Coder) -> None:
        super().__init__()
        self.head = cut.head
        self.coder = coder

    def forward(self, *inputs: Tensor) -> Tensors:
        """Outputs for the head's inputs of B samples, e.g. symbols ``(B, N)``; see the coder's framing."""
        return self.coder(self.head(*inputs))


def export(cut: Cut, codec: Codec) -> tuple[ExportedProgram, Framing]:
    """The edge's half for one sample at a time, and the framing of its outputs to what ``codec.encode`` makes.

    Args:
        cut: of a network in float32 on the CPU.
        codec: in eval mode, on the CPU.

    Raises:
        ConfigError: the codec's encoder, the inputs or the crossing tensors cannot be exported.
    """
    made, names = coder(codec), input_names(cut)
    shapes = {name: list(tensor.shape[1:]) for name, tensor in zip(names, cut.example, strict=True)}
    with torch.no_grad():
        framing = made.framing(shapes[INPUT] if list(shapes) == [INPUT] else shapes, cut.head(*cut.example))
        program = torch.export.export(EdgeNet(cut, made).eval(), cut.example, strict=False)
    return program, framing


class Footprint(NamedTuple):
    """Compute and memory that one run on one sample needs.

    Attributes:
        flops: floating-point operations, see ``op_cost``.
        peak_activation_bytes: see ``footprint``.
    """

    flops: float
    peak_activation_bytes: int


def footprint(program: ExportedProgram) -> Footprint:
    """FLOPs and peak activation memory of a program exported at fixed shapes.

    The peak is the largest memory of living tensors over the operations in the order of the graph. While an operation
    runs, its inputs, its outputs and all tensors that a later operation reads are alive. Each tensor has its own memory
    unless it is a view, and nothing is fused or done in place, so a runtime that fuses needs less. Kernels' scratch
    memory does not count, nor do weights and tensors made from weights alone.
    """
    batch = Batch([])
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
