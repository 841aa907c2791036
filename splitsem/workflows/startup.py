"""Starting up: what run.py does before a configuration is composed, and the format of logs."""

import atexit
import functools
import gc
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from hydra._internal import utils
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import _utils

from splitsem import redaction
from splitsem.workflows import pasted

_TAKE = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p")
FIELDS = ("peer", "session", "client")


class JsonFormatter(logging.Formatter):
    """``{"time", "level", "logger", "message"}``, the record's ``peer``, ``session`` or ``client`` and its traceback.

    Chosen by ``hydra/job_logging=json``. ``time`` is ISO 8601 in UTC with microseconds.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        facts = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts |= {name: str(getattr(record, name)) for name in FIELDS if hasattr(record, name)}
        if record.exc_info:
            facts["traceback"] = redaction.text(self.formatException(record.exc_info))
        return json.dumps(facts, ensure_ascii=False)


def spin_briefly() -> None:
    """Have OpenMP's threads look for work for a thousand turns of a loop, unless the environment says otherwise.

    Must be called before torch is imported. GNU's OpenMP by itself spins hundreds of times as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def collect_rarely() -> None:
    """Have Python look for garbage in cycles after 20,000 new objects, not 700: imports make many, and leave none.

    Must be called before the imports that it is to speed up, by a tenth of a single run's processor time.
    """
    gc.set_threshold(20_000, *gc.get_threshold()[1:])


def flags_last(arguments: list[str]) -> list[str]:
    """The command line's arguments with the settings first: Hydra refuses settings on both sides of a flag.

    >>> flags_last(["task=digits", "-m", "--config-dir", "mine", "codec=quant2,quant4"])
    ['task=digits', 'codec=quant2,quant4', '-m', '--config-dir', 'mine']
    """
    pairs = list(zip(arguments, ["", *arguments], strict=False))
    is_setting = [
        not a.startswith("-") and before not in _TAKE and ("=" in a or a.startswith("~")) for a, before in pairs
    ]
    first = [a for a, is_one in zip(arguments, is_setting, strict=True) if is_one]
    return first + [a for a, is_one in zip(arguments, is_setting, strict=True) if not is_one]


def folders_named(arguments: list[str]) -> list[str]:
    """The command line's arguments, where those of ``workflow=report`` that are folders' names become a setting.

    >>> folders_named(["workflow=report", "multirun/a", "--config-dir", "mine", "b c"])
    ['workflow=report', '--config-dir', 'mine', "folders=[multirun/a,'b c']"]
    """
    if "workflow=report" not in arguments:
        return arguments
    before = ["", *arguments]
    bare = [
        a
        for a, b in zip(arguments, before, strict=False)
        if a[:1] not in ("-", "~") and b not in _TAKE and ("=" not in a or Path(a).is_dir())
    ]
    return [a for a in arguments if a not in bare] + ([pasted.setting("folders", bare)] if bare else [])


@functools.cache
def log_in_vain() -> None:
    """Have a log line that nobody reads any more (``| head``), or that a full disk has no room for, be dropped."""
    handle = logging.Handler.handleError

    def drop(self: logging.Handler, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            handle(self, record)

    logging.Handler.handleError = drop  # type: ignore[method-assign]


def raise_plainly() -> None:
    """Have Hydra let the exceptions of a run through, which it would print in several lines with advice of its own."""
    utils.run_and_report = _run
    JobReturn.return_value = property(_returned, JobReturn.return_value.fset)  # type: ignore[assignment, attr-defined]


def _returned(job: JobReturn) -> Any:
    """What a job returned, or what it raised; Hydra prints the job's overrides too, which a sweep's list has."""
    if job.status == JobStatus.COMPLETED:
        return job._return_value
    raise job._return_value


def _run(func: Callable[[], Any]) -> Any:
    return func()


def leave() -> None:
    """End the process, which has done its work, at once: to take torch and the interpreter apart takes half a second.

    What was registered to be done at the end is done. While a thread works that must come to its end, Python waits
    for it and ends as usual.
    """
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if not all(thread.daemon for thread in others):
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: closed when the program began
            stream.flush()
    os._exit(0)


class _Shared(dict[str, Any]):
    """A dict that counts as its own deep copy."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


def list_groups_quickly() -> None:
    """Have Hydra's store of configurations hold its nodes in a dict that is not copied for every group listed.

    Hydra deep-copies the store for each, 170 times for ``--help``; what it loads from the store it copies besides.
    """
    store = ConfigStore.instance()
    store.repo = _Shared(store.repo)


@functools.cache
def read_yaml_quickly() -> None:
    """Have OmegaConf parse YAML by libyaml, where PyYAML was built with it: its own parser takes ten times as long.

    What becomes of the parsed nodes (OmegaConf's floats, no dates, no key twice) stays OmegaConf's own.
    """
    if not hasattr(yaml, "CSafeLoader"):
        return
    parser: Any = import_module("yaml.cyaml").CParser
    loader: Any = _utils.get_yaml_loader()

    class Quick(parser, loader):
        def __init__(self, stream: Any) -> None:
            yaml.CSafeLoader.__init__(self, stream)

    _utils.get_yaml_loader = lambda: Quick
