"""Joined: tensors of a network laid end to end, so that a codec works on a few long ones and not on hundreds."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from splitsem.errors import PayloadError


class Joined(NamedTuple):
    """Which tensors of a network lie end to end.

    Attributes:
        names: of the tensors, in order; at least one.
        shapes: theirs.
        dtype: of all of them.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    @classmethod
    def by_dtype(cls, tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> "list[Joined]":
        """One for each dtype among tensors given as ``(shape, dtype)``, in the order of their first."""
        groups: dict[torch.dtype, list[str]] = {}
        for name, (_, dtype) in tensors.items():
            groups.setdefault(dtype, []).append(name)
        return [cls(tuple(names), tuple(tensors[name][0] for name in names), d) for d, names in groups.items()]

    @property
    def num_values(self) -> int:
        """How many elements."""
        return sum(map(math.prod, self.shapes))

    def join(self, state: Mapping[str, Tensor]) -> Tensor:
        """The tensors end to end, ``(num_values,)``."""
        return torch.cat([state[name].reshape(-1) for name in self.names])

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Undo ``join``; views where the shapes allow it."""
        parts = values.split([math.prod(shape) for shape in self.shapes])
        return {n: part.reshape(shape) for n, shape, part in zip(self.names, self.shapes, parts, strict=True)}

    def check(self, values: Tensor) -> None:
        """Raise PayloadError unless these are finite values of these tensors, ``(num_values,)``."""
        if values.dim() != 1 or len(values) != self.num_values or values.dtype is not self.dtype:
            got = f"{tuple(values.shape)} {values.dtype}"
            raise PayloadError(f"expected {self.num_values} values {self.dtype} of {self.names[0]} …, got {got}")
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise PayloadError(f"expected finite values in {self.names[0]} …, got NaN or infinity")


def to_blocks(values: Tensor, most: int) -> Tensor:
    """Rows of equal length, at most ``most``, the last one filled up with zeros: ``(blocks, length)``.

    >>> to_blocks(torch.arange(1, 6), 2)
    tensor([[1, 2],
            [3, 4],
            [5, 0]])
    """
    num_blocks = -(-len(values) // most)
    length = -(-len(values) // num_blocks)
    return F.pad(values, (0, num_blocks * length - len(values))).reshape(num_blocks, length)


def from_blocks(blocks: Tensor, num_values: int) -> Tensor:
    """Undo ``to_blocks``, ``(num_values,)``. Raises PayloadError when so many values do not make these blocks."""
    values = blocks.reshape(-1)
    if blocks.dim() != 2 or not 0 <= len(values) - num_values < len(blocks):
        raise PayloadError(f"expected {num_values} values in blocks, got {tuple(blocks.shape)}")
    return values[:num_values]
