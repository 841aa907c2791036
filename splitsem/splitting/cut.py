"""Cut: the head and the tail of a model at one split point, as two networks that share its weights."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from splitsem.errors import ConfigError
from splitsem.splitting.captured import Traced, traced
from splitsem.splitting.contexts import context_of, operation, put_within, settled
from splitsem.splitting.flow import Flow
from splitsem.splitting.half import Half
from splitsem.splitting.layout import Layout
from splitsem.splitting.point import SplitPoint


@dataclass(frozen=True, repr=False)
class Cut:
    """A model in two parts: ``tail(*head(*inputs))`` is ``model(*inputs)``, bit for bit.

    What arrived as bytes goes through ``received`` first, since bytes do not tell a tensor's memory order.

    The weights are the model's own tensors under the model's own names, so training a half trains the model. Both
    halves compute as in eval mode, whatever their training flag says.

    Attributes:
        point: where the model is cut.
        head: takes what the model takes, returns a tuple of the crossing tensors.
        network_tail: takes the crossing tensors, returns what the captured network returns.
        postprocess: what follows on the server and is not captured, see ``network.HasPostprocess``; None: nothing.
        example: inputs for one sample (batch 1), in the order of the head's arguments.
        fingerprint: identifies the model; see ``CutGraph.fingerprint``.
        device: where the halves are.
        model: the uncut model.
        granularity: of the graph that was cut.
        layouts: the memory order of each crossing tensor in the model; none at the end of a postprocess.
    """

    point: SplitPoint
    head: nn.Module
    network_tail: nn.Module
    postprocess: nn.Module | None
    example: tuple[Any, ...]
    fingerprint: str
    device: torch.device
    model: nn.Module
    granularity: str
    layouts: tuple[Layout, ...] = ()

    def __repr__(self) -> str:
        return f"Cut({self.point!r} on {self.device})"

    @cached_property
    def tail(self) -> nn.Module:
        """Takes the crossing tensors, returns the model's output: the network's tail, and the postprocess behind it."""
        return self.network_tail if self.postprocess is None else Followed(self.network_tail, self.postprocess)

    def received(self, z_hat: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Decoded tensors as the tail takes them: where it is, and in the memory order that they have in the model.

        Kernels differ in the last bit by memory order. That order is the model's for an input in the usual order.
        """
        moved = tuple(tensor.to(self.device) for tensor in z_hat)
        return tuple(map(Layout.restored, self.layouts, moved)) if self.layouts else moved

    def with_tail(self, tail: nn.Module | None) -> "Cut":
        """This cut with another ``network_tail``, e.g. one that was tuned with a codec; None keeps its own tail.

        Raises:
            ConfigError: the tail does not compute what the network does behind this point.
        """
        if tail is None or tail is self.network_tail:
            return self
        if _program(tail) != _program(self.network_tail):
            raise ConfigError(
                f"the codec brings a tail that was tuned for another cut than {self.point.name}: "
                "give both ends the split.point that the codec was trained for"
            )
        return replace(self, network_tail=tail)

    def halves(self, z: tuple[Tensor, ...] | None = None) -> tuple[Half, Half]:
        """Both sides as a machine sees them, with inputs of real shapes for one sample.

        Args:
            z: what the head makes of ``example``, where it is there already.
        """
        if z is None:
            with torch.no_grad():
                z = self.head(*self.example)
        return (
            Half("head", self.point.name, self.head, self.example, self.point.head_ops, self.fingerprint),
            Half("tail", self.point.name, self.tail, z, self.point.tail_ops, self.fingerprint),
        )


class Followed(nn.Module):
    """``second(first(…))``: a part of the network, and what follows it as it is."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the second makes of what the first returns."""
        return self.second(self.first(*inputs, **named))


class Spread(nn.Module):
    """Gives a tuple of tensors to a tail."""

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        self.tail = tail

    def forward(self, z: tuple[Tensor, ...]) -> Any:
        """What the tail makes of the tensors."""
        return self.tail(*z)


