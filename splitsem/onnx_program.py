"""onnx_program: an ONNX graph for inputs of one size, any part of which runs in onnxruntime as a network of torch.

A file is optimised once, whole, and then cut. The parts run as they are: no session fuses anything further, so that
what they compute is what the whole computes, bit for bit.
"""

import copy
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitsem.errors import ModelError

Optimisation = Literal["none", "basic", "extended"]
_LEVELS = {"none": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+ .*?\) (?=[A-Z])|This is an invalid model\. "
)


@runtime_checkable
class HasProgram(Protocol):
    """A network that is an ONNX graph, and is cut as one."""

    def program(self, *inputs: Any, **named: Any) -> "OnnxProgram":
        """The graph for inputs of these sizes."""


class Session:
    """onnxruntime's session of a graph, on the CPU, with torch's number of threads.

    Args:
        proto: the graph.
        name: what a user calls it, for messages.
        optimisation: how far onnxruntime rewrites it.
        kept: where it writes what it made of the graph; None: nowhere.

    Raises:
        ModelError: this onnxruntime cannot run it; the message names the operation and the opset.
    """

    def __init__(self, proto: Any, name: str, optimisation: Optimisation = "none", kept: Path | None = None) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[optimisation])
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # what is fatal is raised
        if kept is not None:
            options.optimized_model_filepath = str(kept)
        self.name = name
        with _in_one_line(lambda text: _why_not_loaded(text, name, proto)):
            self._session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self.outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, feed: Mapping[str, Tensor]) -> dict[str, Any]:
        """All outputs by name, as arrays. Raises ModelError where onnxruntime cannot compute them."""
        arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in feed.items()}
        with _in_one_line(lambda text: f"{self.name} cannot run on {_sizes(arrays)}: {text}"):
            return dict(zip(self.outputs, self._session.run(None, arrays), strict=True))


class _in_one_line:  # noqa: N801 (a context, which reads as one)
    """Turns what onnxruntime raises, which has no common class, into a ModelError of one line."""

    def __init__(self, worded: Callable[[str], str]) -> None:
        self.worded = worded

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, exc: BaseException | None, trace: object) -> None:
        if kind is not None and kind.__module__.startswith("onnxruntime."):
            raise ModelError(self.worded(_plain(str(exc)))) from exc


def _plain(text: str) -> str:
    """onnxruntime's message without its own places in C++, in one line."""
    text = re.sub(
        r"\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+ .*?\) (?=[A-Z])|This is an invalid model\. ",
        "",
        text,
    )
    return " ".join(text.split())[:300].rstrip(". ")


def _why_not_loaded(text: str, name: str, proto: Any) -> str:
    import onnxruntime as ort

    opsets = ", ".join(f"{one.domain or 'ai.onnx'} {one.version}" for one in proto.opset_import) or "none"
    remedy = f"take a newer one than {ort.__version__}, or write the file with an older opset"
    patterns = {
        r"No Op registered for (\S+)": "the operation {} of opset {}",
        r"([\w.]*:?\w+)\(-1\) is not a registered": "the operation {} (opsets: {})",
        r"find an implementation for (\w+)\(\d+\)": "a kernel of the operation {} for these types (opsets: {})",
        r"Opset (\d+) is under development": "the opset {} (the file's: {})",
        r"Unsupported model IR version: (\d+)": "version {} of the format (opsets: {})",
    }
    for pattern, lacking in patterns.items():
        if found := re.search(pattern, text):
            return f"{name}: this onnxruntime lacks {lacking.format(found[1], opsets)}; {remedy}"
    return f"{name} cannot be loaded by onnxruntime {ort.__version__} (opsets: {opsets}): {text}"


def _sizes(arrays: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items())


