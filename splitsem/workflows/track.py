"""Track: what a run's or a sweep's folder holds, copied to MLflow, at its end or later (``workflow=track``)."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from splitsem.errors import ConfigError, LinkError
from splitsem.report.units import setting_in_words
from splitsem.workflows import comparison, digests, folders, pasted
from splitsem.workflows.drawing import UNDRAWN
from splitsem.workflows.folders import Record
from splitsem.workflows.result import Result
from splitsem.workflows.tracking import CHOSEN, Mlflow, Status

log = logging.getLogger(__name__)
HISTORY = "history.json"
TRAINING = "training.json"
UNTRACKED = "untracked.txt"
"""In a sweep's folder: why MLflow failed. While it lies there, no job tries again."""
_STATUS: dict[folders.State, Status] = {"running": "RUNNING", "ok": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_NOT_COPIED = (folders.RECORD, folders.LOCK, UNTRACKED, UNDRAWN)


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
        copied = copy_sweep(tracker, target) if is_sweep else Copied(1, int(copy_run(tracker, target)), "")
    finally:
        lock.release()
    if copied.page:
        log.info("%s", invitation(copied.page, tracker))
    there = copied.num_runs - copied.num_logged
    metrics = {"num_runs": copied.num_runs, "num_logged": copied.num_logged}
    return Result(metrics, {}, [], f"{copied.num_logged} runs logged, {there} were there already")


def invitation(page: str, tracker: Mlflow) -> str:
    """The line that names a sweep's page in MLflow, and what shows it where no server does."""
    return f"To compare the jobs{f' ({tracker.shown_by})' if tracker.shown_by else ''}: {page}"


def store_of(cfg: DictConfig) -> Mlflow | None:
    """The store that a run of these settings is written to, if it is to any."""
    is_tracked = OmegaConf.select(cfg, "workflow.is_tracked", default=True)
    return (instantiate(cfg.tracking) or None) if is_tracked else None


def begin(
    tracker: Mlflow, folder: Path, record: Record, name: str, sweep: Path | None = None, *, is_new: bool = False
) -> Record:
    """See that MLflow shows the folder's run as running. Raises LinkError.

    Args:
        tracker: the store.
        folder: the run's.
        record: the folder's.
        name: shown in the list of runs.
        sweep: the folder of the sweep.
        is_new: nothing can be there yet.

    Returns:
        The record, which now has the run's id.
    """
    parent = folders.read(sweep) if sweep else None
    record.experiment_id = (parent.experiment_id if parent else None) or record.experiment_id or tracker.open()
    if record.run_id is None and not is_new:  # a kill may have come before the id was written
        record.run_id = tracker.find(record.experiment_id, record.key)
    if (
        record.run_id is not None
        and tracker.has(record.run_id)
        and (parent is None or tracker.parent(record.run_id) == parent.run_id)  # else of a sweep before this one
    ):
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
    return record


def copy(tracker: Mlflow, folder: Path, record: Record, name: str, sweep: Path | None, params: dict[str, Any]) -> None:
    """``end`` for a run whose ``begin`` may have failed. Raises LinkError."""
    if record.run_id is None:
        begin(tracker, folder, record, name, sweep)
    end(tracker, folder, record, params)


def end(tracker: Mlflow, folder: Path, record: Record, params: dict[str, Any], *, is_sweep: bool = False) -> None:
    """Copy what the folder holds to its run, and close it by the record's state. Raises LinkError."""
    assert record.run_id
    names = (folders.BEST,) if is_sweep else (folders.METRICS, folders.ERROR)
    written = next((folder / name for name in names if (folder / name).exists()), None)
    at_s = written.stat().st_mtime if written else time.time()
    paths = [path for path in sorted(folder.iterdir()) if path.name not in _NOT_COPIED and not _is_again(path)]
    if is_sweep:
        paths = [path for path in paths if path.is_file()]  # each job has a run of its own
        metrics = _read(folder / folders.BEST) or {}
        metrics |= {_NOTE: _note(tracker, folder, record)}
    else:
        metrics = folders.metrics(folder) or {}
        given = {k: v for k, _, v in (one.lstrip("+~").partition("=") for one in _overrides(folder)) if "." not in k}
        params, metrics = given | params | chosen(metrics), {k: v for k, v in metrics.items() if k not in CHOSEN}
        if training := _read(folder / TRAINING):
            _log_training(tracker, record, params, training, at_s)
    tracker.log(record.run_id, params, metrics, _read(folder / HISTORY) or [], paths, at_s)
    tracker.set_status(record.run_id, _STATUS[record.state], at_s)
    record.tracked = record.state in ("ok", "failed")
    record.write(folder)


def _read(path: Path) -> Any:
    """What a JSON file holds; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _is_again(path: Path) -> bool:
    """Whether a file is a figure that lies there as PNG too."""
    return path.suffix in (".pdf", ".svg") and path.with_suffix(".png").exists()


def _log_training(
    tracker: Mlflow, record: Record, params: dict[str, Any], history: list[dict[str, float]], at_s: float
) -> None:
    """A run of its own, beside that of the job which happened to need the network first."""
    assert record.experiment_id
    assert record.run_id
    told = json.dumps([history, *(str(params.get(name)) for name in ("task", "model", "seed"))])
    key = f"training-{hashlib.sha256(told.encode()).hexdigest()[:20]}"  # jobs of one process share it, and tell it each
    if tracker.find(record.experiment_id, key):
        return
    own = {name: value for name, value in params.items() if name.split(".")[0] in ("task", "model", "trainer", "seed")}
    name = " · ".join(["training", *(str(own[group]) for group in ("task", "model") if group in own)])
    parent = tracker.parent(record.run_id) or record.run_id
    run_id = tracker.start(
        record.experiment_id, name, key=key, began_s=record.began_s, tags=record.provenance, parent=parent
    )
    tracker.log(run_id, own, {}, history, [], at_s)
    tracker.set_status(run_id, "FINISHED", at_s)


def _note(tracker: Mlflow, folder: Path, record: Record) -> str:
    """What MLflow's page of a sweep says: where its jobs can be compared, and the sweep's table."""
    table = folder / "table.md"
    assert record.experiment_id
    assert record.run_id
    link = f"[Compare the jobs of this sweep]({tracker.page(record.experiment_id, record.run_id)})"
    return f"{link}\n\n{table.read_text(encoding='utf-8') if table.exists() else ''}".strip()


_NOTE = "mlflow.note.content"


def chosen(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The options and the split point that a run had, by the names of its metrics."""
    return {name: metrics[name] for name in CHOSEN if metrics.get(name) is not None}


def _compared(jobs: list[Path]) -> tuple[dict[str, Any], list[str], list[dict[str, Any]]]:
    """The parameters that all jobs share, the names of those that were swept or chosen otherwise, and all metrics."""
    metrics = [one for job in jobs if (one := folders.metrics(job))]
    found = [params(_load(job / ".hydra" / "config.yaml")) | chosen(folders.metrics(job) or {}) for job in jobs]
    first = found[0] if found else {}
    common = {k: v for k, v in first.items() if all(k in one and one[k] == v for one in found[1:])}
    swept = {one.partition("=")[0].lstrip("+~") for job in jobs for one in _overrides(job)}
    names = (*CHOSEN, *sorted(swept - {*CHOSEN, "split.point"}))
    return common, [name for name in names if _varies(name, found)], metrics


def _varies(name: str, found: list[dict[str, Any]]) -> bool:
    return len({str(one.get(name)) for one in found}) > 1


def _overrides(job: Path) -> list[str]:
    """The settings that the job was given."""
    path = job / ".hydra" / "overrides.yaml"
    return [str(one) for one in OmegaConf.load(path)] if path.exists() else []


def copy_run(tracker: Mlflow, folder: Path, sweep: Path | None = None) -> bool:
    """Log a folder whose run is over; False where MLflow has it already. Raises LinkError."""
    record = folders.read(folder) or _made(folder)
    if record.tracked and record.run_id and tracker.has(record.run_id):
        return False
    record.state = folders.ended(folder, record.state in ("running", "stopped"))
    kept = _load(folder / ".hydra" / "hydra.yaml").hydra if (folder / ".hydra" / "hydra.yaml").exists() else None
    name = name_of(kept, sweep) if kept else "run"
    begin(tracker, folder, record, name, sweep)
    end(tracker, folder, record, params(_load(folder / ".hydra" / "config.yaml")))
    return True


class Copied(NamedTuple):
    """What was logged of a sweep.

    Attributes:
        num_runs: its runs, the parent included.
        num_logged: those that MLflow had not yet.
        page: the address where the jobs can be compared; empty where nothing was logged.
    """

    num_runs: int
    num_logged: int
    page: str


def copy_sweep(tracker: Mlflow, folder: Path) -> Copied:
    """Log a sweep that is over: its parent and the jobs that MLflow lacks. Raises LinkError."""
    record = folders.read(folder) or _made(folder)
    is_there = record.tracked and record.run_id is not None and tracker.has(record.run_id)
    if not is_there:
        begin(tracker, folder, record, sweep_name(folders.asked(folder)))
    num_logged, page = int(not is_there), ""
    for job in (jobs := folders.jobs(folder)):
        if lock := folders.hold(job):  # else a process that outlived its sweep works on it
            try:
                num_logged += copy_run(tracker, job, folder)
            finally:
                lock.release()
    if num_logged:
        state = "stopped" if record.state == "running" else record.state
        record.state = state
        assert record.experiment_id
        assert record.run_id
        common, varied, metrics = _compared(jobs)
        tracker.save_view(record.experiment_id, record.run_id, comparison.state(record.run_id, metrics, varied))
        end(tracker, folder, record, common | {"num_jobs": len(jobs)} if state != "stopped" else {}, is_sweep=True)
        page = tracker.page(record.experiment_id, record.run_id) if jobs else ""
    (folder / UNTRACKED).unlink(missing_ok=True)
    return Copied(len(jobs) + 1, num_logged, page)


def told(exc: LinkError | OSError, folder: Path) -> str:
    """One line: what failed, that nothing is lost, and how the folder is logged later."""
    later = pasted.command("workflow=track", pasted.setting("folder", str(folder)))
    return (
        f"{exc}. The results are kept in {folder}; to log them later, mend the store or name another by "
        f"tracking.uri=..., then `{later}`; tracking=none goes without"
    )


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


def name_of(hydra_cfg: Any, sweep: Path | None) -> str:
    """What MLflow calls a run: in a sweep what tells it from the others, ``enc2 · quant8``; else what was set.

    Args:
        hydra_cfg: Hydra's configuration of the job.
        sweep: the folder of the sweep.
    """
    given, asked = [str(one) for one in hydra_cfg.overrides.task], set(folders.asked(sweep)) if sweep else set()
    own = [one for one in given if one not in asked] or given
    pairs = [(key.lstrip("+~"), value.strip("'\"")) for key, _, value in (one.partition("=") for one in own)]
    pairs.sort(key=lambda pair: _FIRST.index(pair[0]) if pair[0] in _FIRST else len(_FIRST))
    return " · ".join(setting_in_words(*pair) for pair in pairs) or str(hydra_cfg.runtime.choices["task"])


_FIRST = ("split.point", "codec", "codec.bit_width")


def sweep_name(asked: Sequence[str]) -> str:
    """What MLflow calls a sweep: what was asked for, without where results go.

    >>> sweep_name(["task=digits", "codec=quant2,quant8", "tracking.uri=http://host"])
    'task=digits codec=quant2,quant8'
    """
    return " ".join(one for one in asked if not one.lstrip("+~").startswith(_NOT_NAMED)) or "sweep"


_NOT_NAMED = (*digests.NO_RESULT, "cache_dir=", "hydra.")


def _load(path: Path) -> DictConfig:
    try:
        cfg = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError) as exc:
        raise ConfigError(f"{path} is no configuration that Hydra kept: {exc}") from exc
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{path} is no configuration that Hydra kept: it holds a {type(cfg).__name__}")
    return cfg