class InTuple(nn.Module):
    """Puts a tensor into a tuple, the form of what crosses."""

    def forward(self, tensor: Tensor) -> tuple[Tensor]:
        """The tensor in a tuple."""
        return (tensor,)


def of_shape(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The tensor, which has this shape: a graph whose batch size is fixed is wrong for any other.

    Raises:
        ConfigError: it has another.
    """
    if tuple(tensor.shape) != shape:
        raise ConfigError(
            f"these halves take tensors of {shape} only, since the network's batch size is fixed, got "
            f"{tuple(tensor.shape)}"
        )
    return tensor


def _program(half: nn.Module) -> str | None:
    """What a half computes, its weights' values aside."""
    return half.code if isinstance(half, fx.GraphModule) else None


def build_head(flow: Flow, k: int) -> fx.GraphModule:
    """The network up to ``flow.data[k]``; returns the crossing tensors as a tuple."""
    side = _Side(flow)
    takes = flow.captured.takes
    for node in flow.inputs:
        side.made[node] = side.graph.placeholder("x" if takes is None else node.name)
    side.check_shapes()
    side.batch_source = flow.batch_source(flow.inputs)
    for node in flow.data[flow.first + 1 : k + 1]:
        side.make(node)
    if takes is not None:
        side.graph.set_codegen(_PyTreeCodeGen(takes))
    return side.finish(tuple(side.made[node] for node in flow.live[k]), "Head")


def build_tail(flow: Flow, k: int, layers: Sequence[fx.Node] | None = None) -> nn.Module:
    """The network after ``flow.data[k]``; takes the crossing tensors one by one.

    With ``layers``, which are nodes after the cut, the result is a tuple: the output, then what those nodes make.
    """
    side = _behind(flow, k, len(flow.data) - 1)
    side.kept = layers or ()
    for node in flow.data[k + 1 :]:
        side.make(node)
    results = [side.make(leaf) if isinstance(leaf, fx.Node) else leaf for leaf in flow.results]
    returns = flow.captured.returns
    if layers is not None:
        returns = pytree.tree_structure((flow.captured.sample, *(0 for _ in layers)))
        results += [side.made[node] for node in layers]
    if returns is None:
        return side.finish(results[0], "Tail")
    num_inputs = len(flow.live[k])
    takes = pytree.tree_structure([0] * num_inputs)
    side.graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo([f"z{i}" for i in range(num_inputs)], takes, returns)))
    return side.finish(tuple(results), "Tail" if layers is None else "TailWithLayers")


def build_segment(flow: Flow, k: int, end: int) -> fx.GraphModule:
    """The network after ``flow.data[k]`` up to ``flow.data[end]``: takes and returns crossing tensors.

    It leaves the tensors that it takes as they are; some of those that it returns may be the same.
    """
    side = _behind(flow, k, end)
    for node in flow.data[k + 1 : end + 1]:
        side.make(node)
    return side.finish(tuple(side.made[node] for node in flow.live[end]), "Segment")


def _behind(flow: Flow, k: int, end: int) -> "_Side":
    """What begins behind a cut and goes up to ``flow.data[end]``, without its operations yet."""
    side = _Side(flow)
    side.given = flow.live[k]
    for i, node in enumerate(flow.live[k]):
        side.made[node] = side.graph.placeholder(f"z{i}")
    side.check_shapes()
    side.batch_source = flow.batch_source(flow.live[k])
    for node in flow.live[k]:
        if flow.training and context_of(node).no_grad:
            side.made[node] = side.graph.call_function(torch.ops.aten.detach.default, (side.made[node],))
        if flow.written_after(node, k, end):
            side.made[node] = side.graph.call_function(torch.ops.aten.clone.default, (side.made[node],))
    return side


