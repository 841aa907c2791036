"""Example: inputs of a model, from which its graph is captured and the costs of its halves are known."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.fx.graph import _PyTreeInfo
from torch.utils import _pytree as pytree

from splitsem.trees import leaves, mapped


@dataclass(frozen=True)
class Example:
    """Inputs of a model: any structures of tensors, by position and by name.

    A tensor whose first dimension is the batch size belongs to the samples; any other tensor is the same for all. What
    is no tensor (None, a number, a text) is part of the network that is captured.

    Attributes:
        args: by position.
        named: by name.
    """

    args: tuple[Any, ...]
    named: Mapping[str, Any]

    @classmethod
    def of(cls, model: nn.Module, args: Sequence[Any], named: Mapping[str, Any]) -> Self:
        """The inputs where the model's weights are, floating-point ones in the weights' type.

        A tuple of sizes as the only input stands for one floating-point tensor of this shape, without the batch.

        Raises:
            ValueError: there is no tensor among the inputs, or a size is below 1.
        """
        device, dtype = home_of(model)
        if len(args) == 1 and not named and _is_shape(args[0]):
            shape = tuple(int(size) for size in args[0])
            if not shape or min(shape) < 1:
                raise ValueError(f"a shape must be one or more sizes of at least 1, got {args[0]}")
            args = (torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)),)
        if not any(tensor.dim() for tensor in leaves((args, dict(named)))):
            raise ValueError("an example must have a tensor with the batch in dimension 0, or be the shape of one")

        def moved(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device, dtype if tensor.is_floating_point() else tensor.dtype)

        return cls(tuple(mapped(moved, tuple(args))), mapped(moved, dict(named)))

    @property
    def is_one_tensor(self) -> bool:
        """Whether the only input is a tensor, given by position."""
        return len(self.args) == 1 and not self.named and isinstance(self.args[0], Tensor)

    @property
    def batch(self) -> int:
        """The batch size."""
        return next(len(tensor) for tensor in leaves((self.args, self.named)) if tensor.dim())

    @property
    def sizes(self) -> str:
        """The shapes of the tensors, for messages."""
        return " and ".join(str(tuple(tensor.shape)) for tensor in leaves((self.args, self.named)))

    def in_order(self, takes: _PyTreeInfo | None) -> tuple[Any, ...]:
        """The inputs in the order of a captured graph's arguments."""
        names = [] if takes is None else takes.in_spec.child(1).context
        return (*self.args, *(self.named[name] for name in names))

    def with_batch(self, batch: int) -> "Example":
        """The same inputs for so many samples, all of them the first one."""
        here = self.batch

        def resized(tensor: Tensor) -> Tensor:
            return (
                tensor[:1].repeat(batch, *[1] * (tensor.dim() - 1)) if tensor.dim() and len(tensor) == here else tensor
            )

        return Example(mapped(resized, self.args), mapped(resized, dict(self.named)))

    def copied(self) -> "Example":
        """The same inputs as tensors of their own, which a network may write to."""
        return Example(mapped(Tensor.clone, self.args), mapped(Tensor.clone, dict(self.named)))

    def varied(self, batch: int) -> "Example":
        """Inputs for so many samples, which differ: floating-point rows in scale, others by a turn of their values."""
        here = self.batch

        def resized(tensor: Tensor) -> Tensor:
            if not tensor.dim() or len(tensor) != here:
                return tensor.clone()
            rows = [tensor[i % here] for i in range(batch)]
            if tensor.is_floating_point():
                return torch.stack([row / (1 + i // here) for i, row in enumerate(rows)])
            return torch.stack([row.roll(i // here, -1) if row.dim() else row for i, row in enumerate(rows)])

        return Example(mapped(resized, self.args), mapped(resized, dict(self.named)))

    def free_batch(self, forward: Callable[..., Any]) -> Any:
        """For torch.export of ``forward``, which dimensions are free: the first one of what belongs to the samples."""
        from torch.export import Dim  # which takes seconds to import

        here = self.batch

        def free(value: object) -> Any:
            return {0: Dim.DYNAMIC} if isinstance(value, Tensor) and value.dim() and len(value) == here else None

        by_name = inspect.signature(forward).bind(*self.args, **self.named).arguments
        return {name: pytree.tree_map(free, value) for name, value in by_name.items()}


def home_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The placement and floating-point type of the model's weights; CPU and float32 for a model without weights."""
    weights = [*model.parameters(), *model.buffers()]
    device = weights[0].device if weights else torch.device("cpu")
    dtype = next((w.dtype for w in weights if w.is_floating_point()), torch.float32)
    return device, dtype


def _is_shape(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(size, int) for size in value)
