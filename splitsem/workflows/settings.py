"""The settings of a job, checked before anything is loaded or trained.

Where a setting goes to a constructor, the constructor's annotations say which values it may have; ``RULES`` says it for
those that workflows read themselves. What only a constructor knows (``ber`` or ``ebn0_db``) it says when it is called.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from msgspec import Meta
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from splitsem.codecs.codec import has_base
from splitsem.errors import SettingError
from splitsem.likeness import likeness
from splitsem.report.figure_choice import Format, StyleName
from splitsem.workflows import unread
from splitsem.workflows.mistakes import must_be_given, short, told
from splitsem.workflows.own_model import find

Count = Annotated[int, Meta(ge=1)]
Whole = Annotated[int, Meta(ge=0)]
Amount = Annotated[float, Meta(ge=0)]
Above = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]
Seed = Annotated[int, Meta(ge=0, lt=2**32)]

_NAME = r"^[A-Za-z0-9_-]+$"

RULES: dict[str, Any] = {
    "seed": Seed,
    "cache_dir": str,
    "resume": bool,
    "folder": str,
    "folders": list[str],
    "plots.style": StyleName,
    "plots.formats": list[Format],
    "split.point": str | int | None,
    "split.index": Whole | None,
    "split.granularity": Literal["layer", "op"],
    "answer.raw": bool,
    "answer.at": Literal["edge", "server"],
    "hardware.chain": list[str] | None,
    "hardware.links": list[str] | None,
    "hardware.save": Annotated[str, Meta(pattern=_NAME)] | None,
    "workflow._target_": str,
    "workflow.summary": str | None,
    "workflow.objective": list[str],
    "workflow.num_samples": Count | None,
    "workflow.channel_seeds": Count,
    "workflow.sensitivity": bool,
    "workflow.features_mb": Whole,
    "workflow.keep_references": bool,
    "workflow.gallery": Whole,
    "workflow.over": dict[str, Any] | None,
    "workflow.margin": Amount | None,
    "workflow.calibration_samples": Count,
    "workflow.formats": list[Literal["float32", "int8", "float16", "pt2"]],
    "workflow.whole": bool,
    "workflow.kept_samples": Count,
    "workflow.archive": Literal["zip", "folder"],
    "workflow.licence": str | None,
    "workflow.bundle": str | None,
    "workflow.host": str | None,
    "workflow.wheel": str | None,
    "workflow.wheels": str | None,
    "workflow.head": Literal["float32", "int8", "float16"],
    "workflow.source": str,
    "workflow.frames": Count | None,
    "workflow.threads": Count,
    "workflow.on_loss": Literal["stop", "buffer", "fallback"],
    "workflow.buffer": Count,
    "workflow.profile": bool,
    "workflow.exact": bool,
    "workflow.quiet": bool,
    "workflow.num_rtts": Count,
    "workflow.pause_s": Amount,
    "workflow.enough_s": Above,
    "workflow.most_bytes": Count,
    "workflow.num_transfers": Count,
    "workflow.num_frames": Count,
    "workflow.num_loss_packets": Count,
    "workflow.loss_rate_share": Share,
    "workflow.num_probes": Count,
    "workflow.num_timed": Count,
    "workflow.num_paced": Count,
    "workflow.answers": str | None,
    "workflow.is_tracked": bool,
    "workflow.fallback": Literal["local"] | None,
    "workflow.energy_j_per_bit": Amount,
    "workflow.points": list[str] | None,
    "workflow.num_adaptive": Count | None,
    "workflow.period_s": Amount,
    "workflow.budget_s": Above,
    "workflow.grace_s": Amount,
    "workflow.micro_batch": Count,
    "workflow.forward": str | None,
    "workflow.onward": list[tuple[str, str]],
    "workflow.training": bool,
    "workflow.metrics_bind": str | None,
    "workflow.metrics_insecure": bool,
    "workflow.own_server": bool,
    "workflow.tuning.max_epochs": Count,
    "workflow.tuning.learning_rate": Above,
    "workflow.mode": Literal["pseudo", "real"],
    "workflow.steps": list[Literal["train", "importance", "lut", "rates", "throughput", "joint", "deploy", "plots"]],
    "workflow.epsilon": Amount,
    "workflow.confidence": Annotated[float, Meta(gt=0, lt=1)],
    "workflow.edge_slowdown": Above,
    "workflow.edge_lut": str | None,
    "workflow.server_lut": str | None,
    "workflow.codecs": list[str | dict[str, Any]],
    "workflow.least": Literal["value", "damage"],
    "workflow.most_latency_s": Above | None,
    "workflow.least_rate_hz": Above | None,
    "workflow.screening_samples": Count | None,
    "workflow.against": str | list[str] | None,
    "workflow.cuts": Literal["points", "anywhere"],
    "workflow.times": Literal["measured", "hardware"],
    "workflow.half_s": Above,
    "workflow.layers_s": Above,
    "workflow.probe_s": Amount,
    "workflow.num_best": Count,
    "workflow.max_rounds": Count,
    "workflow.server_prefix": list[str],
    "workflow.edge_prefix": list[str],
    "workflow.trains_split": str | int | None,
    "workflow.num_repeats": Count,
    "workflow.calibrated": bool,
    "workflow.undisturbed": bool,
    "workflow.rates_s": Above,
    "workflow.file": str | None,
    "workflow.networks": list[str] | None,
    "workflow.limit_s": Above,
    "federated.num_clients": Count,
    "federated.client_processes": Count,
    "federated.fraction": Share,
    "federated.min_clients": Count,
    "federated.rounds": Count,
    "federated.local_epochs": Count,
    "federated.last_learning_rate": Share,
    "federated.error_feedback": bool,
    "federated.warm_up_rounds": Whole,
    "federated.block_values": Count,
    "federated.statistics": Literal["shared", "local"],
    "federated.client_timeout_s": Above | None,
    "federated.checkpoint": bool,
    "federated.resume": str | None,
    "federated.max_norm_ratio": Annotated[float, Meta(ge=1)] | None,
    "federated.max_examples": Count | None,
    "federated.superlink": str | None,
    "federated.connect_timeout_s": Above,
    "federated.tail": Literal["averaged", "in_turn"],
}
"""What settings without a constructor may be. Those of a workflow hold for the workflows of splitsem."""

_WITH_EXIT = tuple(f"splitsem.workflows.{name}.run" for name in ("split", "offload"))
_HYDRAS = ("_target_", "_args_", "_convert_", "_partial_", "_recursive_")
_LATER = ("workflow", "model", "tracking")
"""What is not made to see whether it can be: what runs itself, is large, or has effects."""


def check(cfg: DictConfig) -> None:
    """Refuse wrong types, infinite numbers, unknown names and missing values; then what constructors refuse.

    Raises:
        SettingError: one line that names the setting, says what it may be, and what it is.
    """
    target = str(OmegaConf.select(cfg, "workflow._target_"))
    name = _check_given(cfg) or target
    if OmegaConf.select(cfg, "hardware.chain") is not None and ".joint." not in target:
        raise SettingError(
            f"hardware.chain is what workflow=joint chooses for, and {name} has two machines; a choice runs by "
            "workflow=serve workflow.forward= and workflow=offload workflow.onward="
        )
    if (saved := OmegaConf.select(cfg, "hardware.save")) is not None and ".profile." not in target:
        raise SettingError(
            f"hardware.save={saved} is what workflow=profile writes; {name} uses it: "
            f"hardware/machine@hardware.edge={saved}"
        )
    if OmegaConf.select(cfg, "exit._target_") is not None and target not in _WITH_EXIT:
        raise SettingError(
            f"exit=confidence is for workflow=split and workflow=offload, and {name} knows no exit: give exit=none"
        )
    nodes = [*_nodes(cfg)]
    named = dict(nodes)
    is_own = not str(OmegaConf.select(cfg, "workflow._target_")).startswith("splitsem.")
    for where, rule in RULES.items():
        parent, _, setting = where.rpartition(".")
        if setting in named.get(parent, ()) and not (is_own and parent.startswith("workflow")):
            check_value(where, _plain(named[parent], setting), rule)
    for where, node in nodes:
        if "_target_" in node and where != "workflow":  # a workflow's function reads its settings itself
            _check_names(where, node)
        for key in node:
            _check_finite(f"{where}.{key!s}".lstrip("."), _plain(node, key))
    outer = [f"{where}." for where, node in nodes if "_target_" in node and where != "workflow"]
    for where, node in nodes:
        if "_target_" in node and where not in _LATER and not where.startswith(tuple(outer)):
            _check_made(where, node)


def _check_given(cfg: DictConfig) -> str | None:
    """Check the command line against what is read; returns ``workflow=NAME``, None outside of a run of Hydra's."""
    if not HydraConfig.initialized():
        return None
    given = HydraConfig.get()
    unread.check(cfg, given.overrides.task, given.runtime.choices)
    unread.check_files(source.path for source in given.runtime.config_sources if source.schema == "file")
    option = given.runtime.choices.get("workflow")
    return f"workflow={option}" if option else None


