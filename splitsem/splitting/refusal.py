"""refusal: why a model cannot be made a graph, in one line of plain words, without the dumps that torch prints."""

import io
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from unittest.mock import patch

import torch
from torch import nn

from splitsem.network import place_of, reason

_LOUD = ("torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor", "torch.export._trace")


def refused_run(exc: BaseException, model: nn.Module, sizes: str) -> str:
    """Why a model does not run on an example of these sizes, and where."""
    return f"{type(model).__name__} cannot be split: it does not run on an input of {sizes}: {reason(exc)}"


def why_free_fails(exc: Exception) -> str:
    """Why the batch size of a model is not free."""
    if _fixes_batch(exc):
        return "the network fixes its batch size (a number where x.shape[0] or -1 would do, or a loop over the samples)"
    return f"torch.export leaves no batch size free: {reason(exc)}"


def _fixes_batch(exc: Exception) -> bool:
    from torch._dynamo.exc import UserError  # a second, which only an export takes

    return isinstance(exc, UserError) and "onstraints violated" in str(exc)


def refusal(exc: Exception, model: nn.Module, sizes: str) -> str:
    """What is wrong with a model that export refused on an example of these sizes, where, and what to do."""
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    name, place = type(model).__name__, place_of(exc)
    at = f" at {place}" if place else ""
    scripted = [path for path, part in model.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    if scripted:
        what = f"its part {scripted[0]}" if scripted[0] else "it"
        return f"{name} cannot be split: {what} is TorchScript; give the nn.Module that it was made from"
    if isinstance(exc, GuardOnDataDependentSymNode):
        return (
            f"{name} cannot be split: it decides by values of tensors, its input's or its weights'{at}, so that it is "
            "no fixed graph; compute both ways and choose by torch.where, or use torch.cond; what float() or item() "
            "takes out of weights, keep as a tensor"
        )
    if _fixes_batch(exc):
        return (
            f"{name} cannot be split: it fixes its batch size; write x.shape[0] or -1 where it writes a number, and no "
            "loop over the samples of a batch"
        )
    if "higher order operator" in str(exc):
        return (
            f"{name} cannot be split: torch.export cannot trace its branch or loop{at}; what it calls must return new "
            "tensors and change none, and batch normalisation in train mode changes its statistics"
        )
    return f"{name} cannot be split: torch.export failed on an input of {sizes}: {reason(exc)}"


@contextmanager
def without_dumps() -> Iterator[None]:
    """Keep torch from printing whole graphs and its own tracebacks when an export fails; the exception says enough."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stderr(io.StringIO()))
        for name in _LOUD:
            stack.enter_context(patch.object(logging.getLogger(name), "disabled", True))
        yield
