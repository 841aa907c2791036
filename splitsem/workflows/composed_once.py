"""Each job of a sweep is composed once, and few from the files: Hydra composes all of them to check them, then each
again to run it, and reads and merges thirty files for each.
"""

import copy
from collections.abc import Callable, Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

_HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # others compose in the processes of the jobs
_compose, _check = ConfigLoaderImpl.load_sweep_config, Sweeper.validate_batch_is_legal


def compose_once(config: DictConfig) -> None:
    """Have jobs take the configuration that was composed for the check, where they run in this process.

    Jobs that differ in plain values alone (``split.point=enc1``) share what was composed of the files.

    Args:
        config: the sweep's.
    """
    if config.hydra.launcher["_target_"] != _HERE:
        _compose_by(_compose, _check)
        return
    checked: dict[tuple[str, ...], DictConfig] = {}
    composed: dict[tuple[str, ...], DictConfig] = {}
    is_checking = False

    def check(sweeper: Sweeper, batch: Sequence[Sequence[str]]) -> None:
        nonlocal is_checking
        is_checking = True
        try:
            _check(sweeper, batch)
        finally:
            is_checking = False

    def load(loader: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        found = None if is_checking else checked.pop(tuple(sweep_overrides), None)
        if found is None:
            found = _varied(loader, master_config, sweep_overrides, composed)
            if is_checking:
                checked[tuple(sweep_overrides)] = found
        else:
            OmegaConf.copy_cache(from_config=master_config, to_config=found)  # as Hydra does: ${now:} is one moment
        return found

    _compose_by(load, check)


def _varied(
    loader: ConfigLoaderImpl,
    master_config: DictConfig,
    overrides: list[str],
    composed: dict[tuple[str, ...], DictConfig],
) -> DictConfig:
    """What Hydra composes for a job: a copy of what it composed for one of the same groups, with this job's values.

    Args:
        loader: Hydra's.
        master_config: the sweep's.
        overrides: the job's settings.
        composed: what there is, by the settings without their plain values; is added to.
    """
    parsed = OverridesParser.create().parse_overrides(overrides)
    plain = [one for one in parsed if _is_plain(loader, one)]
    if not all(one in plain or _is_group(loader, one) for one in parsed):  # whose order may matter
        return _compose(loader, master_config, overrides)
    shape = tuple(one.key_or_group if one in plain else str(one.input_line) for one in parsed)
    if shape not in composed:
        composed[shape] = _compose(loader, master_config, overrides)
    found = copy.deepcopy(composed[shape])
    ConfigLoaderImpl._apply_overrides_to_config(plain, found)
    found.hydra.overrides.task = overrides
    look = found.hydra.job.config.override_dirname
    found.hydra.job.override_dirname = get_overrides_dirname(
        overrides=parsed, exclude_keys=look.exclude_keys, item_sep=look.item_sep, kv_sep=look.kv_sep
    )
    OmegaConf.copy_cache(from_config=master_config, to_config=found)
    return found


def _is_group(loader: ConfigLoaderImpl, override: Override) -> bool:
    return not override.is_hydra_override() and loader.repository.group_exists(override.key_or_group)


def _is_plain(loader: ConfigLoaderImpl, override: Override) -> bool:
    """Whether an override gives a setting that is there one value, and no list or mapping."""
    is_change = not (
        override.is_add() or override.is_force_add() or override.is_delete() or override.is_hydra_override()
    )
    is_one = override.value() is None or isinstance(override.value(), bool | int | float | str)
    return is_change and is_one and override.package is None and not _is_group(loader, override)


def _compose_by(load: Callable[..., DictConfig], check: Callable[..., None]) -> None:
    ConfigLoaderImpl.load_sweep_config = load  # type: ignore[method-assign]
    Sweeper.validate_batch_is_legal = check  # type: ignore[method-assign]