def _nodes(cfg: DictConfig, where: str = "") -> Iterator[tuple[str, DictConfig]]:
    """All mappings of a configuration, with their dotted names; a reference once for each value of its ``quality``."""
    if where.startswith("references.") and isinstance(qualities := cfg.get("quality"), ListConfig):
        yield from ((where, DictConfig({**cfg, "quality": quality})) for quality in qualities)
        return
    yield where, cfg
    for name in cfg:
        if not OmegaConf.is_missing(cfg, name) and isinstance(node := cfg[name], DictConfig):
            yield from _nodes(node, f"{where}.{name!s}".lstrip("."))


def _plain(node: DictConfig, name: Any) -> Any:
    if OmegaConf.is_missing(node, name):
        return "???"
    value = node[name]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _check_names(where: str, node: DictConfig) -> None:
    """Check names and types of what goes to a constructor against its signature."""
    target = str(_plain(node, "_target_"))
    if target == "???":
        raise SettingError(f"{where}._target_ must be given: {where}._target_=my_module.MyClass")
    made = find(target, where)
    parameters = inspect.signature(made).parameters
    is_open = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    hints = _hints(made)
    if "_partial_" in node:
        check_value(f"{where}._partial_", _plain(node, "_partial_"), bool)
    for name in (str(each) for each in node if each not in _HYDRAS):
        value = _plain(node, name)
        if name not in parameters and not is_open and (where, name) != ("model", "weights"):  # own_model reads those
            remedy = "" if _is_added(f"{where}.{name}") else f"; '~{where}.{name}' takes it out"
            raise SettingError(f"{where} ({target}) has no setting {name}: {likeness(name, parameters)}{remedy}")
        if value == "???":
            raise SettingError(must_be_given(f"{where}.{name}"))
        if name in hints and name in parameters:
            check_value(_given_as(node, name, f"{where}.{name}"), value, hints[name])


