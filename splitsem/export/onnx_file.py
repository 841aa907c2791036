"""Writes the edge's half as ONNX, in float32 or with int8 convolutions; needs the optional extra ``export``."""

import inspect
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from splitsem.codecs.codec import Codec, Tensors
from splitsem.errors import ConfigError
from splitsem.export.coders import Coder, coder
from splitsem.splitting.captured import tensors_of
from splitsem.splitting.cut import Cut
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.symbolic import describe
from splitsem.splitting.work import is_view, op_cost
from splitsem.trees import leaves
from splitsem_device.framing import Framing
from splitsem_device.onnx_half import OnnxHalf

INPUT = "x"
_QUANTISED = ["Conv", "MatMul", "Gemm"]  # norms and the choice of quantiser levels stay in float32
_HALF_MOST = 65_504  # of float16


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
    _strip(path)


def _strip(path: Path) -> None:
    """Take the exporter's notes out of a file: stack traces, with paths of this machine; half of a small file."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    for one in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del one.metadata_props[:]
        one.doc_string = ""
    onnx.save(model, path)


def write_int8(source: Path, path: Path, samples: Iterable[Any], names: Sequence[str] = (INPUT,)) -> None:
    """Write a variant of ``source`` whose convolutions and products run on int8, weights by output channel.

    Args:
        source: path of a file of ``write``.
        path: of the variant.
        samples: inputs of one sample as a data set gives them, which give the ranges of the activations.
        names: of the network's inputs.
    """
    from onnxruntime import quantization

    inputs = read(source).inputs  # an input that no operation reads is not in the file

    class Reader(quantization.CalibrationDataReader):
        """The samples, one by one."""

        def __init__(self) -> None:
            self._inputs = iter(samples)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            x = next(self._inputs, None)
            return None if x is None else {name: value for name, value in named(names, x).items() if name in inputs}

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


def read(path: Path) -> OnnxHalf:
    """The file as it runs on the CPU, in one thread; takes what ``named`` gives."""
    return OnnxHalf(path.read_bytes(), path.name)


def named(names: Sequence[str], x: Any) -> dict[str, NDArray[Any]]:
    """One sample as a data set gives it as arrays by the names of the network's inputs, see ``input_names``."""
    if isinstance(x, Mapping) and len(x) > 1:
        return {name: x[name].numpy() for name in names}
    return {name: tensor.numpy() for name, tensor in zip(names, leaves(x), strict=True)}


def write_float16(source: Path, path: Path) -> None:
    """Write a variant of ``source`` whose convolutions and products have their weights in 16 bits: half the file.

    The weights become float32 as the file is loaded, and everything is computed in float32: processors of small boards
    rarely have kernels of 16 bits, and rounding them changes the features least this way.

    Raises:
        ConfigError: a weight is beyond float16's range.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    graph = model.graph
    weights = {name for node in graph.node if node.op_type in _QUANTISED for name in node.input[1:2]}
    casts = []
    for one in graph.initializer:
        if one.name in weights and one.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(one)
            if not bool((abs(values) < _HALF_MOST).all()):
                raise ConfigError(f"{one.name} has weights beyond ±{_HALF_MOST}: leave float16 out of workflow.formats")
            name = one.name
            one.CopyFrom(numpy_helper.from_array(values.astype("float16"), f"{name}/half"))
            casts.append(onnx.helper.make_node("Cast", [one.name], [name], f"{name}/cast", to=onnx.TensorProto.FLOAT))
    made = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(made)
    onnx.save(model, path)


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


class WholeNet(nn.Module):
    """Maps one sample to the tensors of the network's output, in order.

    Args:
        cut: at the point ``output``.
    """

    def __init__(self, cut: Cut) -> None:
        super().__init__()
        self.head, self.tail = cut.head, cut.tail

    def forward(self, *inputs: Tensor) -> Tensors:
        """The output's tensors."""
        return tuple(leaves(self.tail(*self.head(*inputs))))


def check_whole(graph: SplitGraph) -> None:
    """Raise ConfigError where what follows the network is not captured, such as a detector's choice of boxes."""
    if graph.cut("output").postprocess is not None:
        raise ConfigError(
            "workflow.whole=true writes networks that end in their output, and what follows this one, such as the "
            "choice of boxes, is no graph: leave workflow.whole=false"
        )


def export_whole(graph: SplitGraph) -> ExportedProgram:
    """The whole network for one sample at a time. Raises ConfigError, see ``check_whole``."""
    check_whole(graph)
    cut = graph.cut("output")
    with torch.no_grad():
        return torch.export.export(WholeNet(cut).eval(), cut.example, strict=False)


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
    describe(program.graph)
    nodes = list(program.graph.nodes)
    active = {node for node in nodes if node.name in program.graph_signature.user_inputs}
    owner = {node: node for node in active}
    flops = 0.0
    for node in nodes:
        if node.op == "call_function" and not active.isdisjoint(node.all_input_nodes):
            active.add(node)
            bases = [owner[n] for n in node.all_input_nodes if n in owner]
            owner[node] = bases[0] if is_view(node) else node
            flops += op_cost(node).flops
    place = {node: number for number, node in enumerate(nodes)}
    last_read = {base: place[base] for base in owner.values()}
    for node, base in owner.items():
        last_read[base] = max([last_read[base], *(place[user] for user in node.users)])
    held = [
        sum(_bytes(base) for base, last in last_read.items() if place[base] <= now <= last) for now in range(len(nodes))
    ]
    return Footprint(flops, max(held))


def _bytes(node: fx.Node) -> int:
    return sum(tensor.num_bytes for tensor in tensors_of([node]))
