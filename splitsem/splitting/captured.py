"""Captured: a model as a graph of operations, and what is known of each value in it without running it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.fx.graph import _PyTreeInfo
from torch.utils import _pytree as pytree

Affine = tuple[int, int]


class Size(NamedTuple):
    """A size in a graph, as a function of the batch size.

    Attributes:
        line: ``(a, b)`` such that the size is ``a·batch + b``; None where it is not of that form, or depends on data.
        of_one: what it is for one sample; None where that depends on the data.
        of_two: the same for two samples.
    """

    line: Affine | None
    of_one: int | None
    of_two: int | None

    @property
    def varies(self) -> bool:
        """Whether the batch size makes it, and no other number does."""
        return self.line is not None and self.line[0] != 0


class Traced(NamedTuple):
    """What is known of a tensor in a graph.

    Attributes:
        sizes: of its dimensions.
        strides: of its dimensions.
        dtype: of its elements.
        layout: how it lies in memory; ``torch.strided`` of all that can cross.
        is_contiguous: whether it lies in the usual order.
    """

    sizes: tuple[Size, ...]
    strides: tuple[Size, ...]
    dtype: torch.dtype
    layout: torch.layout
    is_contiguous: bool

    @property
    def shape(self) -> tuple[int, ...] | None:
        """For one sample, or for the fixed batch; None where it depends on the data."""
        sizes = [size.of_one for size in self.sizes]
        return None if None in sizes else tuple(sizes)  # type: ignore[arg-type]

    @property
    def num_elements(self) -> int:
        """For one sample; of a shape that depends on the data, 1."""
        return prod(self.shape or ())

    @property
    def num_bytes(self) -> int:
        """For one sample."""
        return self.num_elements * self.dtype.itemsize

    @property
    def strides_of_two(self) -> tuple[int, ...]:
        """For two samples; 0 where one depends on the data."""
        return tuple(stride.of_two or 0 for stride in self.strides)


def traced(node: fx.Node) -> Any:
    """What is known of the value of a node: a ``Traced``, a ``Size``, a list of these, or None for anything else."""
    return node.meta.get("traced")


def tensors_of(nodes: Sequence[fx.Node]) -> list[Traced]:
    """The tensors among the values of nodes, those in lists too."""
    return [value for node in nodes for value in flat(traced(node)) if isinstance(value, Traced)]


def flat(value: object) -> Sequence[object]:
    """A value that is several, taken apart."""
    is_several = isinstance(value, list | tuple) and not isinstance(value, Traced | Size)
    return value if is_several else (value,)  # type: ignore[return-value]


@dataclass(frozen=True)
class Captured:
    """A model as a graph; each node's ``meta`` holds ``traced`` and, where it computes, its ``cost``.

    Attributes:
        module: holds the graph; the weights are the model's own tensors.
        takes: how the inputs become the graph's placeholders; None for one tensor, by position.
        returns: the structure of the output, whose leaves are the graph's results; None for a tensor.
        why_fixed: why the graph is right for the example's batch size only; empty where it is for any.
        sample: the model's output for one sample, or for the example's fixed batch.
        to_try: batch sizes at which the graph may differ from the model, as far as the export knows.
    """

    module: fx.GraphModule
    takes: _PyTreeInfo | None
    returns: pytree.TreeSpec | None
    why_fixed: str
    sample: Any
    to_try: tuple[int, ...] = ()

    @property
    def is_batch_free(self) -> bool:
        """Whether the graph is right for any batch size."""
        return not self.why_fixed


def op_name(node: fx.Node) -> str:
    """The operation without namespace and overload: ``conv2d`` for ``aten.conv2d.default``."""
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return str(schema.name).rpartition("::")[2]
    return str(getattr(node.target, "__name__", node.target))


def storage_roots(graph: fx.Graph) -> dict[fx.Node, fx.Node]:
    """For every node the first node whose memory it may share (itself when it makes new memory)."""
    roots: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        source = _aliased(node)
        roots[node] = roots[source] if source is not None else node
    return roots


def written(node: fx.Node) -> list[fx.Node]:
    """The tensors that an operation writes to in place; most operations write to none."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return []
    values = [
        node.args[i] if i < len(node.args) else node.kwargs.get(arg.name) for i, arg in enumerate(schema.arguments)
    ]
    return [
        value
        for arg, value in zip(schema.arguments, values, strict=True)
        if arg.alias_info is not None and arg.alias_info.is_write and isinstance(value, fx.Node)
    ]


def _aliased(node: fx.Node) -> fx.Node | None:
    """The argument whose memory the node's result may share."""
    if node.op != "call_function":
        return None
    schema = getattr(node.target, "_schema", None)
    first = node.args[0] if node.args else None
    if isinstance(first, list | tuple):
        first = first[0] if first else None
    if not isinstance(first, fx.Node):
        return None
    shares = schema is None or any(out.alias_info is not None for out in schema.returns)
    return first if shares else None
