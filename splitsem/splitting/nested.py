"""nested: the graphs inside a graph that export makes of no_grad, autocast, cond, map and scan."""

import logging
import operator
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn
from torch._export.passes import replace_autocast_with_hop_pass, replace_set_grad_with_hop_pass
from torch._ops import HigherOrderOperator

from splitsem.errors import ConfigError

log = logging.getLogger(__name__)

AutocastState = tuple[str, torch.dtype | None, bool]
Env = dict[fx.Node, Any]

BRANCHES, LOOPS = {"cond", "switch"}, {"map_impl", "scan"}
_MARKS = {torch.amp._enter_autocast, torch.amp._exit_autocast, torch._C._set_grad_enabled}
_DETACH = {torch.ops.aten.detach.default, torch.ops.aten.detach_.default}
_REMEDIES = {
    "while_loop": "the data say how often it runs, so that its work is unknown; write a Python loop of a fixed length",
    "associative_scan": "write a loop or cumsum instead",
}
_REMEDY = "write this part with plain tensor operations"


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


@contextmanager
def contexts_as_marks() -> Iterator[None]:
    """Let torch.export leave no_grad and autocast as marks in the one graph, and take inference_mode for no_grad.

    Its own way is a graph inside the graph for each, which loses no_grad under autocast and around branches. It cannot
    trace the tensors of inference_mode further; they hold the same numbers, and are not to learn either.
    """

    def enter(mode: torch.inference_mode) -> None:
        mode._inference_mode_context = torch.set_grad_enabled(not mode.mode)  # type: ignore[assignment]

    def as_they_are(module: fx.GraphModule, signature: Any) -> tuple[fx.GraphModule, Any]:
        return module, signature

    with (
        patch.object(torch.inference_mode, "__enter__", enter),
        patch.object(replace_set_grad_with_hop_pass, "replace_set_grad_with_hop_pass", as_they_are),
        patch.object(replace_autocast_with_hop_pass, "replace_autocast_with_hop_pass", as_they_are),
    ):
        yield


def lay_open(module: fx.GraphModule, model: str) -> None:
    """Give each operation its ``Context`` in place of marks, and put graphs that are only called into the graph itself.

    Branches and loops stay one operation each.

    Raises:
        ConfigError: the graph holds something whose work cannot be known, or that cannot run outside of it.
    """
    if any(node.target in _MARKS or isinstance(node.target, HigherOrderOperator) for node in module.graph.nodes):
        graph = fx.Graph()
        graph.output(_copy(module, module.graph, graph, {}, "", PLAIN))
        module.graph = graph
    counted: set[str] = set()
    if flaw := _flaw(module.graph, counted):
        raise ConfigError(f"{model} cannot be split: it uses {flaw}")
    for construct in counted:
        how = "its most expensive branch" if construct in BRANCHES else "its body, once for each element"
        log.info("%s: %s counts as %s, and is one operation: no cut is offered inside", model, construct, how)


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


def _copy(root: fx.GraphModule, source: fx.Graph, graph: fx.Graph, env: Env, prefix: str, context: Context) -> Any:
    """Copy ``source`` to the end of ``graph``; returns what it returns."""
    for node in source.nodes:
        if node.op == "output":
            return fx.map_arg(node.args[0], env.__getitem__)
        if node in env:  # a placeholder of a nested graph
            continue
        if node.target in _MARKS:
            context = _marked(node, context)
        elif _name(node) == "invoke_subgraph":
            env[node] = _call(root, node, graph, env, prefix, context)
        elif node.target is operator.getitem and isinstance(env[node.args[0]], list | tuple):
            env[node] = env[node.args[0]][node.args[1]]
        else:
            env[node] = graph.node_copy(node, env.__getitem__)
            if node.op == "get_attr":
                env[node].target = f"{prefix}{node.target}"
            elif context != PLAIN:
                env[node].meta["context"] = context
    raise AssertionError("a graph ends with its output")


def _marked(mark: fx.Node, context: Context) -> Context:
    """The context after a mark."""
    if mark.target is torch._C._set_grad_enabled:
        return replace(context, no_grad=not mark.args[0])
    if mark.target is torch.amp._exit_autocast:
        return replace(context, autocast=context.autocast[:-1])
    device_type, dtype, enabled, *_ = mark.args
    return replace(context, autocast=(*context.autocast, (device_type, dtype, enabled)))  # type: ignore[arg-type]


def _call(root: fx.GraphModule, node: fx.Node, graph: fx.Graph, env: Env, prefix: str, context: Context) -> Any:
    """What a called graph returns (``torch.compiler.nested_compile_region``), its operations laid open."""
    called, _, *operands = node.args
    path = f"{prefix}{called.target}"  # type: ignore[union-attr]
    body: fx.GraphModule = attribute(root, path)
    takes = [n for n in body.graph.nodes if n.op == "placeholder"]
    given = [fx.map_arg(value, env.__getitem__) for value in operands]
    return _copy(root, body.graph, graph, dict(zip(takes, given, strict=True)), f"{path}.", context)


def _name(node: fx.Node) -> str:
    return node.target.name() if isinstance(node.target, HigherOrderOperator) else ""


def _flaw(graph: fx.Graph, counted: set[str]) -> str:
    """What cannot be counted or run, in nested graphs too, and the remedy; adds branches and loops to ``counted``."""
    for node in graph.nodes:
        construct = _name(node)
        if construct in BRANCHES | LOOPS and context_of(node).autocast:
            return (
                "a branch or loop under torch.autocast, which rounds differently in a graph; put autocast into its "
                "functions, or leave it out"
            )
        if getattr(node.target, "__module__", None) == "torch._functorch.predispatch":
            construct = "torch.vmap, or another transform of torch.func"
        if construct in BRANCHES | LOOPS:
            counted.add(construct)
        elif construct:
            return f"{construct}; {_REMEDIES.get(construct, _REMEDY)}"
        if flaw := next(filter(None, (_flaw(body, counted) for body in bodies(node))), ""):
            return flaw
    return ""
