"""work: the cost of a captured operation in FLOPs and bytes, by the shapes of what it reads and makes."""

import operator
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, flop_registry, sdpa_flop_count

from splitsem.splitting.captured import Size, Traced, op_name, tensors_of, traced
from splitsem.splitting.contexts import LOOPS, bodies
from splitsem.splitting.half import CONVOLUTIONS, PRODUCTS, RECURRENT, OpCost, OpShape

_HOLD_PRODUCTS = {"addmv", "addbmm", "inner", "tensordot", "chain_matmul", "linalg_multi_dot",
                  "linalg_matrix_power", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}  # fmt: skip
POOLS = {"max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"}
_LOOKUPS = {"embedding", "index", "index_select", "gather", "slice", "select"}
_MOVES = {"cat", "stack", "clone", "contiguous", "reshape", "flatten", "pad", "copy", "copy_", "roll", "repeat",
          "constant_pad_nd", "pixel_shuffle", "to", "_to_copy", "lift_fresh_copy", "zeros", "full",
          *_LOOKUPS}  # fmt: skip
_VIEWS_IF_CONTIGUOUS = {"contiguous", "reshape", "flatten"}


def op_cost(node: fx.Node) -> OpCost:
    """The cost of ``node``; zero for views and for what is not computed on tensors.

    Floating-point operations: convolutions, matrix products and attention by torch's own formulas (a multiply-add
    counts two), recurrent layers as two per weight, step and sample, pooling as one per window element, copies none,
    everything else one per element of the largest tensor read or made. Bytes: all inputs, weights and outputs once, at
    their own item size; a look-up reads only what it returns. A recurrent layer reads the weights that multiply its
    state again at each step, since a step must wait for the one before it.
    """
    outputs = tensors_of([node])
    if not outputs or is_view(node):
        return OpCost(node.name, 0.0, 0.0)
    if graphs := bodies(node):
        return _nested_cost(node, graphs)
    inputs = tensors_of(node.all_input_nodes)
    made = sum(v.num_bytes for v in outputs)
    name = op_name(node)
    read = made if name in _LOOKUPS else sum(v.num_bytes for v in inputs)
    flops = float(_flops(node, inputs, outputs))
    is_permuted = bool(inputs) and not inputs[0].is_contiguous
    shape = _op_shape(node, inputs, outputs)._replace(permuted=int(is_permuted))
    if name in RECURRENT:
        cells, state_bytes, length = _recurrence(node, inputs[0])
        moved = float(made + read + (length - 1) * state_bytes)
        return OpCost(node.name, flops, moved, steps=length * cells, kind=name, shape=shape)
    kernel_bytes = float(inputs[1].num_bytes) if name in CONVOLUTIONS else 0.0
    return OpCost(node.name, flops, float(made + read), kernel_bytes=kernel_bytes, kind=name, shape=shape)


def _op_shape(node: fx.Node, inputs: list[Traced], outputs: list[Traced]) -> OpShape:
    """See ``OpShape``; of what is made, and of the first two tensors that are read."""
    name, made = op_name(node), outputs[0].shape or ()
    shapes = [v.shape or () for v in inputs]
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


def _nested_cost(node: fx.Node, graphs: list[fx.Graph]) -> OpCost:
    """The most expensive of the graphs, as often as it runs."""
    costs = [[op_cost(n) for n in graph.nodes if n.op == "call_function"] for graph in graphs]
    ops = max(costs, key=lambda ops: (sum(op.flops for op in ops), sum(op.bytes for op in ops)))
    times = 1
    if op_name(node) in LOOPS:
        over: Any = node.args[1 if op_name(node) == "map_impl" else 2]
        times = traced(over[0]).sizes[0].of_one or 1
    return OpCost(  # of no kind: it is many
        node.name,
        times * sum(op.flops for op in ops),
        times * sum(op.bytes for op in ops),
        steps=max(1, times * sum(op.steps for op in ops if op.flops or op.bytes)),
        kernel_bytes=times * sum(op.kernel_bytes for op in ops),
    )


def _recurrence(node: fx.Node, x: Traced) -> tuple[int, int, int]:
    """Layers × directions, bytes of the weights that multiply their states, and time steps of one sample.

    The weights lie in the order of ``torch.nn.RNNBase``: matrix of the input, matrix of the state, biases, and where
    the state is projected the matrix for that; so each layer and direction has as many matrices as the first.
    """
    cells = int(node.args[4]) * (1 + bool(node.args[7]))  # type: ignore[arg-type]
    matrices = [w for w in tensors_of(node.args[2]) if len(w.sizes) == 2]  # type: ignore[arg-type]
    of_state = [w for k, w in enumerate(matrices) if k % (len(matrices) // cells) != 0]
    return cells, sum(w.num_bytes for w in of_state), prod((x.shape or ())[:-1])


def _flops(node: fx.Node, inputs: list[Traced], outputs: list[Traced]) -> int:
    name = op_name(node)
    if name in _MOVES:
        return 0
    shapes = [v.shape or () for v in inputs]
    made = outputs[0].shape or ()
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
        return 2 * prod(made) * prod((traced(weight).shape or ())[1:])
    if name == "cdist":
        return 2 * prod(made) * shapes[0][-1]
    if name == "deform_conv2d":
        return conv_flop_count(list(shapes[0]), list(shapes[1]), list(made), False)
    if name == "einsum" or getattr(node.target, "overloadpacket", None) in flop_registry:
        return _counted(node)
    elements = max([prod(s) for s in shapes] + [v.num_elements for v in outputs])
    return max(elements, _counted(node)) if name in _HOLD_PRODUCTS else elements


def _counted(node: fx.Node) -> int:
    """What torch's own counter says when the operation runs on tensors without data."""
    with FlopCounterMode(display=False) as counter:
        _on_meta(node.target, node.args, node.kwargs)  # type: ignore[arg-type]
    return int(counter.get_total_flops())


def _on_meta(target: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    def stand_in(node: fx.Node) -> Any:
        value = traced(node)
        if isinstance(value, Traced):
            dtype = torch.float32 if value.dtype.is_floating_point else value.dtype  # under autocast they may differ
            return torch.empty(value.shape or (), dtype=dtype, device="meta")
        return value.of_one if isinstance(value, Size) else value

    target(*fx.map_arg(tuple(args), stand_in), **fx.map_arg(kwargs, stand_in))


def is_view(node: fx.Node) -> bool:
    """Whether what the node makes shares the memory of its input."""
    if node.target is operator.getitem:
        return True
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.is_mutable:
        return False
    if op_name(node) in _VIEWS_IF_CONTIGUOUS:
        value = traced(node.all_input_nodes[0]) if node.all_input_nodes else None
        return isinstance(value, Traced) and value.is_contiguous
    return any(out.alias_info is not None for out in schema.returns)
