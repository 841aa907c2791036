"""Each job of a sweep is composed once: Hydra composes all of them to check them, then each again to run it."""

from collections.abc import Callable, Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf

_HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"  # others compose in the processes of the jobs
_compose, _check = ConfigLoaderImpl.load_sweep_config, Sweeper.validate_batch_is_legal


def compose_once(config: DictConfig) -> None:
    """Have jobs take the configuration that was composed for the check, where they run in this process.

    Args:
        config: the sweep's.
    """
    if config.hydra.launcher["_target_"] != _HERE:
        _compose_by(_compose, _check)
        return
    checked: dict[tuple[str, ...], DictConfig] = {}
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
            found = _compose(loader, master_config, sweep_overrides)
            if is_checking:
                checked[tuple(sweep_overrides)] = found
        else:
            OmegaConf.copy_cache(from_config=master_config, to_config=found)  # as Hydra does: ${now:} is one moment
        return found

    _compose_by(load, check)


def _compose_by(load: Callable[..., DictConfig], check: Callable[..., None]) -> None:
    ConfigLoaderImpl.load_sweep_config = load  # type: ignore[method-assign]
    Sweeper.validate_batch_is_legal = check  # type: ignore[method-assign]
