"""Server processes in no time: forked from one that has imported torch and captured the network already."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["tests.integration.preloaded"])


class Hatched:
    """A process of its own that runs ``target(*arguments)``; what it writes to stderr goes into ``log``."""

    def __init__(self, log: Path, target: Callable[..., None], *arguments: Any) -> None:
        self.log = log
        self._process = _fork.Process(target=_run, args=(str(log), target, *arguments))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout_s: float = 30.0) -> int:
        """Its exit status, once it has ended."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self.pid} still runs after {timeout_s} s")
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()


def _run(log: str, target: Callable[..., None], *arguments: Any) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 2)
    target(*arguments)
