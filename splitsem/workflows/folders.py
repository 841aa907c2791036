"""A run's folder: no other run has it, and its record says what became of the run.

A run creates its folder or takes another name; while its process lives it holds a lock there, so that a folder without
a lock and without an end is of a run that was killed.
"""

import functools
import glob
import itertools
import json
import re
import shutil
import time
import uuid
from pathlib import Path
from typing import Any, Literal, NamedTuple

import filelock
import msgspec
import yaml

from splitsem import files, json_files
from splitsem.errors import ConfigError, FolderError

RECORD = "run.json"
LOCK = ".lock"
METRICS = "metrics.json"
ERROR = "error.txt"
BEST = "best.json"  # of a sweep
_TRACES = (RECORD, ".hydra", "multirun.yaml", METRICS)
README = "README.txt"
SWEEP = "multirun.yaml"
QUICK_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The first where PyYAML was built with libyaml: a tenth of the time."""
_OF_HYDRA = {"multirun.yaml", "config.yaml", "hydra.yaml", "overrides.yaml"}
_WITHOUT_RESULTS = {RECORD, LOCK, ERROR, README, "results.csv", *_OF_HYDRA}
_INTERPOLATION = re.compile(r"\$\{[^{}]*\}")

State = Literal["running", "ok", "failed", "stopped"]


class Record(msgspec.Struct, kw_only=True):
    """What a folder says of its run, in ``run.json``.

    Attributes:
        settings: a digest of what was asked for, see ``digests``.
        state: running also stands there after a kill, which leaves no time to write another.
        key: of this run alone; its MLflow run has it as the tag ``splitsem.run``.
        began_s: Unix time.
        provenance: the code and the packages that ran, as tags.
        experiment_id: MLflow's.
        run_id: MLflow's; None while there is none.
        tracked: MLflow has all that the folder holds.
    """

    settings: str
    state: State = "running"
    key: str = msgspec.field(default_factory=lambda: uuid.uuid4().hex)
    began_s: float = msgspec.field(default_factory=time.time)
    provenance: dict[str, str] = {}
    experiment_id: str | None = None
    run_id: str | None = None
    tracked: bool = False

    def write(self, folder: Path) -> None:
        """Put it into the folder, whole; on a full disk in place of the earlier one, whose room it takes."""
        text = msgspec.json.encode(self).decode() + "\n"
        try:
            json_files.write_text(text, folder / RECORD)
        except OSError as exc:
            if not files.is_full(exc) or not (folder / RECORD).exists():
                raise
            with open(folder / RECORD, "r+b", buffering=0) as file:
                file.write(text.encode())
                file.truncate()


class Claim(NamedTuple):
    """A folder that is this process's own.

    Attributes:
        folder: absolute.
        lock: held until it is released or the process ends.
        earlier: the record of an interrupted run of the same settings, which this run goes on with.
    """

    folder: Path
    lock: filelock.BaseFileLock
    earlier: Record | None


def read(folder: Path) -> Record | None:
    """The folder's record; None where there is none, or a damaged one."""
    try:
        return json_files.decode((folder / RECORD).read_bytes(), Record)
    except (OSError, ValueError):
        return None


def hold(folder: Path, timeout_s: float = 0) -> filelock.BaseFileLock | None:
    """The folder's lock; None where another process keeps it for ``timeout_s``, -1: for ever."""
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=timeout_s)
    except filelock.Timeout:
        return None
    return lock


def claim(wanted: Path, is_named: bool, settings: str) -> Claim:
    """Make a run's folder, atomically.

    A name that is made of the time goes to the first who asks; others get it with ``-2``, ``-3``, … A name that the
    user gave is kept: the folder may be there, also with an interrupted run of the same settings, but without others'.

    Args:
        wanted: the folder's name.
        is_named: whether the user wrote the name himself.
        settings: digest of what this run is asked for.

    Raises:
        FolderError: a named folder belongs to another run, or none can be made.
    """
    wanted = wanted.absolute()
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=is_named)
            lock = hold(folder)
        except FileExistsError:
            if not is_named:
                continue
            raise FolderError(f"{folder} is no folder: name another") from None
        except OSError as exc:
            raise FolderError(f"cannot make the run's folder {folder}: {exc.strerror or exc}; name another") from exc
        if lock is None and is_named:
            raise FolderError(f"{folder} belongs to a run that is still going: name another folder")
        if lock is None:
            continue
        earlier = read(folder)
        if is_interrupted(earlier, settings):
            return Claim(folder, lock, earlier)
        if not any((folder / trace).exists() for trace in _TRACES) or not _has_results(folder):
            return Claim(folder, lock, None)
        lock.release()
        if is_named:
            raise FolderError(f"{folder} holds another run, which is kept: name another folder, or remove that one")
    raise AssertionError("itertools.count ends never")


