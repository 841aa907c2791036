"""Half: one side of a cut as a machine sees it, and the cost of each operation in FLOPs and bytes."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, flop_registry, sdpa_flop_count

from splitsem.splitting.capture import Batch, op_name
from splitsem.splitting.nested import LOOPS, bodies


class OpShape(NamedTuple):
    """An operation as a product of matrices: ``groups`` products of (rows × depth) by (depth × columns).

    A convolution has a row for each output pixel, a column for each output channel of a group and a depth of input
    channels of a group × window; attention has rows of queries, columns of keys. Whatever multiplies no matrices has
    a row for each element of its largest tensor, and is 1 in all else but a pool's window.
    """

    rows: int = 1
    columns: int = 1
    depth: int = 1
    groups: int = 1
    window: int = 1


ONE = OpShape()


@dataclass(frozen=True)
class OpCost:
    """Arithmetic and memory traffic of one graph operation for one sample.

    Attributes:
        name: the graph node.
        flops: floating-point operations (a multiply-add counts two).
        bytes: bytes read and written: inputs, outputs and weights, a recurrent layer's own weights once a step.
        steps: launches that must follow each other: steps × layers × directions of a recurrent layer, else 1.
        kernel_bytes: the share of ``bytes`` that is a convolution's weights.
        kind: torch's name of the operation; empty where it is not known.
        shape: see ``OpShape``.
    """

    name: str
    flops: float
    bytes: float
    steps: int = 1
    kernel_bytes: float = 0.0
    kind: str = ""
    shape: OpShape = ONE


@dataclass(frozen=True)
class Half:
    """One side of a cut, as a machine sees it.

    Attributes:
        side: which side of the cut.
        point: name of the split point.
        module: the network part itself, callable as ``module(*example)``.
        example: the inputs of this side for one sample (batch 1).
        ops: the cost of each of its operations; empty for a side that computes nothing.
        fingerprint: identifies the model and its weights' shapes, so that a LUT of another model is refused.
    """

    side: Literal["head", "tail"]
    point: str
    module: nn.Module
    example: tuple[Tensor, ...]
    ops: tuple[OpCost, ...]
    fingerprint: str


CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution", "_convolution",
                "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}  # fmt: skip
PRODUCTS = {"linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "einsum", "bilinear",
            "scaled_dot_product_attention"}  # fmt: skip
_HOLD_PRODUCTS = {"addmv", "addbmm", "inner", "tensordot", "chain_matmul", "linalg_multi_dot",
                  "linalg_matrix_power", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}  # fmt: skip
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
POOLS = {"max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"}
_LOOKUPS = {"embedding", "index", "index_select", "gather", "slice", "select"}
_MOVES = {"cat", "stack", "clone", "contiguous", "reshape", "flatten", "pad", "copy", "copy_", "roll", "repeat",
          "constant_pad_nd", "pixel_shuffle", "to", "_to_copy", "lift_fresh_copy", "zeros", "full",
          *_LOOKUPS}  # fmt: skip
_VIEWS_IF_CONTIGUOUS = {"contiguous", "reshape", "flatten"}


def op_cost(node: fx.Node, batch: Batch) -> OpCost:
    """The cost of ``node``; zero for views and for what is not computed on tensors.

    Floating-point operations: convolutions, matrix products and attention by torch's own formulas (a multiply-add
    counts two), recurrent layers as two per weight, step and sample, pooling as one per window element, copies none,
    everything else one per element of the largest tensor read or made. Bytes: all inputs, weights and outputs once, at
    their own item size; a look-up reads only what it returns. A recurrent layer reads the weights that multiply its
    state again at each step, since a step must wait for the one before it.
    """
    outputs = [v for v in _flat(node.meta.get("val")) if isinstance(v, Tensor)]
    if not outputs or is_view(node):
        return OpCost(node.name, 0.0, 0.0)
    if graphs := bodies(node):
        return _nested_cost(node, graphs, batch)
    inputs = [v for n in node.all_input_nodes for v in _flat(n.meta.get("val")) if isinstance(v, Tensor)]
    made = sum(_bytes(v, batch) for v in outputs)
    name = op_name(node)
    read = made if name in _LOOKUPS else sum(_bytes(v, batch) for v in inputs)
    flops = float(_flops(node, inputs, outputs, batch))
    shape = _op_shape(node, inputs, outputs, batch)
    if name in RECURRENT:
        cells, state_bytes, length = _recurrence(node, inputs[0], batch)
        moved = float(made + read + (length - 1) * state_bytes)
        return OpCost(node.name, flops, moved, steps=length * cells, kind=name, shape=shape)
    kernel_bytes = float(_bytes(inputs[1], batch)) if name in CONVOLUTIONS else 0.0
    return OpCost(node.name, flops, float(made + read), kernel_bytes=kernel_bytes, kind=name, shape=shape)


def _op_shape(node: fx.Node, inputs: list[Tensor], outputs: list[Tensor], batch: Batch) -> OpShape:
    """See ``OpShape``; of what is made, and of the first two tensors that are read."""
    name, made = op_name(node), _shape(outputs[0], batch)
    shapes = [_shape(v, batch) for v in inputs]
    if name in CONVOLUTIONS:
        weight = shapes[1]
        window, depth = prod(weight[2:]), prod(weight[1:])
        channels = made[-len(weight) + 1] if len(made) >= len(weight) - 1 else 1
        groups = max(1, shapes[0][-len(weight) + 1] // max(1, weight[1])) if "transpose" not in name else 1
        return OpShape(prod(made) // max(1, channels), max(1, channels // groups), depth, groups, window)
    if name == "scaled_dot_product_attention" and len(shapes) > 1:
        q, k = shapes[:2]
        return OpShape(q[-2], k[-2], q[-1], prod(q[:-2]))
    if name in PRODUCTS and len(shapes) > 1 and shapes[0]:
        columns = made[-1] if made else 1
        groups = 1 if name == "linear" else prod(made[:-2])
        return OpShape(max(1, prod(made) // max(1, columns * groups)), columns, shapes[0][-1], max(1, groups))
    window = 1
    if name in POOLS and len(node.args) > 1:
        size: Any = node.args[1]
        window = prod(size) if isinstance(size, list | tuple) else int(size) ** int(name[-2])
    return OpShape(max([prod(made), *(prod(s) for s in shapes)]), window=window)


def _nested_cost(node: fx.Node, graphs: list[fx.Graph], batch: Batch) -> OpCost:
    """The most expensive of the graphs, as often as it runs."""
    costs = [[op_cost(n, batch) for n in graph.nodes if n.op == "call_function"] for graph in graphs]
    ops = max(costs, key=lambda ops: (sum(op.flops for op in ops), sum(op.bytes for op in ops)))
    times = 1
    if op_name(node) in LOOPS:
        over: Any = node.args[1 if op_name(node) == "map_impl" else 2]
        times = batch.size(over[0].meta["val"].shape[0]) or 1
    return OpCost(  # of no kind: it is many
        node.name,
        times * sum(op.flops for op in ops),
        times * sum(op.bytes for op in ops),
        steps=max(1, times * sum(op.steps for op in ops if op.flops or op.bytes)),
        kernel_bytes=times * sum(op.kernel_bytes for op in ops),
    )


def _recurrence(node: fx.Node, x: Tensor, batch: Batch) -> tuple[int, int, int]:
    """Layers × directions, bytes of the weights that multiply their states, and time steps of one sample.

    The weights lie in the order of ``torch.nn.RNNBase``: matrix of the input, matrix of the state, biases, and where
    the state is projected the matrix for that; so each layer and direction has as many matrices as the first.
    """
    cells = int(node.args[4]) * (1 + bool(node.args[7]))  # type: ignore[arg-type]
    matrices = [w.meta["val"] for w in node.args[2] if w.meta["val"].dim() == 2]  # type: ignore[union-attr]
    of_state = [w for k, w in enumerate(matrices) if k % (len(matrices) // cells) != 0]
    return cells, sum(_bytes(w, batch) for w in of_state), prod(_shape(x, batch)[:-1])


def _flops(node: fx.Node, inputs: list[Tensor], outputs: list[Tensor], batch: Batch) -> int:
    name = op_name(node)
    if name in _MOVES:
        return 0
    shapes = [_shape(v, batch) for v in inputs]
    made = _shape(outputs[0], batch)
    if name in CONVOLUTIONS and "convolution" not in name:
        one = [1] * (len(shapes[1]) - len(made))  # a sample alone, as in the body of a loop
        return conv_flop_count([*one, *shapes[0]], list(shapes[1]), [*one, *made], "transpose" in name)
    if name in {"linear", "matmul", "mv"}:
        return 2 * prod(made) * shapes[0][-1]
    if name == "scaled_dot_product_attention":
        q, k, v = shapes[:3]
        return sdpa_flop_count((prod(q[:-2]), 1, *q[-2:]), (prod(q[:-2]), 1, *k[-2:]), (prod(q[:-2]), 1, *v[-2:]))
    if name in RECURRENT:
        steps = prod(shapes[0][:-1])
        return 2 * steps * sum(prod(s) for s in shapes[1:] if len(s) == 2)
    if name in POOLS:
        window = node.args[1]
        dims = int(name[-2])
        return prod(made) * (prod(window) if isinstance(window, list | tuple) else int(window) ** dims)  # type: ignore
    if name == "bilinear":
        weight: Any = node.args[2]
        return 2 * prod(made) * prod(_shape(weight.meta["val"], batch)[1:])
    if name == "cdist":
        return 2 * prod(made) * shapes[0][-1]
    if name == "deform_conv2d":
        return conv_flop_count(list(shapes[0]), list(shapes[1]), list(made), False)
    if name == "einsum" or getattr(node.target, "overloadpacket", None) in flop_registry:
        return _counted(node, batch)
    elements = max([prod(s) for s in shapes] + [prod(_shape(v, batch)) for v in outputs])
    return max(elements, _counted(node, batch)) if name in _HOLD_PRODUCTS else elements


def _counted(node: fx.Node, batch: Batch) -> int:
    """What torch's own counter says when the operation runs on tensors without data."""
    with FlopCounterMode(display=False) as counter:
        _on_meta(node.target, node.args, node.kwargs, batch)  # type: ignore[arg-type]
    return int(counter.get_total_flops())


