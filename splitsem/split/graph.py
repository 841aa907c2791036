"""SplitGraph: any model as a graph of operations that can be cut in two."""

import difflib
import hashlib
from itertools import accumulate
from math import prod
from typing import Literal, get_args

import torch
from torch import Tensor, fx, nn

from splitsem.errors import ConfigError, SplitPointError
from splitsem.network import without_wrappers
from splitsem.split.capture import capture, home_of
from splitsem.split.cut import Cut, build_head, build_tail
from splitsem.split.flow import Flow
from splitsem.split.nested import context_of
from splitsem.split.point import (
    Candidate,
    HasUnits,
    SplitPoint,
    TensorSpec,
    layer_cuts,
    modules_ending,
    node_names,
    unit_cuts,
)

Granularity = Literal["layer", "op"]


class SplitGraph:
    """The split points of a model, and its head and tail at each of them.

    The model is put in eval mode and stays there; move it to its placement first. Its weights are shared with every
    head and tail, never copied: training a head or a tail trains the model.

    Args:
        model: takes one tensor ``(batch, *input_shape)``; returns one tensor, or a structure with one main tensor (see
            ``network.main_tensor``). Of DataParallel and torch.compile, the model inside is cut.
        input_shape: shape of one sample, without the batch.
        granularity: ``"layer"`` offers a point for each layer (``point.layer_cuts``), or for each unit where the model
            names its units (``unit_names``); ``"op"`` offers a point after every operation.
        training: whether the halves compute as in train mode (see ``trainable``); the model itself stays in eval mode.

    Attributes:
        points: the offered points; the first is ``input`` (all on the server), the last ``output`` (all on the edge).
        operations: the names of all operations in order, offered or not.
        refused: operations after which no cut is possible, with the reason.
        fingerprint: identifies the graph and its weights' names, shapes and types, not their values.

    Raises:
        ConfigError: the model cannot be captured, fixes its batch size or returns several tensors.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        granularity: Granularity = "layer",
        training: bool = False,
    ) -> None:
        if granularity not in get_args(Granularity):
            raise ValueError(f"granularity must be 'layer' or 'op', got {granularity!r}")
        shape = tuple(int(size) for size in input_shape)
        if not shape or min(shape) < 1:
            raise ValueError(f"input_shape must be one or more sizes of at least 1, got {input_shape}")
        model = without_wrappers(model)
        self._flow = Flow(capture(model, shape, training), training)
        if why := self._flow.refused[-1]:
            raise ConfigError(f"{type(model).__name__} cannot be split: at its output, {why}")
        device, dtype = home_of(model)
        self._example = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
        self._names = node_names(self._flow.data)
        self._names[0], self._names[-1] = "input", "output"
        self.operations = tuple(self._names[1:])
        self.refused = {name: why for name, why in zip(self._names, self._flow.refused, strict=True) if why}
        self.fingerprint = _fingerprint(self._flow)
        self._cuts = self._chosen(granularity, model.unit_names if isinstance(model, HasUnits) else None)
        self.points = self._points()

    def point(self, point: str | int) -> SplitPoint:
        """The point of this name, or of this index (negative ones count from the end).

        Raises:
            SplitPointError: there is no such point; the message lists the valid ones.
        """
        if isinstance(point, int) and -len(self.points) <= point < len(self.points):
            return self.points[point]
        names = [p.name for p in self.points]
        if point in names:
            return self.points[names.index(str(point))]
        if isinstance(point, int):
            raise SplitPointError(f"no split point {point}; valid: 0…{len(names) - 1} ({', '.join(names)})")
        close = difflib.get_close_matches(point, names, n=1)
        why = f" ({self.refused[point]})" if point in self.refused else ""
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise SplitPointError(f"no split point {point!r}{why}{hint} Valid: {', '.join(names)}")

    def cut(self, point: SplitPoint | str | int) -> Cut:
        """The model's head and tail at a point. Each call builds new halves; the weights stay shared."""
        chosen = self.point(point.name if isinstance(point, SplitPoint) else point)
        k = self._cuts[chosen.index].k
        return Cut(chosen, build_head(self._flow, k), build_tail(self._flow, k), self._example, self.fingerprint)

    def tail_with_layers(self, point: SplitPoint | str | int) -> nn.Module:
        """The tail at a point, returning ``(output, *layers)``: also what crosses at each later single-tensor point."""
        chosen = self.point(point.name if isinstance(point, SplitPoint) else point)
        later = [cut.k for cut in self._cuts[chosen.index + 1 : -1] if len(self._flow.live[cut.k]) == 1]
        layers = [node for k in later for node in self._flow.live[k] if node.meta["val"].is_floating_point()]
        return build_tail(self._flow, self._cuts[chosen.index].k, layers)

    def _chosen(self, granularity: Granularity, units: tuple[str, ...] | None) -> list[Candidate]:
        flow = self._flow
        ending = modules_ending(flow.data)
        flops = [0.0, *accumulate(op.flops for op in flow.ops)]
        candidates = [
            Candidate(
                k=k,
                raw_bytes=sum(self._raw_bytes(made) for made in flow.live[k]),
                head_flops=flops[flow.op_ends[k]],
                is_batched=all(_is_batched(made, flow) for made in flow.live[k]),
                ends_module=bool(ending[k]),
            )
            for k in range(len(flow.data))
            if flow.refused[k] is None
        ]
        if granularity == "op":
            return candidates
        if units is not None:
            return unit_cuts(self._names, candidates, units)
        return layer_cuts(flow.data, candidates, flops[-1])

    def _points(self) -> tuple[SplitPoint, ...]:
        flow = self._flow
        head_bytes, tail_bytes = flow.weight_bytes()
        input_bytes = self._cuts[0].raw_bytes
        return tuple(
            SplitPoint(
                name=self._names[cut.k],
                index=index,
                tensors=tuple(self._spec(node) for node in flow.live[cut.k]),
                raw_bytes=cut.raw_bytes,
                head_ops=flow.ops[: flow.op_ends[cut.k]],
                tail_ops=flow.ops[flow.op_ends[cut.k] :],
                head_param_bytes=head_bytes[cut.k],
                tail_param_bytes=tail_bytes[cut.k],
                is_bottleneck=cut.raw_bytes < input_bytes,
                is_batched=cut.is_batched,
            )
            for index, cut in enumerate(self._cuts)
        )

    def _spec(self, node: fx.Node) -> TensorSpec:
        value: Tensor = node.meta["val"]
        return TensorSpec(self._flow.batch.shape(value) or (), value.dtype)

    def _raw_bytes(self, node: fx.Node) -> int:
        spec = self._spec(node)
        return prod(spec.shape) * (4 if spec.dtype.is_floating_point else spec.dtype.itemsize)


def _is_batched(node: fx.Node, flow: Flow) -> bool:
    shape = node.meta["val"].shape
    return bool(shape) and flow.batch.affine(shape[0]) == (1, 0)


def _fingerprint(flow: Flow) -> str:
    """SHA-256 over operations, their arguments and the weights' names, shapes and types; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    number = {node: f"%{i}" for i, node in enumerate(flow.module.graph.nodes)}
    for node in flow.module.graph.nodes:
        args = fx.map_arg(node.args, lambda n: number[n])
        kwargs = fx.map_arg({k: v for k, v in node.kwargs.items() if k != "device"}, lambda n: number[n])
        value = node.meta.get("val")
        shape = (flow.batch.shape(value), value.dtype) if isinstance(value, Tensor) else ""
        target = node.target if node.op != "placeholder" else ""
        under = context_of(node).autocast or ""
        digest.update(f"{node.op} {target} {args} {kwargs} {shape}{under}\n".encode())
    return digest.hexdigest()[:16]