def take_up(pattern: str, settings: str) -> Claim | None:
    """The newest interrupted run of these settings whose process is gone, in a folder that fits the glob pattern."""
    found = [(record, Path(path)) for path in glob.iglob(pattern) if (record := read(Path(path)))]
    for _, folder in sorted(found, key=lambda pair: pair[0].began_s, reverse=True):
        if not is_interrupted(read(folder), settings) or (lock := hold(folder)) is None:
            continue
        earlier = read(folder)
        if is_interrupted(earlier, settings):  # nobody took it up and ended it before this process had the lock
            return Claim(folder.absolute(), lock, earlier)
        lock.release()
    return None


def is_interrupted(record: Record | None, settings: str) -> bool:
    """Whether a record is of a run of these settings that did not come to its end."""
    return record is not None and record.settings == settings and record.state in ("running", "stopped")


def pattern_of(name: str) -> str | None:
    """A glob pattern for what a folder's name with interpolations can become; None for a name without.

    >>> pattern_of("multirun/${now:%Y-%m-%d}/${now:%H}-${study:}")
    'multirun/*/*-**'
    """
    pattern, count = _INTERPOLATION.subn("\0", name)
    while count:
        name, (pattern, count) = pattern, _INTERPOLATION.subn("\0", pattern)
    return "*".join(glob.escape(part) for part in name.split("\0")) + "*" if "\0" in name else None


def clear(folder: Path) -> None:
    """Remove what an earlier try of the same job left, but not Hydra's own files."""
    for path in folder.iterdir():
        if path.name in (RECORD, LOCK, ".hydra") or path.suffix == ".log":
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def jobs(folder: Path) -> list[Path]:
    """The folders of a sweep's jobs, in order; none where the folder is of a single run."""
    found = [p for p in folder.iterdir() if p.name.isdigit() and (p / ".hydra").is_dir()] if folder.is_dir() else []
    return sorted(found, key=lambda p: int(p.name))


def metrics(folder: Path) -> dict[str, Any] | None:
    """The metrics of a run that ended well; None where there are none, or only a part of them."""
    if (folder / ERROR).exists():
        return None
    try:
        found = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def ended(folder: Path, is_stopped: bool) -> State:
    """How the run in the folder ended, by what it left."""
    if metrics(folder) is not None:
        return "ok"
    return "stopped" if is_stopped else "failed"


def _has_results(folder: Path) -> bool:
    return any(_is_result(path) for path in folder.rglob("*"))


def _is_result(path: Path) -> bool:
    return path.is_file() and path.name not in _WITHOUT_RESULTS and path.suffix != ".log"


def asked(folder: Path) -> list[str]:
    """The settings of the command line that made a run's or a sweep's folder; none where Hydra kept none."""
    if (folder / SWEEP).exists():
        found = kept_yaml(folder / SWEEP).get("hydra", {}).get("overrides", {}).get("task", ())
    else:
        found = kept_yaml(folder / ".hydra" / "overrides.yaml")
    return [str(one) for one in found]


def kept_yaml(path: Path) -> Any:
    """What Hydra wrote there, as it was given; empty where there is no such file. Raises ConfigError."""
    return _read_yaml(path, path.stat().st_mtime_ns) if path.exists() else {}


@functools.lru_cache(maxsize=4)
def _read_yaml(path: Path, _changed_ns: int) -> Any:
    """Read a file that each job of a sweep asks for."""
    try:
        return yaml.load(path.read_bytes(), QUICK_YAML) or {}
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path} is no configuration that Hydra kept: {exc}") from exc
