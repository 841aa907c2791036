"""own_model: the model that ``model._target_`` names, a user's own as well: imported, made, in the form to train."""

import importlib
import inspect
import logging
from collections.abc import Callable
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from splitsem import extras
from splitsem.errors import ModelError, SplitSemError
from splitsem.models.capabilities import Frozen
from splitsem.models.checkpoints import load_weights, read_weights
from splitsem.models.image_front import check_output
from splitsem.network import HasPostprocess, bare, reason, return_one_tensor
from splitsem.tasks.task import Task
from splitsem.trees import joined

log = logging.getLogger(__name__)
_NO_OUTPUT_SHAPE = (
    "samples without labels do not say what output_shape is: give it, for a network of 10 classes by "
    "'+model.output_shape=[10]'"
)


def make(cfg: DictConfig, task: Task) -> nn.Module:
    """The untrained model, in float32; the task's ``model_facts`` are given where its constructor names them.

    A setting of the same name counts instead. It returns one tensor, unless the task takes a structure, or
    something follows it that is not cut.

    A checkpoint named by ``weights`` is read by the constructor that names it, for any other one here.

    Raises:
        ConfigError: the class cannot be imported or made, is no model, or does not fit the shapes; or the checkpoint
            cannot be read or is of another network.
    """
    if OmegaConf.is_missing(cfg, "_target_"):
        raise ModelError("model=custom needs the class of your model: model._target_=my_module.Net")
    name = str(cfg["_target_"])
    parameters = _parameters(find(name))
    named = {fact: value for fact, value in task.model_facts().items() if fact in parameters and fact not in cfg}
    path = None if "weights" in parameters else cfg.get("weights")
    settings = cfg if "weights" in parameters else {key: cfg[key] for key in cfg if key != "weights"}
    try:
        model = instantiate(settings, **named, _convert_="all")
    except InstantiationException as exc:
        why = _why_not_made(name, exc.__cause__ or exc, parameters)
        if named.get("output_shape") == () and not isinstance(exc.__cause__, SplitSemError):
            why = ModelError(f"{why}; {_NO_OUTPUT_SHAPE}")
        raise why from exc
    if not isinstance(model, nn.Module):
        raise ModelError(f"{name} makes a {type(model).__name__}; a model must be a torch.nn.Module")
    model = _in_float32(bare(model), name)
    outputs = named.get("num_classes") or (task.output_shape[0] if task.output_shape else 0)
    if path is not None:
        load_weights(model, read_weights(path), int(outputs), path)
    check_output(model, name, task.example(), task.output_shape)
    if task.output_shape and not isinstance(model, HasPostprocess):
        return_one_tensor(model, name, joined([task.example()] * 2))
    return model


def check_learns(model: nn.Module) -> None:
    """Raise ModelError where a model cannot learn."""
    if isinstance(model, Frozen):
        raise ModelError(
            f"this workflow or codec learns through the network, and {model.why_frozen}: take workflow=split with a "
            "codec that is not learned, e.g. codec=quant8, or the network that the file was made from"
        )


def find(target: str, where: str = "model") -> Callable[..., Any]:
    """What ``<where>._target_`` names. Raises ModelError, with file and line where a user's module fails."""
    parts = target.split(".")
    if len(parts) < 2 or not all(parts):
        raise ModelError(f"{where}._target_ must be module.Class, e.g. my_module.Net, got {target!r}")
    found: Any = None
    for length in range(len(parts) - 1, 0, -1):
        found = _imported(".".join(parts[:length]), f"{where}._target_={target}")
        if found is not None:
            break
    else:
        asked = f"{where}._target_={target}"
        raise ModelError(
            extras.line_of(ModuleNotFoundError(name=parts[0]), asked)
            or f"{asked}: there is no module {parts[0]}; add its folder to PYTHONPATH, or mend the name"
        )
    for part in parts[length:]:
        if not hasattr(found, part):
            raise ModelError(f"{where}._target_={target}: {_called(found)} has no {part}{_likely(found, part)}")
        found = getattr(found, part)
    if not callable(found):
        raise ModelError(f"{where}._target_={target} is a {type(found).__name__}; give a class{_likely(found, '')}")
    constructor: Callable[..., Any] = found
    return constructor


def _imported(path: str, asked: str) -> ModuleType | None:
    """The module; None where there is none of this name."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as exc:
        if exc.name and f"{path}.".startswith(f"{exc.name}."):
            return None
        line = extras.line_of(exc, asked) or f"{asked}: {path} cannot be imported: {reason(exc)}"
        raise ModelError(line) from exc
    except (Exception, SystemExit) as exc:  # a user's module may raise anything
        raise ModelError(f"{asked}: {path} cannot be imported: {reason(exc)}") from exc


def _likely(found: Any, part: str) -> str:
    """Its names that may have been meant."""
    held = getattr(found, "__dict__", {})
    classes = [name for name, value in held.items() if inspect.isclass(value) and not name.startswith("_")]
    close = get_close_matches(part, classes, n=1) or [one for one in classes if issubclass(held[one], nn.Module)][:3]
    return f"; did you mean {', '.join(close)}?" if close else ""


def _called(found: Any) -> str:
    return str(getattr(found, "__name__", type(found).__name__))


def _parameters(constructor: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(constructor).parameters)
    except (TypeError, ValueError):  # written in C
        return []


def _why_not_made(name: str, exc: BaseException, parameters: list[str]) -> SplitSemError:
    if isinstance(exc, SplitSemError):
        return exc
    if (line := extras.line_of(exc, name)) is not None:
        return ModelError(line)
    if isinstance(exc, TypeError):
        return ModelError(f"{name} cannot be made: {reason(exc)}; it takes {', '.join(parameters) or 'no arguments'}")
    if "only classifies" in str(exc):
        other = "; choose another network, e.g. model=unet (segmentation) or model=lstm (series)"
        return ModelError(f"{exc}{other}")
    return ModelError(
        str(exc)
        if type(exc) is ValueError and name.startswith("splitsem.")
        else f"{name} cannot be made: {reason(exc)}"
    )


def _in_float32(model: nn.Module, name: str) -> nn.Module:
    """Networks train in float32; what they run in is ``device.precision``."""
    others = {tensor.dtype for tensor in [*model.parameters(), *model.buffers()] if tensor.is_floating_point()}
    if others - {torch.float32}:
        kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in others - {torch.float32}))
        log.info("%s has weights in %s; they become float32, and run in device.precision", name, kinds)
        model.float()
    return model
