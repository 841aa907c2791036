"""Processes in no time: forked from one that has imported torch and captured the tests' network already."""

import atexit
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from splitsem.workflows import aside

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(["tests.preloaded"])


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
    torch.set_num_threads(1)  # makes torch's pool anew, before threads race for it
    target(*arguments)


def script(
    path: Path, arguments: list[str], folder: Path, environment: Mapping[str, str], timeout_s: float, log: Path
) -> subprocess.CompletedProcess[str]:
    """``subprocess.run([sys.executable, path, *arguments], cwd=folder, env=environment)`` with its output, as text.

    Its imports are made, so that what a program imports, or how long it takes to start, is not seen here.
    """
    process = Hatched(log, _script, str(path), arguments, str(folder), dict(environment), f"{log}.out")
    try:
        status = process.wait(timeout_s)
    except TimeoutError:
        process.kill()
        raise
    said = (log.with_name(f"{log.name}.out").read_text(), log.read_text())
    return subprocess.CompletedProcess([str(path), *arguments], status, *said)


class _Aside:
    """The process of ``splitsem.workflows.aside``, forked too, with as much of ``Popen`` as is used there."""

    def __init__(self) -> None:
        (calls, self_calls), (self_replies, replies) = os.pipe(), os.pipe()
        self.pid, self.returncode = os.fork(), None
        if not self.pid:
            os.setpgid(0, 0)
            os.close(self_calls)
            os.close(self_replies)
            os.dup2(replies, 1)
            sys.stdin = os.fdopen(calls)
            aside._processes.clear()
            aside._serve()
            os._exit(0)
        os.close(calls)
        os.close(replies)
        self.stdin, self.stdout = os.fdopen(self_calls, "wb"), os.fdopen(self_replies, "rb")

    def poll(self) -> int | None:
        """See Popen."""
        if self.returncode is None and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.returncode = 1
        return self.returncode

    def wait(self) -> int:
        """See Popen."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def communicate(self, timeout: float) -> None:
        """See Popen."""
        self.stdin.close()
        self.wait()

    def kill(self) -> None:
        """See Popen."""
        os.kill(self.pid, signal.SIGKILL)


def _script(path: str, arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = [path, *arguments]
    random.seed()
    aside._processes.append(_Aside())  # type: ignore[arg-type]
    status = 0
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        if not isinstance(exc.code, int | None):
            sys.stderr.write(f"{exc.code}\n")
    except BaseException:  # noqa: BLE001 (as Python itself ends a program)
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
