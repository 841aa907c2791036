"""network: a network as its author wrote it: what it takes and returns, its bare form, and where its own errors are."""

import copy
import inspect
import sysconfig
import types
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from splitsem.errors import ConfigError
from splitsem.trees import by_path, call

MAIN_NAMES = ("out", "logits")  # torchvision's and transformers' names
_LONGEST = 240
_MOST_LISTED = 6
_NOT_THEIRS = ("<", str(Path(torch.__file__).parent), sysconfig.get_path("stdlib"), str(Path(__file__).parent))


@runtime_checkable
class HasPostprocess(Protocol):
    """A network of two parts: one that is cut, and what follows it as it is, wherever the first part ends.

    In eval mode ``forward(x)`` is ``postprocess(network(x))``; in train mode it is ``network(x)``, for the loss.

    Attributes:
        network: the part that is cut; may return any structure of tensors.
        postprocess: takes what ``network`` returns, and returns one tensor with the batch in dimension 0. It may do
            what no graph can hold (non-maximum suppression) and have weights of its own.
    """

    network: nn.Module
    postprocess: nn.Module


def reason(exc: BaseException) -> str:
    """In one line what was raised, and where in the code that splitsem and torch do not bring along."""
    text = str(exc).strip().partition("\n")[0].rstrip(".")[:_LONGEST]
    kind = "" if isinstance(exc, RuntimeError | ValueError | AssertionError) and text else type(exc).__name__
    place = place_of(exc)
    return (": ".join(filter(None, (kind, text)))) + (f" ({place})" if place else "")


def place_of(exc: BaseException) -> str:
    """File and line in a user's code that raised, or called what raised; else in a library's; empty for neither."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{exc.filename}:{exc.lineno}"
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(exc.__traceback__)]
    others = [f"{file}:{line}" for file, line in places if not (file.startswith(_NOT_THEIRS) or "/hydra/" in file)]
    return ([place for place in others if "site-packages" not in place] or others or [""])[-1]


def bare(model: nn.Module) -> nn.Module:
    """The model without what only runs it faster: compilation and replicas, around it and inside.

    Their modules and weights get plain names, and the whole network computes what its halves compute, bit for bit.
    """
    model = without_wrappers(model)
    todo = [model]
    while todo:
        module = todo.pop()
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name, child in module.named_children():
            if without_wrappers(child) is not child:
                setattr(module, name, without_wrappers(child))
        module._compiled_call_impl = None
        for name, value in [("forward", type(module).forward), *vars(module).items()]:
            original = vars(value).get("_torchdynamo_orig_callable") if isinstance(value, types.FunctionType) else None
            if original is not None:
                is_method = name == "forward" and name not in vars(module)
                setattr(module, name, types.MethodType(original, module) if is_method else original)
        todo += module.children()
    return model


def without_wrappers(model: nn.Module) -> nn.Module:
    """The model inside of DataParallel, DistributedDataParallel or torch.compile; the model itself without them.

    Raises:
        ConfigError: a forward hook sits on the wrapper, which would be lost.
    """
    while True:
        inside = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inside = model.module
        if not isinstance(inside, nn.Module):
            return model
        if vars(model).get("_forward_hooks") or vars(model).get("_forward_pre_hooks"):
            raise ConfigError(
                f"a forward hook on {type(model).__name__} is no part of the {type(inside).__name__} inside, which is "
                "what is used; register it on that one"
            )
        model = inside


def check_input(model: nn.Module, name: str) -> None:
    """Raise ConfigError unless ``forward`` can be called with one tensor."""
    try:
        takes = [p for p in inspect.signature(model.forward).parameters.values() if p.kind is not p.VAR_KEYWORD]
    except (TypeError, ValueError):  # written in C++: nothing is known of it
        return
    needed = [p.name for p in takes if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    by_name = [p.name for p in takes if p.kind is p.KEYWORD_ONLY]
    if len(takes) > len(by_name) and len(needed) <= 1 and not set(needed) & set(by_name):
        return
    ones = "x" if len(takes) > len(by_name) else f"{(needed or by_name or ['?'])[0]}=x"
    first = next((p.name for p in takes if p.name not in by_name), None)
    others = [f"{p}=..." for p in needed if p != first and f"{p}=x" != ones]
    call = ", ".join([ones, *others])
    raise ConfigError(
        f"{name}.forward needs {', '.join(needed) or 'no input'}{' by keyword' if ones != 'x' else ''}, but gets one "
        f"tensor, by position; wrap it: class One({_class_name(model)}): "
        f"def forward(self, x): return super().forward({call})"
    )


def main_tensor(value: object, model: nn.Module, name: str) -> Tensor:
    """The one tensor of what a model returned, or the one that is named as the main one.

    Args:
        value: a tensor, or dicts, tuples, lists, named tuples and dataclasses of tensors, nested as they may be.
        model: what returned it.
        name: what a user calls it.

    Raises:
        ConfigError: there is no tensor, or none of several is the main one; the message lists them.
    """
    return by_path(value)[main_path(value, model, name)]


def main_path(value: object, model: nn.Module, name: str) -> str:
    """Where ``main_tensor`` lies: ``['out']``, ``.logits``, ``[0]``; empty for a tensor itself."""
    found = by_path(value)
    if len({id(tensor) for tensor in found.values()}) == 1:
        return next(iter(found))
    for main in MAIN_NAMES:
        for path in (f"['{main}']", f".{main}"):
            if path in found:
                return path
    raise ConfigError(_too_many(found, value, model, name))


def return_one_tensor(model: nn.Module, name: str, x: Any) -> None:
    """Let ``model`` return its main tensor alone, in eval and in train mode: all that uses it sees no other.

    A model may return more in train mode (auxiliary classifiers). There, the main tensor is the one that equals the
    output of eval mode while the layers compute as in eval mode. Where training cannot work, the model's first call in
    train mode raises ConfigError.

    Args:
        model: changed by a forward hook, and only where it returns something else than a tensor.
        name: what a user calls it.
        x: an input, batch first; the trials run on a copy of the model.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            trial = copy.deepcopy(model).eval()
        except (RuntimeError, TypeError):  # it keeps what cannot be copied, so that it cannot be tried unharmed
            return
        with torch.no_grad():
            in_eval = main_path(call(trial, x), model, name)
        in_train, flaw = in_eval, ""
        try:
            in_train = _path_in_training(trial, name, x, in_eval)
        except ConfigError as exc:
            flaw = f"{name} cannot be trained: {exc}"
        except Exception as exc:  # noqa: BLE001 (a model may raise anything)
            flaw = f"{name} works in eval mode, but not in train mode: {reason(exc)}"
            if "nference tensor" in flaw:
                flaw = f"{name} cannot be trained: it uses torch.inference_mode; torch.no_grad does the same and can"
    if flaw:
        model.register_forward_pre_hook(partial(_refuse_training, flaw=flaw))
    if in_eval or in_train:
        model.register_forward_hook(partial(_main_only, in_eval=in_eval, in_train=in_train))


