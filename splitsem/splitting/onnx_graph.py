"""OnnxGraph: an ONNX file as a graph that is cut at its own tensors; both halves run in onnxruntime."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from splitsem.errors import ConfigError
from splitsem.onnx_program import HasProgram, OnnxProgram, Returning, as_dtype, as_tensor, constant, read_by, structured
from splitsem.splitting.cut import Cut
from splitsem.splitting.cut_graph import CutGraph, Granularity, hook_bytes
from splitsem.splitting.example import Example
from splitsem.splitting.graph import SplitGraph
from splitsem.splitting.onnx_cost import cost_of, starts_layer
from splitsem.splitting.point import Candidate, SplitPoint, TensorSpec, layer_cuts, readable, unique

_SIZED_BY_VALUES = {"NonZero", "NonMaxSuppression", "Unique", "Compress", "StringSplit", "SequenceInsert"}
_SIZED_BY_INPUT = {"Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Pad": (1,), "Tile": (1,), "TopK": (1,),
                   "Range": (0, 1, 2), "ConstantOfShape": (0,), "Resize": (2, 3), "OneHot": (1,)}  # fmt: skip


class OnnxGraph(CutGraph):
    """The split points of an ONNX file for inputs of one size, after each tensor that it makes of them.

    What depends on no input (weights, sizes, what is computed of these) is on both sides and never crosses. A state
    stays on the side that makes its next value; no point is offered where the other side would need that value.

    Args:
        model: the file; see ``models.onnx_model.OnnxModel``.
        example: inputs by position, in the file's order; one sample, for the workflows.
        granularity: ``"layer"`` offers a point for each layer (``point.layer_cuts``), ``"op"`` after every operation.
        named: inputs by name.

    Attributes: see ``CutGraph``.

    Raises:
        ConfigError: the model does not take the example, or onnxruntime cannot run it.
    """

    continues_exactly = False  # onnxruntime fuses the operations of each part in its own way

    def __init__(self, model: HasProgram, /, *example: Any, granularity: Granularity = "layer", **named: Any) -> None:
        if granularity not in get_args(Granularity):
            raise ValueError(f"granularity must be 'layer' or 'op', got {granularity!r}")
        assert isinstance(model, nn.Module)
        self.model, self.granularity = model, granularity
        self._program = program = model.program(*example, **named)
        self.is_batch_free, self.device = False, torch.device("cpu")
        self.fingerprint = program.fingerprint()
        self._nodes = list(program.proto.graph.node)
        weights = {name: constant(weight).numpy() for name, weight in program.weights.items()}
        self._found = {**weights, **program.trial}
        results = [as_tensor(self._found[name]) for name in program.outputs]
        self.sample = structured(program.outputs, results)
        self._readers = _spans(self._nodes, program)
        self._sized = _sized_by_values(self._nodes, program)
        self._live = [self._crossing(k) for k in range(len(self._nodes) + 1)]
        seen: Counter[str] = Counter(["input", "output"])
        self._names = ["input", *(unique(_name(node), seen) for node in self._nodes[:-1]), "output"]
        self.operations = tuple(self._names[1:])
        reasons = [self._why_not(k) for k in range(len(self._names))]
        if reasons[-1]:
            raise ConfigError(
                f"{program.name} cannot be split: at its end {reasons[-1]}; choose other outputs of the model"
            )
        self.refused = {name: why for name, why in zip(self._names, reasons, strict=True) if why}
        self._cuts = self._chosen(granularity, [k for k, why in enumerate(reasons) if not why or k == 0])
        self.points = self._points(weights)

    def cut(self, point: SplitPoint | str | int) -> Cut:
        """The file's head and tail at a point, each with onnxruntime's session of its own."""
        chosen, program = self.point(point), self._program
        k = self._cuts[chosen.index].k
        head = program.part(slice(0, k), program.inputs, self._live[k])
        tail = Returning(program.part(slice(k, None), self._live[k], program.outputs))
        example = tuple(program.example[name] for name in program.inputs)
        facts = self.fingerprint, self.device, self.model, self.granularity
        return Cut(chosen, head, tail, None, example, *facts)

    def between(self, start: SplitPoint | str | int, end: SplitPoint | str | int) -> nn.Module:
        """See CutGraph."""
        first, last = (self._cuts[point.index].k for point in self.in_order(start, end))
        return self._program.part(slice(first, last), self._live[first], self._live[last])

    def _crossing(self, k: int) -> tuple[str, ...]:
        """Names of what the first ``k`` nodes leave to the others, and of results that they make."""
        state, made = self._program.state, self._readers
        here = [*self._program.inputs, *(old for old, new in state.items() if made[new][0] <= k)]
        here += [name for node in self._nodes[:k] for name in node.output if name]
        return tuple(name for name in dict.fromkeys(here) if made[name][1] > k or name in self._program.outputs)

    def _why_not(self, k: int) -> str:
        """Why there is no point after ``k`` nodes; empty where there is one."""
        for old, new in self._program.state.items():
            if self._readers[old][2] <= k < self._readers[new][0]:
                return f"the head reads the state {old}, and its next value is made behind it"
        for name in self._live[k]:
            array = self._found[name]
            if not isinstance(array, np.ndarray) or as_dtype(array.dtype) is None:
                return f"{name} is no tensor of numbers"
            if name in self._sized:
                return f"the size of {name} depends on values"
        return "" if self._live[k] else "nothing crosses"

    def _chosen(self, granularity: Granularity, offered: Sequence[int]) -> list[Candidate]:
        self._ops = tuple(cost_of(node, self._found) for node in self._nodes)
        flops = [0.0, *accumulate(op.flops for op in self._ops)]
        candidates = [Candidate(k, sum(map(self._raw_bytes, self._live[k])), flops[k], False, False) for k in offered]
        if granularity == "op":
            return candidates
        return layer_cuts([False, *map(starts_layer, self._nodes)], candidates, flops[-1])

    def _points(self, weights: Mapping[str, Any]) -> tuple[SplitPoint, ...]:
        live = [self._live[cut.k] for cut in self._cuts]
        given = {*self._program.inputs, *self._program.state}
        hooks = hook_bytes([cut.raw_bytes for cut in self._cuts], live, given, self._raw_bytes)
        spans = [(weights[name].nbytes, *self._readers[name]) for name in weights]
        return tuple(
            SplitPoint(
                name=self._names[cut.k],
                index=index,
                tensors=tuple(self._spec(name) for name in self._live[cut.k]),
                raw_bytes=cut.raw_bytes,
                hook_bytes=hooks[index],
                head_ops=self._ops[: cut.k],
                tail_ops=self._ops[cut.k :],
                head_param_bytes=sum(size for size, _, last, _ in spans if last <= cut.k),
                tail_param_bytes=sum(size for size, _, _, first in spans if first > cut.k),
                is_bottleneck=cut.raw_bytes < self._cuts[0].raw_bytes,
                is_batched=False,
            )
            for index, cut in enumerate(self._cuts)
        )

    def _spec(self, name: str) -> TensorSpec:
        dtype = as_dtype(self._found[name].dtype)
        assert dtype is not None
        return TensorSpec(tuple(self._found[name].shape), dtype)

    def _raw_bytes(self, name: str) -> int:
        spec = self._spec(name)
        return self._found[name].size * (4 if spec.dtype.is_floating_point else spec.dtype.itemsize)


def graph_of(
    model: nn.Module, /, *example: Any, granularity: Granularity = "layer", keep: Path | None = None, **named: Any
) -> CutGraph:
    """The graph of any network: of an ONNX file its own, of torch's the captured one; see both for the arguments.

    Raises:
        ConfigError: the model does not run on the example or cannot be cut.
    """
    if not isinstance(model, HasProgram):
        return SplitGraph(model, *example, granularity=granularity, keep=keep, **named)
    if len(example) == 1 and isinstance(example[0], Example):
        example, named = example[0].args, {**example[0].named, **named}
    return OnnxGraph(model, *example, granularity=granularity, **named)


def _spans(nodes: Sequence[Any], program: OnnxProgram) -> dict[str, tuple[int, int, int]]:
    """For each tensor, the number of nodes after which it is there, and its last and its first reader, from 1."""
    made = {name: number for number, node in enumerate(nodes, 1) for name in node.output if name}
    reads: dict[str, list[int]] = {}
    for number, node in enumerate(nodes, 1):
        for name in read_by(node):
            reads.setdefault(name, []).append(number)
    names = [*program.inputs, *program.state, *program.weights, *made]
    never = len(nodes) + 1
    return {name: (made.get(name, 0), max(reads.get(name, [0])), min(reads.get(name, [never]))) for name in names}


def _sized_by_values(nodes: Sequence[Any], program: OnnxProgram) -> set[str]:
    """Names of what has another size for other values of the inputs."""
    free, sized = {*program.inputs, *program.state}, set[str]()
    for node in nodes:
        places = _SIZED_BY_INPUT.get(node.op_type, ())
        by_input = any(place < len(node.input) and node.input[place] in free for place in places)
        if node.op_type in _SIZED_BY_VALUES or by_input or sized.intersection(read_by(node)):
            sized.update(node.output)
        free.update(node.output)
    return sized


def _name(node: Any) -> str:
    """A point's name: that of the node's first tensor, with exporters' paths as torch writes them."""
    name = next(filter(None, node.output), node.name)
    return readable(name.strip("/").removesuffix("_output_0").replace("/", "."))
