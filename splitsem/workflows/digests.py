"""What a run was asked for, as a digest: two runs with the same one give the same results."""

import hashlib
import importlib.util
import json
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from splitsem.workflows.tracking import versions

NO_RESULT = ("tracking", "resume", "plots")
"""Settings that change no result."""
_STDLIB = tuple(
    str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def of_job(cfg: DictConfig, choices: Mapping[str, Any]) -> str:
    """The digest of one job's settings.

    Args:
        cfg: the job's configuration, with or without ``hydra``.
        choices: the options that the groups' settings come from.
    """
    return _digest(_settings(cfg, choices))


def of_run(config: DictConfig) -> str:
    """The digest of a single run's settings, of the code and of the packages."""
    return _digest([_settings(config, config.hydra.runtime.choices), _code(config)])


def of_sweep(config: DictConfig) -> str:
    """The digest of a sweep's command and settings, of the code and of the packages."""
    hydra = config.hydra
    overrides = [line for line in hydra.overrides.task if not line.lstrip("+~").startswith(NO_RESULT)]
    sweeper = OmegaConf.to_container(hydra.sweeper, resolve=False)  # its points are found by the network
    return _digest([_settings(config, hydra.runtime.choices), overrides, sweeper, _code(config)])


def is_repeatable(config: DictConfig) -> bool:
    """Whether the same command makes the same jobs in the same order, so that a job is known by its number."""
    sweeper: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
    if "shuffle" in json.dumps([sweeper, list(config.hydra.overrides.task)]):
        return False
    if "hydra_optuna_sweeper" in sweeper["_target_"]:
        seed = OmegaConf.select(config, "hydra.sweeper.sampler.seed")
        return sweeper["storage"] is None and seed is not None
    return sweeper["_target_"].endswith((".BasicSweeper", ".ListedSweeper"))


def _settings(cfg: DictConfig, choices: Mapping[Any, Any]) -> list[Any]:
    plain = {str(key): _plain(cfg, key) for key in cfg if key not in ("hydra", *NO_RESULT)}
    named = {
        str(group): option for group, option in choices.items() if not str(group).startswith(("hydra", *NO_RESULT))
    }
    return [plain, named]


def _plain(cfg: DictConfig, key: Any) -> Any:
    """One setting without interpolations, unless it needs what a sweep's own configuration lacks and its jobs have."""
    try:
        value = cfg[key]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException:
        return str(cfg._get_node(key))


def _code(config: DictConfig) -> list[Any]:
    """Hashes of splitsem's files and of those of the user's packages that the settings name; versions of the others."""
    hashed = hashlib.sha256()
    for path in sorted({path for name in {"splitsem", "splitsem_device", *_packages(config)} for path in _files(name)}):
        hashed.update(str(path).encode() + b"\0" + path.read_bytes())
    return [hashed.hexdigest(), versions()]


def _packages(node: Any) -> Iterator[str]:
    """The top package of each ``_target_`` below the node."""
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if isinstance(plain, dict):
        if isinstance(target := plain.get("_target_"), str):
            yield target.partition(".")[0]
        plain = list(plain.values())
    if isinstance(plain, list):
        for value in plain:
            yield from _packages(value)


def _files(package: str) -> list[Path]:
    """The Python and C files of a package that is not installed; nothing is imported."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    alone = [Path(spec.origin)] if spec.has_location and spec.origin and not folders else []
    found = [*alone, *(path for folder in folders for ending in ("py", "c") for path in folder.rglob(f"*.{ending}"))]
    return [path for path in found if path.is_file() and not str(path.resolve()).startswith(_STDLIB)]


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:20]
