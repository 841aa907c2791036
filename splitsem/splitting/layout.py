"""Layout: the memory order of a tensor in the uncut network, for tensors that arrive as bytes and have lost it."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator

from splitsem.splitting.captured import Traced, traced
from splitsem.splitting.contexts import PLAIN, context_of, within

Strides = tuple[tuple[int, ...], tuple[int, ...]]  # a shape, and the strides that it has


class Layout(NamedTuple):
    """The memory order of one crossing tensor.

    Attributes:
        order: its dimensions, the outermost in memory first; None for the usual order.
        one: shape and strides of one sample, whose order may be another, and where strides of dimensions of size 1 tell
            kernels something, too; None where they are not known.
    """

    order: tuple[int, ...] | None
    one: Strides | None

    @classmethod
    def of(cls, node: fx.Node, strides_of_one: Mapping[fx.Node, Strides]) -> Self:
        """The order of what a captured node makes, for several samples and, where it is known, for one."""
        value: Traced = traced(node)
        strides = value.strides_of_two
        outermost = sorted(range(len(strides)), key=lambda dim: -strides[dim])
        order = None if 0 in strides or outermost == sorted(outermost) else tuple(outermost)
        one = strides_of_one.get(node)
        return cls(order, None if one is None or 0 in one[1] else one)

    def restored(self, z: Tensor) -> Tensor:
        """The tensor, which may lie in any order, in this one."""
        if self.one is not None and tuple(z.shape) == self.one[0]:
            if z.stride() == self.one[1]:
                return z
            return torch.empty_strided(*self.one, dtype=z.dtype, device=z.device).copy_(z)
        if self.order is None:
            return z
        return z.permute(self.order).contiguous().permute([self.order.index(dim) for dim in range(len(self.order))])


class Trial(fx.Interpreter):
    """Runs a captured graph as its halves do, and keeps the shape and the strides of every tensor."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.found: dict[fx.Node, Strides] = {}

    def run_node(self, n: fx.Node) -> Any:
        """See fx.Interpreter."""
        value = self._run_operation(n) if n.op == "call_function" else super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = tuple(value.shape), value.stride()
        return value

    def _run_operation(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        context, target = context_of(n), n.meta.get("in_place", n.target)  # see ``capture.make_functional``
        if context == PLAIN or not isinstance(target, torch._ops.OpOverload | HigherOrderOperator):
            return target(*args, **kwargs)
        op = target.name() if isinstance(target, HigherOrderOperator) else target
        return within(op, context.no_grad, context.autocast, *args, **kwargs)
