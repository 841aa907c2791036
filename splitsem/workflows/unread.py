"""Settings of the command line that nothing would read: refused, with the setting that does what was meant.

What a workflow of one's own reads is not known, so that with one all is taken. Imported by every run, so it imports
nothing heavy.
"""

import functools
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from splitsem import files
from splitsem.errors import SettingError
from splitsem.likeness import nearest
from splitsem.workflows.mistakes import elsewhere

log = logging.getLogger(__name__)

_OPEN = ("references",)
"""Mappings whose entries are all read, whatever their names."""

_CLASSES = ("codec", "task", "model", "transport", "hardware.edge", "hardware.server")
"""Places of options whose file names a class."""

_WITHOUT_MACHINES = ("federated.", "measure_link", "points", "profile", "show_domains", "split_train")
"""Workflows that neither model nor measure the machines of the group ``hardware``."""

_MACHINES = ("hardware=", "hardware.edge", "hardware.server", "hardware/machine@hardware.")


def check(cfg: DictConfig, given: Sequence[str], choices: Mapping[str, Any]) -> None:
    """Refuse an option that is added or put where nothing reads it, and machines that the workflow does not take.

    Args:
        cfg: the job's configuration.
        given: its settings of the command line.
        choices: the option chosen of each group, by ``group`` or ``group@place``.

    Raises:
        SettingError: with what to give in its place.
    """
    places: dict[str, tuple[str, Any]] = {}
    for key, option in choices.items():
        if option is not None:
            places.setdefault(place_of(key), (key, option))  # of several groups with one place, the first
    for place, (key, option) in places.items():
        node = OmegaConf.select(cfg, place, throw_on_missing=False)
        if isinstance(node, str) and key.partition("@")[0] != node:
            raise SettingError(f"{place}={node} is no option's settings: an option is chosen by {key}={node}")
        if place in _CLASSES and isinstance(node, DictConfig) and "_target_" not in node:
            has = ", ".join(map(str, node)) or "nothing"
            raise SettingError(f"{key}={option}: the option's file must name a class as _target_:, and has {has}")
    if not str(OmegaConf.select(cfg, "workflow._target_")).startswith("splitsem."):
        return
    for entry in given:
        name, _, option = entry.lstrip("+").partition("=")
        group = name.partition("@")[0]
        if entry.startswith("+") and (files.CONF / group).is_dir() and not _is_read(cfg, place_of(name)):
            others = [key for key in choices if key.partition("@")[0] == group and key != name]
            raise SettingError(f"{entry} adds an option that nothing reads: {elsewhere(group, name, option, others)}")
    _check_machines(cfg, [entry for entry in given if entry.lstrip("+~").startswith(_MACHINES)])


def check_files(sources: Iterable[str]) -> None:
    """Warn of files of one's own folders in ``task/settings`` whose name fits no task and option: nothing reads them.

    Args:
        sources: the folders that options are taken from.
    """
    own = [Path(source) for source in sources if Path(source) != files.CONF]
    found = [path for folder in own for path in sorted((folder / "task" / "settings").glob("*.yaml"))]
    if not found:
        return
    tasks, others = (
        [path.stem for folder in (files.CONF, *own) for group in groups for path in (folder / group).glob("*.yaml")]
        for groups in (("task",), ("model", "trainer", "workflow"))
    )
    names = {f"{task}_{other}" for task in tasks for other in others}
    for path in found:
        if path.stem not in names:
            near = nearest(path.stem, sorted(names))
            meant = (
                f"did you mean {near}.yaml?" if near else "the options are of task, and of model, trainer or workflow"
            )
            _warn(f"nothing reads {path}: such a file is named TASK_OPTION.yaml; {meant}")


def place_of(key: str) -> str:
    """Where the settings of a group's option are: ``hardware/machine@hardware.edge`` → ``hardware.edge``."""
    group, _, package = key.partition("@")
    return package or group.replace("/", ".")


def _is_read(cfg: DictConfig, place: str) -> bool:
    """Whether an entry of a constructor's settings, which those are checked for; or of what is read whole."""
    parts = place.split(".")
    above = [".".join(parts[:length]) for length in range(1, len(parts))]
    return place.startswith("_global_") or any(
        one in _OPEN or (one != "workflow" and OmegaConf.select(cfg, f"{one}._target_") is not None) for one in above
    )


def _check_machines(cfg: DictConfig, given: Sequence[str]) -> None:
    target = str(cfg.workflow["_target_"]).removeprefix("splitsem.workflows.")
    if given and target.startswith(_WITHOUT_MACHINES):
        _warn(f"{given[0]} changes nothing here: this workflow takes no machines of the group hardware")
    if not given or not target.startswith("joint."):
        return
    if OmegaConf.select(cfg, "hardware.chain") is not None:
        raise SettingError(f"hardware.chain is in place of edge and server: leave out {given[0]}")
    if cfg.workflow.times != "hardware":
        raise SettingError(
            f"{given[0]} is not used, since workflow=joint measures this machine: add workflow.times=hardware, which "
            "takes both machines from the group hardware"
        )


@functools.cache
def _warn(line: str) -> None:
    """Once in a process, of all jobs of a sweep."""
    log.warning("%s", line)
