"""onnx_prepare: an ONNX graph is optimised for inputs of one size, and what depends on no input becomes a constant."""

import copy
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from splitsem.errors import ModelError
from splitsem.onnx_program import OnnxProgram, Optimisation, Session, as_dtype, read_by

_RANDOM = re.compile("Random|Multinomial|Bernoulli|Dropout")


def prepared(
    program: OnnxProgram, zeros: Mapping[str, Tensor], optimisation: Optimisation, sizes_first: bool
) -> OnnxProgram:
    """The program optimised, with its constants computed, and with what each node makes of the example.

    Args:
        program: as a file has it, without a trial.
        zeros: the state at the beginning.
        optimisation: how far onnxruntime rewrites the graph.
        sizes_first: whether onnxruntime knows the sizes of the inputs when it does so.

    Raises:
        ModelError: onnxruntime cannot run it, or it returns what is no tensor.
    """
    proto, name, feed = program.proto, program.name, {**program.example, **zeros}
    if optimisation != "none":
        # Branches that a constant decides go first: onnxruntime 1.31 crashes where they go with the sizes known.
        proto = _rewritten(proto, name, "basic" if sizes_first else optimisation)
    proto = _fixed(proto, feed)
    if optimisation != "none" and sizes_first:
        proto = _rewritten(proto, name, optimisation)
    trial = _trial(proto, name, feed)
    _fold(proto.graph, trial, feed)
    _put(proto.graph, "node", _state_late(proto.graph.node, program.inputs))
    made = {output for node in proto.graph.node for output in node.output}
    for old, new in program.state.items():
        if new not in made or (trial[old].shape, trial[old].dtype) != (trial[new].shape, trial[new].dtype):
            raise ModelError(f"{name}: {new} does not become the state {old}: it must be computed, in the same form")
    for output in (*program.outputs, *program.state.values()):
        if not isinstance(trial[output], np.ndarray) or as_dtype(trial[output].dtype) is None:
            raise ModelError(
                f"{name}: its output {output} is no tensor of numbers; leave it out of the model's outputs"
            )
    return replace(program, proto=proto, trial=trial)


def _rewritten(proto: Any, name: str, optimisation: Optimisation) -> Any:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        Session(proto, name, optimisation, path)
        return onnx.load(path)


def _fixed(proto: Any, feed: Mapping[str, Tensor]) -> Any:
    """The graph with the sizes of these inputs, and without what was said of others."""
    import onnx

    fixed = type(proto)()
    fixed.CopyFrom(proto)
    for value in fixed.graph.input:
        shape = value.type.tensor_type.shape
        shape.ClearField("dim")
        for size in feed[value.name].shape:
            shape.dim.add().dim_value = size
    _put(fixed.graph, "output", [onnx.ValueInfoProto(name=value.name) for value in proto.graph.output])
    fixed.graph.ClearField("value_info")
    return fixed


def _trial(proto: Any, name: str, feed: Mapping[str, Tensor]) -> dict[str, Any]:
    """What every node makes of the inputs, and these."""
    import onnx

    all_made = type(proto)()
    all_made.CopyFrom(proto)
    known = {output.name for output in proto.graph.output}
    made = [output for node in proto.graph.node for output in node.output if output and output not in known]
    all_made.graph.output.extend(onnx.ValueInfoProto(name=output) for output in made)
    return Session(all_made, name)(feed) | {name: tensor.numpy() for name, tensor in feed.items()}


def _fold(graph: Any, trial: Mapping[str, Any], feed: Iterable[str]) -> None:
    """Turn what depends on sizes and constants only into constants, and drop nodes without use."""
    import onnx

    live, nodes = set(feed), []
    for node in graph.node:
        if node.op_type not in ("Shape", "Size") and (live.intersection(read_by(node)) or _RANDOM.match(node.op_type)):
            live.update(node.output)
            nodes.append(node)
        else:
            made = [(name, trial[name]) for name in node.output if name]
            graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in made)
    needed, kept = {output.name for output in graph.output}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(read_by(node))
            kept.append(node)
    _put(graph, "initializer", [weight for weight in graph.initializer if weight.name in needed])
    _put(graph, "node", kept[::-1])


def _put(graph: Any, field: str, values: Iterable[Any]) -> None:
    """Set a repeated field, also to some of its own values."""
    copies = [copy.deepcopy(value) for value in values]
    graph.ClearField(field)
    getattr(graph, field).extend(copies)


def _state_late(nodes: Sequence[Any], inputs: Iterable[str]) -> list[Any]:
    """The nodes in an order in which what is made of the state alone comes right before it is read.

    A file may take its state apart at its start, and then no cut would leave the state to the tail.
    """
    of_inputs, ordered = set(inputs), list[Any]()
    waiting: dict[str, Any] = {}  # by what they make

    def take(names: Iterable[str]) -> None:
        for name in names:
            if (node := waiting.pop(name, None)) is not None:
                for other in node.output:
                    waiting.pop(other, None)
                take(read_by(node))
                ordered.append(node)

    for node in nodes:
        if of_inputs.intersection(read_by(node)):
            of_inputs.update(node.output)
            take(read_by(node))
            ordered.append(node)
        else:
            waiting |= {name: node for name in node.output if name}
    take(list(waiting))
    return ordered
