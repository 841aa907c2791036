"""Workers: the processes in which joblib runs the jobs of a sweep side by side.

joblib's by themselves outlive a sweep that was killed: they go on with their jobs, then wait minutes for others.
"""

import os
import threading
import time
from functools import partial
from importlib import import_module
from typing import Any

from omegaconf import DictConfig

_LAUNCHER = "hydra_plugins.hydra_joblib_launcher."
_PAUSE_S = 0.5
_QUIET = "ignore:resource_tracker:UserWarning"


def get_ready(config: DictConfig) -> None:
    """Have the workers of a sweep end soon after this process, however it ends, without a warning of what they leave.

    Args:
        config: the sweep's; of one without workers nothing is changed.
    """
    if not str(config.hydra.launcher["_target_"]).startswith(_LAUNCHER):
        return
    launcher: Any = import_module(f"{_LAUNCHER}_core")
    launcher.Parallel = partial(import_module("joblib").Parallel, initializer=_end_with, initargs=(os.getpid(),))
    known = os.environ.get("PYTHONWARNINGS", "")  # Python's tracker cleans up what killed workers left, and says so
    if _QUIET not in known:
        os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (known, _QUIET)))


def _end_with(sweep: int) -> None:
    """End this process soon after the one of this number, which started it."""
    threading.Thread(target=_watch, args=(sweep,), name="sweep", daemon=True).start()


def _watch(sweep: int) -> None:
    while os.getppid() == sweep:
        time.sleep(_PAUSE_S)
    os._exit(1)  # as killed: its job's folder says that it runs, and no process holds it
