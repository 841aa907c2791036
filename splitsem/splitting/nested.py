"""nested: the graphs inside a graph that export makes of no_grad, autocast, cond, map and scan."""

import logging
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import fx
from torch._export.passes import replace_autocast_with_hop_pass, replace_set_grad_with_hop_pass
from torch._ops import HigherOrderOperator

from splitsem.errors import ConfigError
from splitsem.splitting.contexts import BRANCHES, LOOPS, PLAIN, Context, attribute, bodies, context_of

log = logging.getLogger(__name__)

Env = dict[fx.Node, Any]

_MARKS = {torch.amp._enter_autocast, torch.amp._exit_autocast, torch._C._set_grad_enabled}
_REMEDIES = {
    "while_loop": "the data say how often it runs, so that its work is unknown; write a Python loop of a fixed length",
    "associative_scan": "write a loop or cumsum instead",
}
_REMEDY = "write this part with plain tensor operations"


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