class _Side:
    """One half under construction: copies nodes and makes the free ones (weights, sizes) it meets."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.graph = fx.Graph()
        self.made: dict[fx.Node, Any] = {}  # a node, or a size that is the same for any batch
        self.given: Sequence[fx.Node] = ()  # what this half takes
        self.kept: Sequence[fx.Node] = ()  # what it returns beside the output
        self._settled: dict[fx.Node, fx.Node] = {}
        self.batch_source: tuple[fx.Node, int, int, int] | None = None
        self._batch: fx.Node | None = None

    def check_shapes(self) -> None:
        """Refuse other batch sizes than that of the graph, where it is right for this one only."""
        for node, taken in list(self.made.items()):
            value = traced(node)
            if not self.flow.captured.is_batch_free and isinstance(value, Traced):
                self.made[node] = self.graph.call_function(of_shape, (taken, value.shape))

    def make(self, node: fx.Node) -> Any:
        """The copy of ``node`` in this half, made on first use."""
        if node in self.made:
            return self.made[node]
        line = self.flow.line_of(node)
        if line is not None:
            copy = self._size(*line)
        else:
            inputs = {n: self._given(n, node) for n in node.all_input_nodes}
            in_place = self._in_place(node, inputs)
            copy = self.graph.node_copy(node, inputs.__getitem__)
            copy.meta, copy.target = {"of": node.name}, in_place or copy.target
            context = context_of(node)
            put_within(copy, context if self.flow.training else replace(context, no_grad=False))
        self.made[node] = copy
        return copy

    def _in_place(self, node: fx.Node, inputs: dict[fx.Node, Any]) -> Callable[..., Any] | None:
        """The model's own operation, where ``node`` is its twin and it may write; never into what the half is given."""
        in_place: Callable[..., Any] | None = node.meta.get("in_place")
        source = node.all_input_nodes[0] if in_place is not None else None
        if source is None or source in self.kept:
            return None
        if source in self.given:
            inputs[source] = self.graph.call_function(torch.ops.aten.clone.default, (inputs[source],))
        return in_place

    def _given(self, node: fx.Node, user: fx.Node) -> Any:
        """What ``user`` gets for its input ``node``.

        Where the model switched gradients off, weights do not learn. In train mode no gradient passes there either; in
        eval mode it does, so that a codec learns by a network that is frozen.
        """
        made = self.make(node)
        from_outside = context_of(user).no_grad and not context_of(node).no_grad
        if self.flow.training or not from_outside or not self.flow.is_weight(node):
            return made
        if node not in self._settled:
            self._settled[node] = self.graph.call_function(settled, (made,))
        return self._settled[node]

    def _size(self, a: int, b: int) -> fx.Node | int:
        """``a·batch + b``."""
        call = self.graph.call_function
        if a == 0:
            return b
        if self._batch is None:
            self._batch = self._read_batch()
        size = self._batch if a == 1 else call(operator.mul, (self._batch, a))
        return call(operator.add, (size, b)) if b else size

    def _read_batch(self) -> fx.Node:
        assert self.batch_source is not None, "Flow refuses cuts whose tail cannot know the batch size"
        source, dim, a, b = self.batch_source
        call = self.graph.call_function
        size = call(torch.ops.aten.sym_size.int, (self.made[source], dim))
        size = call(operator.sub, (size, b)) if b else size
        return size if a == 1 else call(operator.floordiv, (size, a))

    def finish(self, result: Any, name: str) -> fx.GraphModule:
        """Close the graph, drop what it does not use, and bind the model's weights to it."""
        self.graph.output(result)
        self.graph.owning_module = self.flow.module  # which knows what is impure; code is then generated once
        self.graph.eliminate_dead_code(_has_effects)
        return fx.GraphModule(self.flow.module, self.graph, class_name=name)


def _has_effects(node: fx.Node) -> bool:
    """Whether an operation does more than make its result; autocast hides from fx what it runs."""
    schema = getattr(operation(node), "_schema", None)
    return node.is_impure() or (schema is not None and bool(schema.is_mutable))
