"""SplitPoint: a place where the model may be cut, and what is known about it."""

from dataclasses import dataclass

import torch

from splitsem.split.half import OpCost


@dataclass(frozen=True)
class TensorSpec:
    """One crossing tensor: its shape for batch 1 and its dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class SplitPoint:
    """A cut after one node of the graph.

    Attributes:
        name: friendly name, e.g. ``layer1.0``; ``input`` and ``output`` are the ends.
        index: its number (λ) among the offered points, from 0 = ``input``.
        tensors: every tensor that crosses, in the order in which the head returns them.
        raw_bytes: float32 size of the crossing tensors for one sample (other dtypes at their own size).
        head_ops: cost of the head's operations for one sample.
        tail_ops: cost of the tail's operations for one sample.
        head_param_bytes: size of the parameters and buffers that only the head needs.
        tail_param_bytes: the same for the tail.
        is_bottleneck: whether ``raw_bytes`` is below the input's.
        is_batched: whether dimension 0 of every crossing tensor is the batch, so that a batch can be taken apart.
    """

    name: str
    index: int
    tensors: tuple[TensorSpec, ...]
    raw_bytes: int
    head_ops: tuple[OpCost, ...]
    tail_ops: tuple[OpCost, ...]
    head_param_bytes: int
    tail_param_bytes: int
    is_bottleneck: bool
    is_batched: bool

    @property
    def head_flops(self) -> float:
        """Floating-point operations of the head for one sample."""
        return sum(op.flops for op in self.head_ops)

    @property
    def tail_flops(self) -> float:
        """Floating-point operations of the tail for one sample."""
        return sum(op.flops for op in self.tail_ops)