def _on_meta(target: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], batch: Batch) -> None:
    def stand_in(node: fx.Node) -> Any:
        value = node.meta.get("val")
        if isinstance(value, Tensor):
            dtype = torch.float32 if value.is_floating_point() else value.dtype  # under autocast they may differ
            return torch.empty(_shape(value, batch), dtype=dtype, device="meta")
        return batch.size(value) if isinstance(value, torch.SymInt) else value

    target(*fx.map_arg(tuple(args), stand_in), **fx.map_arg(kwargs, stand_in))


def is_view(node: fx.Node) -> bool:
    """Whether what the node makes shares the memory of its input."""
    if node.target is operator.getitem:
        return True
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.is_mutable:
        return False
    if op_name(node) in _VIEWS_IF_CONTIGUOUS:
        value = node.all_input_nodes[0].meta.get("val") if node.all_input_nodes else None
        return isinstance(value, Tensor) and value.is_contiguous()
    return any(out.alias_info is not None for out in schema.returns)


def _flat(value: object) -> Sequence[object]:
    return value if isinstance(value, list | tuple) else (value,)


def _shape(value: Tensor, batch: Batch) -> tuple[int, ...]:
    return batch.shape(value) or ()


def _bytes(value: Tensor, batch: Batch) -> int:
    return prod(_shape(value, batch)) * value.element_size()
