"""Cut: the head and the tail of a model at one split point, as two networks that share its weights."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from splitsem.errors import ConfigError
from splitsem.split.flow import Flow
from splitsem.split.half import Half
from splitsem.split.nested import context_of, operation, put_within, settled
from splitsem.split.point import SplitPoint


@dataclass(frozen=True)
class Cut:
    """A model in two parts: ``tail(*head(x))`` is ``model(x)``, bit for bit.

    The weights are the model's own tensors under the model's own names, so training a half trains the model. Both
    halves compute as in eval mode, whatever their training flag says.

    Attributes:
        point: where the model is cut.
        head: takes ``x``, returns a tuple of the crossing tensors.
        tail: takes the crossing tensors, returns the model's output.
        example: an input for one sample (batch 1), from which the halves' examples are made.
        fingerprint: identifies the model; see ``SplitGraph.fingerprint``.
    """

    point: SplitPoint
    head: nn.Module
    tail: nn.Module
    example: Tensor
    fingerprint: str

    def with_tail(self, tail: nn.Module | None) -> "Cut":
        """This cut with other weights behind it: a tail that was tuned with a codec; None keeps its own tail.

        Raises:
            ConfigError: the tail does not compute what the network does behind this point.
        """
        if tail is None or tail is self.tail:
            return self
        if _program(tail) != _program(self.tail):
            raise ConfigError(
                f"the codec brings a tail that was tuned for another cut than {self.point.name}: "
                "give both ends the split.point that the codec was trained for"
            )
        return replace(self, tail=tail)

    def halves(self) -> tuple[Half, Half]:
        """Both sides as a machine sees them, with inputs of real shapes for one sample."""
        with torch.no_grad():
            z = self.head(self.example)
        return (
            Half("head", self.point.name, self.head, (self.example,), self.point.head_ops, self.fingerprint),
            Half("tail", self.point.name, self.tail, z, self.point.tail_ops, self.fingerprint),
        )


def _program(half: nn.Module) -> str | None:
    """What a half computes, its weights' values aside."""
    return half.code if isinstance(half, fx.GraphModule) else None


def build_head(flow: Flow, k: int) -> nn.Module:
    """The network up to ``flow.data[k]``; returns the crossing tensors as a tuple."""
    side = _Side(flow)
    x = flow.data[0]
    side.made[x] = side.graph.placeholder("x")
    side.batch_source = (x, 0, 1, 0)
    for node in flow.data[1 : k + 1]:
        side.make(node)
    return side.finish(tuple(side.made[node] for node in flow.live[k]), "Head")


def build_tail(flow: Flow, k: int, layers: Sequence[fx.Node] | None = None) -> nn.Module:
    """The network after ``flow.data[k]``; takes the crossing tensors one by one.

    With ``layers``, which are nodes after the cut, the result is a tuple: the output, then what those nodes make.
    """
    side = _Side(flow)
    for i, node in enumerate(flow.live[k]):
        side.made[node] = side.graph.placeholder(f"z{i}")
    side.batch_source = flow.batch_source(k)
    for node in flow.live[k]:
        side.restore_layout(node)
        if flow.training and context_of(node).no_grad:
            side.made[node] = side.graph.call_function(torch.ops.aten.detach.default, (side.made[node],))
        if flow.written_after(node, k):
            side.made[node] = side.graph.call_function(torch.ops.aten.clone.default, (side.made[node],))
    for node in flow.data[k + 1 :]:
        side.make(node)
    if layers is None:
        return side.finish(side.made[flow.result], "Tail")
    return side.finish((side.made[flow.result], *(side.made[node] for node in layers)), "TailWithLayers")


class _Side:
    """One half under construction: copies nodes and makes the free ones (weights, sizes) it meets."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.graph = fx.Graph()
        self.made: dict[fx.Node, fx.Node] = {}
        self._settled: dict[fx.Node, fx.Node] = {}
        self.batch_source: tuple[fx.Node, int, int, int] | None = None
        self._batch: fx.Node | None = None

    def make(self, node: fx.Node) -> fx.Node:
        """The copy of ``node`` in this half, made on first use."""
        if node in self.made:
            return self.made[node]
        line = self.flow.made_from(node) is None and self.flow.batch.affine(node.meta["val"])
        if line:
            copy = self._size(*line)
        else:
            inputs = {n: self._given(n, node) for n in node.all_input_nodes}
            copy = self.graph.node_copy(node, inputs.__getitem__)
            copy.meta = {}
            context = context_of(node)
            put_within(copy, context if self.flow.training else replace(context, no_grad=False))
        self.made[node] = copy
        return copy

    def _given(self, node: fx.Node, user: fx.Node) -> fx.Node:
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

    def _size(self, a: int, b: int) -> fx.Node:
        """``a·batch + b``."""
        call = self.graph.call_function
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

    def restore_layout(self, node: fx.Node) -> None:
        """Give a received tensor the memory order it had in the whole model: kernels differ in the last bit otherwise.

        This costs nothing when the tensor comes straight from the head.
        """
        value = node.meta["val"]
        strides = [self.flow.batch.size(stride, batch=2) or 0 for stride in value.stride()]
        order = sorted(range(value.dim()), key=lambda dim: -strides[dim])
        if 0 in strides or order == sorted(order):
            return
        call = self.graph.call_function
        z = call(torch.ops.aten.permute.default, (self.made[node], order))
        z = call(torch.ops.aten.contiguous.default, (z,))
        self.made[node] = call(torch.ops.aten.permute.default, (z, [order.index(dim) for dim in range(len(order))]))

    def finish(self, result: fx.Node | tuple[fx.Node, ...], name: str) -> fx.GraphModule:
        """Close the graph, drop what it does not use, and bind the model's weights to it."""
        self.graph.output(result)
        half = fx.GraphModule(self.flow.module, self.graph, class_name=name)
        if self.graph.eliminate_dead_code(_has_effects):
            half.recompile()
        return half


def _has_effects(node: fx.Node) -> bool:
    """Whether an operation does more than make its result; autocast hides from fx what it runs."""
    schema = getattr(operation(node), "_schema", None)
    return node.is_impure() or (schema is not None and bool(schema.is_mutable))
