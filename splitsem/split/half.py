"""Half: one side of a cut as a machine sees it, with what each of its operations costs."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class OpCost:
    """Arithmetic and memory traffic of one graph operation for one sample.

    Attributes:
        name: the graph node.
        flops: floating-point operations (a multiply-add counts two).
        bytes: bytes read and written: inputs, outputs and weights.
    """

    name: str
    flops: float
    bytes: float


@dataclass(frozen=True)
class Half:
    """One side of a cut, as a machine sees it.

    Attributes:
        side: which side of the cut.
        point: name of the split point.
        module: the network part itself, callable as ``module(*example)``.
        example: its inputs for one sample (batch 1).
        ops: the cost of each of its operations; empty for a side that computes nothing.
        fingerprint: identifies the model and its weights' shapes, so that a LUT of another model is refused.
    """

    side: Literal["head", "tail"]
    point: str
    module: nn.Module
    example: tuple[Tensor, ...]
    ops: tuple[OpCost, ...]
    fingerprint: str
