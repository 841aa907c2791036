"""Codecs as the configuration names them: an option's settings, whether it has weights to learn, built for a tensor."""

import inspect
from collections.abc import Sequence
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from splitsem.codecs.codec import Codec
from splitsem.errors import ConfigError
from splitsem.tasks.classification import ClassificationTask
from splitsem.tasks.task import Task
from splitsem.workflows.mistakes import no_such, short
from splitsem.workflows.renamed import new_option


def codec_option(name: str, where: str) -> dict[str, Any]:
    """The settings of an option of the group ``codec``.

    Raises ConfigError when there is none of this name; ``where`` says who asked.
    """
    if new := new_option("codec", name):
        raise ConfigError(f"{where}: codec={name} is no more: give {new}")
    try:
        settings = OmegaConf.to_container(compose(f"codec/{name}").codec, resolve=True)
    except HydraException as exc:
        raise ConfigError(f"{short(where)}: no such codec; {no_such('codec', name)}") from exc
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


def build_codec(cfg: DictConfig, tensor_shape: Sequence[int], task: Task | None = None) -> Codec:
    """The untrained codec; ``tensor_shape`` and ``num_classes`` are given to a constructor that names them.

    Raises ConfigError when the codec is for classification and the task is another.
    """
    named = inspect.signature(get_object(cfg.codec["_target_"])).parameters
    facts: dict[str, Any] = {"tensor_shape": tuple(tensor_shape)} if "tensor_shape" in named else {}
    if "num_classes" in named:
        task = task or instantiate(cfg.task)
        if not isinstance(task, ClassificationTask):
            name = cfg.codec["_target_"].rpartition(".")[2]
            raise ConfigError(f"{name} adds up the logits of classes, but {type(task).__name__} is no classification")
        facts["num_classes"] = len(task.class_names)
    codec: Codec = instantiate(cfg.codec, **facts, _convert_="all")
    return codec


def check_not_learned(cfg: DictConfig) -> None:
    """Raise ConfigError where the network is to be tuned through a codec, and the codec has weights of its own."""
    if is_learned(cfg):
        raise ConfigError(
            f"{cfg.workflow['_target_']} tunes the network through a codec without weights, e.g. codec=quant4; "
            "a learned codec is trained by workflow=codec"
        )


def is_learned(cfg: DictConfig) -> bool:
    """Whether the configured codec has weights that are trained for one cut."""
    return bool(getattr(get_object(cfg.codec["_target_"]), "is_learned", False))


def is_for_one_cut(target: str) -> bool:
    """Whether the constructor of the codec ``target`` asks for the shape of the one tensor that crosses at a cut."""
    return "tensor_shape" in inspect.signature(get_object(target)).parameters
