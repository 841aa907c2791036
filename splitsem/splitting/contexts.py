"""contexts: what a model's code had switched on around an operation, and the graphs that an operation holds."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator

AutocastState = tuple[str, torch.dtype | None, bool]

BRANCHES, LOOPS = {"cond", "switch"}, {"map_impl", "scan"}
_DETACH = {torch.ops.aten.detach.default, torch.ops.aten.detach_.default}


@dataclass(frozen=True)
class Context:
    """What the model's code had switched on around an operation.

    Attributes:
        no_grad: gradients were off: neither the weights nor what comes before learns through this operation.
        autocast: the states of autocast, the outermost first: kind of device, dtype, enabled.
    """

    no_grad: bool = False
    autocast: tuple[AutocastState, ...] = ()


PLAIN = Context()


def context_of(node: fx.Node) -> Context:
    """The context in which the model ran this operation."""
    context: Context = node.meta.get("context", PLAIN)
    return context


def put_within(node: fx.Node, context: Context) -> None:
    """Let ``node`` run in this context, as the model's own code does: the graph itself has no casts, for example."""
    if context != PLAIN and isinstance(node.target, torch._ops.OpOverload | HigherOrderOperator):
        op = node.target if isinstance(node.target, torch._ops.OpOverload) else node.target.name()
        node.args, node.target = (op, context.no_grad, context.autocast, *node.args), within


def within(op: Any, no_grad: bool, autocast: tuple[AutocastState, ...], *args: Any, **kwargs: Any) -> Any:
    """Run one operation, or a branch or loop of this name, without gradients or under autocast."""
    run = getattr(torch.ops.higher_order, op) if isinstance(op, str) else op
    with ExitStack() as stack:
        if no_grad:
            stack.enter_context(torch.no_grad())
        for device_type, dtype, enabled in autocast:
            stack.enter_context(torch.autocast(device_type, dtype, enabled))
        return run(*args, **kwargs)


def operation(node: fx.Node) -> Any:
    """What the node runs, in whatever context."""
    return node.args[0] if node.target is within else node.target


def ends_gradient(node: fx.Node) -> bool:
    """Whether no gradient comes from the node's result to its inputs."""
    return operation(node) in _DETACH or (node.target is within and bool(node.args[1]))


def settled(weight: Tensor) -> Tensor:
    """A weight that does not learn. Without gradients it stays as it is: kernels are chosen by ``requires_grad``."""
    return weight.detach() if torch.is_grad_enabled() else weight


def bodies(node: fx.Node) -> list[fx.Graph]:
    """The graphs that a branch, a loop or a call holds."""
    module = node.graph.owning_module
    assert module is not None
    held = [attribute(module, str(n.target)) for n in node.all_input_nodes if n.op == "get_attr"]
    return [part.graph for part in held if isinstance(part, fx.GraphModule)]


def attribute(module: nn.Module, path: str) -> Any:
    """The weight or the nested graph that a node of kind ``get_attr`` stands for."""
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value