@dataclass(frozen=True, repr=False)
class OnnxProgram:
    """An ONNX graph for inputs of one size: what every node makes of an example is known.

    Attributes:
        name: what a user calls it.
        proto: the graph; what depends on no input's values is a constant in it, and no node is without use.
        inputs: names of what it takes, in the file's order.
        outputs: names of what it returns.
        state: each tensor that is kept between calls, and the output that becomes its next value; neither is among
            ``inputs`` and ``outputs``.
        trial: what inputs, state and nodes were in a trial, by name: arrays, or lists of them for a sequence.
        example: the inputs of that.
    """

    name: str
    proto: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    state: Mapping[str, str]
    trial: Mapping[str, Any]
    example: Mapping[str, Tensor]

    @cached_property
    def weights(self) -> dict[str, Any]:
        """The constants by name."""
        return {weight.name: weight for weight in self.proto.graph.initializer}

    def part(self, nodes: slice, takes: Sequence[str], returns: Sequence[str]) -> "OnnxPart":
        """The part that runs these nodes; it keeps the state that one of them makes."""
        made = {name for node in self.proto.graph.node[nodes] for name in node.output}
        state = {old: new for old, new in self.state.items() if new in made}
        return OnnxPart(self, self.proto.graph.node[nodes], takes, returns, state)

    def fingerprint(self) -> str:
        """SHA-256 over nodes, inputs, outputs, and the weights' names, shapes and types; 16 hexadecimal digits."""
        digest = hashlib.sha256(f"{self.inputs} {self.outputs} {sorted(self.state.items())}\n".encode())
        for name in (*self.inputs, *self.state):
            digest.update(f"{name} {self.trial[name].shape} {self.trial[name].dtype}\n".encode())
        for node in self.proto.graph.node:
            bare = copy.deepcopy(node)
            attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
            for field in ("name", "doc_string", "attribute"):
                bare.ClearField(field)
            bare.attribute.extend(attributes)
            digest.update(bare.SerializeToString(deterministic=True))
        for name, weight in sorted(self.weights.items()):
            digest.update(f"{name} {list(weight.dims)} {weight.data_type}\n".encode())
        return digest.hexdigest()[:16]


