"""Half: one side of a cut as a machine sees it: a network, and each operation's cost in FLOPs and bytes."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn


class OpShape(NamedTuple):
    """An operation as a product of matrices: ``groups`` products of (rows × depth) by (depth × columns).

    A convolution has a row for each output pixel, a column for each output channel of a group and a depth of input
    channels of a group × window; attention has rows of queries, columns of keys. Whatever multiplies no matrices has
    a row for each element of its largest tensor, and is 1 in all else but a pool's window. ``permuted`` is 1 where the
    first tensor that it reads does not lie in memory in the order of its axes (channels last, say): other code runs.
    """

    rows: int = 1
    columns: int = 1
    depth: int = 1
    groups: int = 1
    window: int = 1
    permuted: int = 0


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
RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
