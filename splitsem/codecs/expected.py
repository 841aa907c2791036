"""Expected: what a receiver takes. Codecs compare it with a payload's header before they decode any body."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from splitsem.errors import PayloadError

_MOST_BYTES = 1 << 31  # of tensors of which nothing is known
_SLACK_BYTES = 1 << 16  # what the header of a file format may take beside the tensors
_SLOT_BYTES = 1024  # a tensor's, or a picture's, own settings and file header

Kind = tuple[torch.dtype, tuple[int, ...]]


class Head(NamedTuple):
    """What a payload's header says of one tensor.

    Attributes:
        dtype: the tensor's dtype.
        shape: the tensor's shape, or that of its code.
        num_bytes: size of all that the payload holds of it.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    num_bytes: int


class Expected(NamedTuple):
    """The tensors that a receiver takes.

    Attributes:
        tensors: dtype and shape of each tensor; None: any tensors.
        max_batch: the most samples, where dimension 0 of every tensor counts samples; None: the shapes are exact.
        place: where the tensors are taken, for messages.

    >>> expected = Expected(((torch.float32, (1, 8)),), max_batch=4)
    >>> expected.check([(torch.float32, (3, 8))])
    3
    >>> expected.check([(torch.float32, (3, 9))])
    Traceback (most recent call last):
        ...
    splitsem.errors.PayloadError: expected float32[3, 8], got float32[3, 9]
    """

    tensors: tuple[Kind, ...] | None = None
    max_batch: int | None = None
    place: str = ""

    @classmethod
    def like(cls, z: Sequence[Tensor]) -> "Expected":
        """Exactly these shapes and dtypes."""
        return cls(kinds(z))

    @property
    def num_tensors(self) -> int | None:
        """How many tensors; None: any number."""
        return None if self.tensors is None else len(self.tensors)

    @property
    def most_bytes(self) -> int:
        """The most bytes that a decoder needs to unpack: those of the tensors, and 64 KB for a file format's header."""
        if self.tensors is None:
            return _MOST_BYTES
        return (self.max_batch or 1) * sum(map(_num_bytes, self.tensors)) + _SLACK_BYTES

    def check(self, got: Sequence[Kind], rule: str = "expected") -> int:
        """The batch size, 1 where shapes are exact. Raises PayloadError unless these are tensors that are taken."""
        if self.tensors is None or (self.max_batch is None and tuple(got) == self.tensors):
            return 1
        batch, wanted = 1, list(self.tensors)
        if self.max_batch is not None:
            batch = got[0][1][0] if got and got[0][1] else 1
            if batch > self.max_batch:
                raise PayloadError(f"{rule} a batch of at most {self.max_batch} samples, got {batch}")
            wanted = [(dtype, (batch, *shape[1:])) for dtype, shape in wanted]
        if [*got] != wanted:
            raise PayloadError(f"{rule} {describe(wanted)}{self.place}, got {describe(got)}")
        return batch

    def check_heads(self, heads: Sequence[Head]) -> None:
        """As ``check``, and no tensor may take more than four times its size in memory on the wire."""
        if self.tensors is None:
            return
        self.check([head[:2] for head in heads])
        for dtype, shape, num_bytes in heads:
            slots = 4 + (shape[0] if len(shape) == 4 else 0)
            if num_bytes > (most := 4 * math.prod(shape) * dtype.itemsize + slots * _SLOT_BYTES):
                raise PayloadError(f"expected at most {most} bytes for {describe([(dtype, shape)])}, got {num_bytes}")


ANYTHING = Expected()


def kinds(z: Sequence[Tensor]) -> tuple[Kind, ...]:
    """Dtype and shape of each tensor."""
    return tuple((t.dtype, tuple(t.shape)) for t in z)


def describe(tensors: Sequence[Kind]) -> str:
    """Dtypes and shapes in words, the first few of them: ``float32[1, 8] int64[3]``."""
    named = [f"{str(dtype).removeprefix('torch.')}{list(shape)}" for dtype, shape in tensors[:8]]
    return " ".join((*named, *(["…"] if len(tensors) > 8 else []))) or "no tensors"


def _num_bytes(kind: Kind) -> int:
    return math.prod(kind[1]) * kind[0].itemsize