def _is_added(where: str) -> bool:
    """Whether a setting is on the command line, and not in the file of an option whose class was changed."""
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    return any(entry.lstrip("+").partition("=")[0] == where for entry in given)


def _given_as(node: DictConfig, name: str, where: str) -> str:
    """The setting whose value this one takes over, ``${transport.bandwidth_bps}``; itself where it has its own."""
    raw = str(OmegaConf.to_container(node, resolve=False)[name]) if OmegaConf.is_interpolation(node, name) else ""  # type: ignore[index, call-overload]
    source = re.fullmatch(r"\$\{(?:oc\.select:)?([a-z][\w.]+)(?:,\w+)?\}", raw)
    return where if source is None else source[1]


def _check_made(where: str, node: DictConfig) -> None:
    """Make an object to see whether its constructor takes the values; not where a workflow adds some that it needs."""
    needed = inspect.signature(find(str(node["_target_"]), where)).parameters.values()
    if node.get("_partial_") or any(each.default is each.empty and each.name not in node for each in needed):
        return
    if where == "trainer" and isinstance(node.get("gradient_codec"), str):  # an option's name, which assemble looks up
        node = DictConfig({**node, "gradient_codec": None})
    try:
        made = instantiate(node)
    except InstantiationException as exc:
        said = told(exc)
        if said is None:
            raise
        raise SettingError(said) from exc
    if isinstance(made, nn.Module) and not has_base(made):
        raise SettingError(f"{where}: the __init__ of {node['_target_']} must call super().__init__() before all else")


def _hints(made: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of what is called; none where they cannot be read."""
    try:
        return get_type_hints(made.__init__ if inspect.isclass(made) else made, include_extras=True)
    except (NameError, TypeError):  # names that only a type checker imports; what is no function
        return {}


def check_value(where: str, value: Any, rule: Any) -> None:
    """Raise SettingError where a plain value is not of this type."""
    rule = _checkable(rule)
    try:
        msgspec.convert(value, rule)
    except msgspec.ValidationError:
        raise SettingError(f"{where} must be {in_words(rule)}, got {short(repr(value))}") from None


def _check_finite(where: str, value: Any) -> None:
    if isinstance(value, float) and not isfinite(value):
        raise SettingError(f"{where} must be a finite number, got {value}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise SettingError(f"{where} must be below 2^63, got {short(value)}")
    if isinstance(value, list):
        for inner in value:
            _check_finite(where, inner)


def _checkable(annotation: Any) -> Any:
    """The annotation as far as plain values can break it; ``Any`` for the rest, such as objects."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (int, float, str, bool, NoneType, None) or origin in (Literal, Annotated):
        return annotation
    if origin in (Union, UnionType):
        parts = [_checkable(each) for each in arguments]
        return Any if Any in parts else Union[tuple(parts)]  # noqa: UP007 (made here, not written)
    if origin is tuple and Ellipsis not in arguments:
        return tuple[tuple(_checkable(each) for each in arguments)]  # type: ignore[misc]
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return dict[str, Any]
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return list[_checkable(arguments[0])]  # type: ignore[misc]
    return Any


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null", None: "null"}
_PATTERNS = {_NAME: "letters, digits, - and _"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def in_words(rule: Any) -> str:
    """What a value may be.

    >>> in_words(Annotated[int, Meta(ge=1)] | None)
    'a whole number of at least 1, or null'
    """
    origin, arguments = get_origin(rule), get_args(rule)
    if rule in _WORDS:
        return _WORDS[rule]
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is Annotated:
        bounds = [
            f"{word} {getattr(arguments[1], name)}"
            for name, word in _BOUNDS.items()
            if getattr(arguments[1], name) is not None
        ]
        if arguments[1].pattern:
            bounds.append(_PATTERNS.get(arguments[1].pattern, arguments[1].pattern))
        return f"{in_words(arguments[0])} of {' and '.join(bounds)}"
    if origin in (Union, UnionType):
        return ", or ".join(dict.fromkeys(in_words(each) for each in arguments))
    if origin is list:
        return "a list" if arguments[0] is Any else f"a list, each {in_words(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}, in order: {'; '.join(in_words(each) for each in arguments)}"
    return "names with values" if origin is dict else "something else"