class OnnxPart(nn.Module):
    """Some nodes of an ONNX graph as a network, on the CPU; no gradient passes it.

    Each call begins with a state of zeros. After ``begin_stream`` a call goes on from the state that the last one left.

    Args:
        program: the whole graph.
        nodes: the nodes, in order.
        takes: names of the tensors that it is given, in order.
        returns: names of the tensors that it returns, in a tuple.
        state: what it keeps between calls, and what becomes its next value.

    Attributes:
        proto: the nodes as an ONNX graph, to be saved; None where there is nothing to compute.
    """

    def __init__(
        self,
        program: OnnxProgram,
        nodes: Sequence[Any],
        takes: Sequence[str],
        returns: Sequence[str],
        state: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.takes, self.returns, self.state = tuple(takes), tuple(returns), dict(state)
        self._forms = {name: (program.trial[name].shape, program.trial[name].dtype) for name in (*takes, *state)}
        self._name = program.name
        self._kept: dict[str, Tensor] | None = None
        self._constants = {name: constant(program.weights[name]) for name in returns if name in program.weights}
        given = {*self.takes, *self.state, *self._constants}
        asked = [name for name in dict.fromkeys((*returns, *state.values())) if name not in given]
        self.proto = _sub_graph(program, nodes, [*takes, *state], asked) if asked else None
        self._session = None if self.proto is None else Session(self.proto, program.name)
        self._reads = {name for node in nodes for name in read_by(node)}

    def extra_repr(self) -> str:
        """See Module."""
        return f"{', '.join(self.takes)} → {', '.join(self.returns)}"

    def begin_stream(self) -> None:
        """Keep the state from call to call from now on, beginning with zeros."""
        self._kept = self._zeros()

    def forward(self, *inputs: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
        """The returned tensors. Raises ModelError for inputs of other names, shapes or types."""
        given = self._checked(by_name(self.takes, inputs, named, self._name))
        given |= self._zeros() if self._kept is None else self._kept
        feed = {name: tensor for name, tensor in given.items() if name in self._reads}
        made = {name: as_tensor(array) for name, array in (self._session(feed) if self._session else {}).items()}
        if self._kept is not None:
            self._kept = {old: made[new] for old, new in self.state.items()}
        found = {**self._constants, **given, **made}
        return tuple(found[name] for name in self.returns)

    def _zeros(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.zeros(*self._forms[name])) for name in self.state}

    def _checked(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        for name, tensor in given.items():
            shape, dtype = self._forms[name]
            if tuple(tensor.shape) != shape or as_dtype(dtype) is not tensor.dtype:
                raise ModelError(
                    f"{self._name} was cut for {name} {dtype}{list(shape)}, got {in_words(tensor)}: its sizes are "
                    "those of the example"
                )
        return dict(given)


class Returning(nn.Module):
    """A part that ends a network: returns one tensor alone, and several by their names."""

    def __init__(self, part: OnnxPart) -> None:
        super().__init__()
        self.part = part

    def begin_stream(self) -> None:
        """See OnnxPart."""
        self.part.begin_stream()

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """What the network returns."""
        return structured(self.part.returns, self.part(*inputs, **named))


def structured(names: Sequence[str], tensors: Sequence[Tensor]) -> Any:
    """What a network returns: one tensor alone, several by name."""
    return tensors[0] if len(tensors) == 1 else dict(zip(names, tensors, strict=True))


def by_name(names: Sequence[str], inputs: Sequence[Any], named: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The inputs by name, of those by position and those by name. Raises ModelError where they are not these."""
    given = dict(zip(names, inputs, strict=False)) | dict(named)
    if len(inputs) > len(names) or set(given) != set(names) or len(inputs) + len(named) > len(names):
        got = ", ".join([*(f"no. {i + 1}" for i in range(len(inputs))), *named]) or "none"
        raise ModelError(f"{what} takes {len(names)} inputs, {', '.join(names)}; got {got}")
    return {name: given[name] for name in names}


def in_words(tensor: Tensor) -> str:
    """Type and shape of a tensor."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def as_tensor(array: Any) -> Tensor:
    """An array of onnxruntime as a tensor that owns it."""
    return torch.from_numpy(np.asarray(array))


def as_dtype(dtype: Any) -> torch.dtype | None:
    """torch's type for one of numpy; None where it has none (texts)."""
    try:
        return torch.from_numpy(np.empty(0, dtype)).dtype
    except TypeError:
        return None


def constant(weight: Any) -> Tensor:
    """A constant of a graph as a tensor."""
    import onnx

    return as_tensor(np.array(onnx.numpy_helper.to_array(weight)))


def read_by(node: Any) -> Iterator[str]:
    """Names of all that a node reads, also in the graphs inside it."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own |= {name for inner in graph.node for name in inner.output}
            yield from (name for inner in graph.node for name in read_by(inner) if name not in own)
            yield from (value.name for value in graph.output if value.name not in own)


def _sub_graph(program: OnnxProgram, nodes: Sequence[Any], inputs: Iterable[str], outputs: Sequence[str]) -> Any:
    """The nodes as a graph of their own.

    onnx.utils.Extractor does not see what the graphs inside a node read, and walks back to what crosses; here the nodes
    are known.
    """
    import onnx

    whole = program.proto
    proto = onnx.ModelProto(ir_version=whole.ir_version, opset_import=whole.opset_import, functions=whole.functions)
    graph = proto.graph
    graph.name = whole.graph.name
    graph.node.extend(nodes)
    read = {name for node in nodes for name in read_by(node)}
    graph.initializer.extend(weight for name, weight in program.weights.items() if name in read)
    for name in (name for name in inputs if name in read):
        array = program.trial[name]
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    return proto
