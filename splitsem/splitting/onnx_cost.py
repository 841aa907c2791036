"""onnx_cost: what each operation of an ONNX graph computes and moves, by rules like those of ``half.op_cost``."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from splitsem.onnx_program import read_by
from splitsem.splitting.half import OpCost

_CONVOLUTIONS = {"Conv": (0, 1), "FusedConv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3),
                 "DeformConv": (0, 1)}  # fmt: skip
_TRANSPOSED = {"ConvTranspose": (0, 1)}
_PRODUCTS = {"MatMul": (0, 1), "Gemm": (0, 1), "FusedMatMul": (0, 1), "FusedGemm": (0, 1), "MatMulInteger": (0, 1),
             "MatMulIntegerToFloat": (0, 1), "DynamicQuantizeMatMul": (0, 1), "QLinearMatMul": (0, 3),
             "QGemm": (0, 3), "TransposeMatMul": (0, 1)}  # fmt: skip
_RECURRENT = {"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"}
_ATTENTION = {"Attention", "MultiHeadAttention", "QAttention", "GroupQueryAttention"}
_NESTED = {"If", "Loop", "Scan", "SequenceMap"}
_POOLS = {"MaxPool", "AveragePool", "LpPool"}
_GLOBAL_POOLS = {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}
_OTHER_HEAVY = {"Resize", "Upsample", "GridSample", "RoiAlign", "Einsum", "EmbedLayerNormalization", "MatMulNBits"}
_VIEWS = {"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}
_LOOKUPS = {"Gather", "GatherElements", "GatherND", "Slice", "Split"}
_MOVES = {"Concat", "Transpose", "Pad", "Expand", "Tile", "Cast", "CastLike", "DepthToSpace", "SpaceToDepth",
          "ScatterND", "ScatterElements", "Scatter", "SequenceConstruct", "ConcatFromSequence", "SequenceAt",
          *_VIEWS, *_LOOKUPS}  # fmt: skip
_HEAVY = (_RECURRENT | _ATTENTION | _NESTED | _POOLS | _GLOBAL_POOLS | _OTHER_HEAVY).union(
    _CONVOLUTIONS, _TRANSPOSED, _PRODUCTS
)


def starts_layer(node: Any) -> bool:
    """Whether the operation is heavy: convolution, matrix product, attention, recurrence, pooling, resizing, a loop."""
    return node.op_type in _HEAVY


def cost_of(node: Any, found: Mapping[str, Any]) -> OpCost:
    """The cost of a node for one run.

    Floating-point operations: convolutions and products two a multiply-add, recurrent layers two a weight and step,
    pooling one a window element, copies none, everything else one for each element of its largest tensor. Of a branch
    or loop, two a weight in it: how often it runs is not known. Bytes: inputs, weights and outputs once; a look-up
    reads what it returns; views nothing.

    Args:
        node: the operation.
        found: every tensor's value in a trial, weights included, by name.
    """
    name, kind = node.output[0] or node.name, node.op_type
    if kind in _VIEWS:
        return OpCost(name, 0.0, 0.0)
    read = [array for one in dict.fromkeys(read_by(node)) if isinstance(array := found.get(one), np.ndarray)]
    outputs = [array for one in node.output if isinstance(array := found.get(one), np.ndarray)]
    made = sum(array.nbytes for array in outputs)
    moved = made + (made if kind in _LOOKUPS else sum(array.nbytes for array in read))
    of_input = [found.get(one) if one else None for one in node.input]
    if kind in _RECURRENT:
        steps, directions = of_input[0].shape[0], of_input[1].shape[0]  # type: ignore[union-attr]
        batch = of_input[0].shape[1]  # type: ignore[union-attr]
        flops = 2.0 * steps * batch * sum(weight.size for weight in of_input[1:3])  # type: ignore[union-attr]
        again = (steps - 1) * of_input[2].nbytes  # type: ignore[union-attr]
        return OpCost(name, flops, float(moved + again), steps=steps * directions)
    kernel = of_input[_CONVOLUTIONS[kind][1]] if kind in _CONVOLUTIONS else None
    kernel_bytes = 0.0 if kernel is None else float(kernel.nbytes)
    return OpCost(name, float(_flops(node, of_input, read, outputs)), float(moved), kernel_bytes=kernel_bytes)


def _flops(node: Any, of_input: Sequence[Any], read: Sequence[Any], outputs: Sequence[Any]) -> int:
    kind, elements = node.op_type, max((array.size for array in (*read, *outputs)), default=0)
    if kind in _MOVES:
        return 0
    if kind in _CONVOLUTIONS:
        return 2 * outputs[0].size * prod(of_input[_CONVOLUTIONS[kind][1]].shape[1:])
    if kind in _TRANSPOSED:
        return 2 * of_input[0].size * prod(of_input[1].shape[1:])
    if kind in _PRODUCTS:
        left = of_input[_PRODUCTS[kind][0]].shape
        return 2 * outputs[0].size * left[0 if _is_transposed(node) else -1]
    if kind in _ATTENTION:
        tokens, width = outputs[0].shape[-2:]
        weights = sum(array.size for array in read if array.ndim == 2)
        return 2 * outputs[0].size // width * weights + 4 * tokens * outputs[0].size
    if kind in _NESTED:
        return 2 * sum(int(np.prod(weight.dims)) for weight in _weights_inside(node)) + elements
    if kind in _POOLS:
        window = next((attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape"), [1])
        return outputs[0].size * prod(window)
    return elements


def _is_transposed(node: Any) -> bool:
    return any(attribute.name == "transA" and attribute.i for attribute in node.attribute)


def _weights_inside(node: Any) -> list[Any]:
    graphs = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
    own = [weight for graph in graphs for weight in graph.initializer]
    return own + [weight for graph in graphs for inner in graph.node for weight in _weights_inside(inner)]
