"""Track: what a run's or a sweep's folder holds, copied to MLflow, at its end or later (``workflow=track``)."""

import json
import logging
import re
import shlex
import time
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from splitsem.errors import ConfigError, LinkError
from splitsem.workflows import digests, folders
from splitsem.workflows.folders import Record
from splitsem.workflows.result import Result
from splitsem.workflows.tracking import Mlflow, Status

log = logging.getLogger(__name__)
HISTORY = "history.json"
UNTRACKED = "untracked.txt"
"""In a sweep's folder: why MLflow failed. While it lies there, no job tries again."""
_STATUS: dict[folders.State, Status] = {"running": "RUNNING", "ok": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_NOT_COPIED = (folders.RECORD, folders.LOCK, UNTRACKED)


def run(cfg: DictConfig, folder: Path) -> Result:
    """Log the run or the sweep in ``cfg.folder``; what MLflow has already stays as it is."""
    tracker: Mlflow | None = instantiate(cfg.tracking) or None
    if tracker is None:
        raise ConfigError("workflow=track needs a store: give tracking=mlflow, and tracking.uri=... for a server")
    target = Path(str(cfg.folder)).expanduser().absolute()
    is_sweep = bool(folders.jobs(target))
    if not is_sweep and not (target / ".hydra").is_dir():
        raise ConfigError(f"folder={cfg.folder} holds no run and no sweep: name one below outputs/ or multirun/")
    if (lock := folders.hold(target)) is None:
        raise ConfigError(f"{target} belongs to a run that is still going, and logs itself at its end")
    try:
        num_runs, num_logged = copy_sweep(tracker, target) if is_sweep else (1, int(copy_run(tracker, target)))
    finally:
        lock.release()
    metrics = {"num_runs": num_runs, "num_logged": num_logged}
    return Result(metrics, {}, [], f"{num_logged} runs logged, {num_runs - num_logged} were there already")


def begin(
    tracker: Mlflow, folder: Path, record: Record, name: str, parent: Record | None = None, *, is_new: bool = False
) -> None:
    """See that MLflow shows the folder's run as running. Raises LinkError.

    Args:
        tracker: the store.
        folder: the run's.
        record: the folder's, which keeps the run's id.
        name: shown in the list of runs.
        parent: the record of the sweep.
        is_new: nothing can be there yet.
    """
    record.experiment_id = (parent.experiment_id if parent else None) or record.experiment_id or tracker.open()
    if record.run_id is None and not is_new:  # a kill may have come before the id was written
        record.run_id = tracker.find(record.experiment_id, record.key)
    if record.run_id is not None and tracker.has(record.run_id):
        tracker.set_status(record.run_id, "RUNNING")
    else:
        if parent is None:
            record.experiment_id = tracker.open()  # the store may be another one
        record.run_id = tracker.start(
            record.experiment_id,
            name,
            key=record.key,
            began_s=record.began_s,
            tags=record.provenance,
            parent=parent.run_id if parent else None,
        )
    record.write(folder)


def end(tracker: Mlflow, folder: Path, record: Record, params: dict[str, Any], *, is_sweep: bool = False) -> None:
    """Copy what the folder holds to its run, and close it by the record's state. Raises LinkError."""
    assert record.run_id
    written = next((p for p in (folder / folders.METRICS, folder / folders.ERROR) if p.exists()), None)
    at_s = written.stat().st_mtime if written else time.time()
    history = json.loads((folder / HISTORY).read_text()) if (folder / HISTORY).exists() else []
    paths = [path for path in sorted(folder.iterdir()) if path.name not in _NOT_COPIED]
    if is_sweep:
        paths = [path for path in paths if path.is_file()]  # each job has a run of its own
    tracker.log(record.run_id, params, folders.metrics(folder) or {}, history, paths, at_s)
    tracker.set_status(record.run_id, _STATUS[record.state], at_s)
    record.tracked = record.state in ("ok", "failed")
    record.write(folder)


def copy_run(tracker: Mlflow, folder: Path, parent: Record | None = None) -> bool:
    """Log a folder whose run is over; False where MLflow has it already. Raises LinkError."""
    record = folders.read(folder) or _made(folder)
    if record.tracked and record.run_id and tracker.has(record.run_id):
        return False
    record.state = folders.ended(folder, record.state in ("running", "stopped"))
    begin(tracker, folder, record, _name(folder / ".hydra" / "hydra.yaml"), parent)
    end(tracker, folder, record, params(_load(folder / ".hydra" / "config.yaml")))
    return True


def copy_sweep(tracker: Mlflow, folder: Path) -> tuple[int, int]:
    """Log a sweep that is over: its parent and the jobs that MLflow lacks. Raises LinkError.

    Returns:
        The number of runs, the parent included, and how many of them were logged.
    """
    record = folders.read(folder) or _made(folder)
    is_there = record.tracked and record.run_id is not None and tracker.has(record.run_id)
    if not is_there:
        begin(tracker, folder, record, _name(folder / "multirun.yaml"), None)
    num_logged = int(not is_there)
    for job in (jobs := folders.jobs(folder)):
        if lock := folders.hold(job):  # else a process that outlived its sweep works on it
            try:
                num_logged += copy_run(tracker, job, record)
            finally:
                lock.release()
    if num_logged:
        state = "stopped" if record.state == "running" else record.state
        record.state = state
        end(tracker, folder, record, {"num_jobs": len(jobs)} if state != "stopped" else {}, is_sweep=True)
    (folder / UNTRACKED).unlink(missing_ok=True)
    return len(jobs) + 1, num_logged


def told(exc: LinkError | OSError, folder: Path) -> str:
    """One line: what failed, that nothing is lost, and how the folder is logged later."""
    later = shlex.join(["python", "run.py", "workflow=track", override("folder", str(folder))])
    return (
        f"{exc}. The results are kept in {folder}; to log them later, mend the store or name another by "
        f"tracking.uri=..., then `{later}`; tracking=none goes without"
    )


def override(key: str, value: str) -> str:
    """``key=value`` as Hydra reads it back.

    >>> override("folder", "/a b/c")
    "folder='/a b/c'"
    """
    if re.fullmatch(r"[\w/][\w./:+-]*", value, re.ASCII):
        return f"{key}={value}"
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def params(cfg: DictConfig) -> dict[str, Any]:
    """MLflow's parameters, by dotted names: what results come from, since a run that goes on may change none.

    They are unresolved where an interpolation leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException:
        plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    return _flat({name: value for name, value in plain.items() if name not in digests.NO_RESULT})


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names."""
    if isinstance(node, dict):
        pairs = [_flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in node.items()]
        return {name: value for pair in pairs for name, value in pair.items()}
    return {prefix: node}


def _made(folder: Path) -> Record:
    """A record for a folder without one."""
    state = folders.ended(folder, is_stopped=not (folder / folders.ERROR).exists())
    if jobs := folders.jobs(folder):
        states = {folders.ended(job, is_stopped=not (job / folders.ERROR).exists()) for job in jobs}
        state = next(one for one in ("stopped", "failed", "ok") if one in states)
    return Record(settings="", state=state, began_s=folder.stat().st_mtime)


def _name(path: Path) -> str:
    """What MLflow calls a run, from the settings that Hydra kept."""
    if not path.exists():
        return "sweep"
    hydra_cfg = _load(path).hydra
    if path.name == "multirun.yaml":
        return " ".join(hydra_cfg.overrides.task) or "sweep"
    return str(hydra_cfg.job.override_dirname or hydra_cfg.runtime.choices.task)


def _load(path: Path) -> DictConfig:
    try:
        cfg = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError) as exc:
        raise ConfigError(f"{path} is no configuration that Hydra kept: {exc}") from exc
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{path} is no configuration that Hydra kept: it holds a {type(cfg).__name__}")
    return cfg
