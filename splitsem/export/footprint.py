"""Footprint of an exported network: FLOPs, and the most memory that its activations take at a time."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import sympy
from torch import Tensor, fx
from torch.export import ExportedProgram

from splitsem.split.batch import Batch
from splitsem.split.flops import is_view, op_cost


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