def _path_in_training(trial: nn.Module, name: str, x: Any, in_eval: str) -> str:
    found = by_path(call(trial.train(), x))
    if list(found) == [""]:
        return ""
    for module in trial.modules():
        module.training = next(module.children(), None) is not None  # layers as in eval mode, what holds them not
    with torch.no_grad():
        comparable = call(trial, x)
        y = by_path(call(trial.eval(), x))[in_eval]
    for path, tensor in by_path(comparable).items():
        if path in found and tensor.shape == y.shape and torch.allclose(tensor, y):
            return path
    if len(found) == 1:
        return next(iter(found))
    raise ConfigError(
        f"in train mode it returns {_listed(found) or 'no tensor'}, and none of these is what it returns in eval mode; "
        "let it return that one first in a tuple, or alone"
    )


def _main_only(model: nn.Module, args: Any, output: Any, *, in_eval: str, in_train: str) -> Tensor:
    return by_path(output)[in_train if model.training else in_eval]


def _refuse_training(model: nn.Module, args: Any, *, flaw: str) -> None:
    if model.training:
        raise ConfigError(flaw)


def _too_many(found: Mapping[str, Tensor], value: object, model: nn.Module, name: str) -> str:
    if not found:
        return f"{name} must return one tensor, got {type(value).__name__} without any"
    return (
        f"{name} must return one tensor (or one named 'out' or 'logits'), got {len(found)}: "
        f"{_listed(found)}; choose one: class One({_class_name(model)}): "
        f"def forward(self, x): return super().forward(x){next(iter(found))}"
    )


def _listed(found: Mapping[str, Tensor]) -> str:
    listed = [f"{path} {tuple(map(int, tensor.shape))}" for path, tensor in list(found.items())[:_MOST_LISTED]]
    return ", ".join(listed) + (f" and {len(found) - len(listed)} more" if len(found) > len(listed) else "")


def _class_name(model: nn.Module) -> str:
    return type(model).__name__
