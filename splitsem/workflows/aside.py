"""Aside: calls that run one after another in a process of their own, while this one computes.

It tells MLflow, and draws the figures of jobs. To import MLflow or what draws takes seconds, to log a run or to draw
its figures some tenths of a second; none of it shall keep a job waiting. What is
called and what it returns go through pipes of this program's own; the process ends with this one, however that ends.
"""

import atexit
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from splitsem import redaction
from splitsem.errors import LinkError
from splitsem.workflows import startup

P = ParamSpec("P")
T = TypeVar("T")
_threads: list[ThreadPoolExecutor] = []
_processes: list[subprocess.Popen[bytes]] = []
_awaited: list[Callable[..., Any]] = []
_PATIENCE_S = 60.0


def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
    """What ``function`` returns there, once the calls before it are done.

    Its future raises what the function raised, or LinkError where the process came to its end.

    Args:
        function: a function of a module, which is imported there.
        args, kwargs: anything that can be pickled; what the function changes in them stays there.
    """
    _awaited.append(function)
    return _submit(function, *args, **kwargs)


def prepare(function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call what makes later calls faster: nobody asks how it went, and while no other call was made, none waits for it.

    For the arguments see ``call``.
    """
    _submit(function, *args, **kwargs)


def _submit(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
    if not _threads:
        _threads.append(ThreadPoolExecutor(1, thread_name_prefix="aside"))
    return _threads[0].submit(_ask, function, args, kwargs)


def _ask(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    asked = pickle.dumps((redaction.known(), function, args, kwargs))  # whole, or the pipe has half a call
    process = _running()
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(asked)
        process.stdin.flush()
        is_well, found = pickle.load(process.stdout)  # noqa: S301 (from this program's own process)
    except (OSError, EOFError) as exc:
        status = process.wait()
        raise LinkError(f"the process that draws and writes to the store ended (exit status {status})") from exc
    if not is_well:
        raise found
    return found


def _running() -> "subprocess.Popen[bytes]":
    if _processes and _processes[0].poll() is not None:
        _close(_processes.pop())
    if not _processes:
        path = os.pathsep.join(filter(None, sys.path))  # what is called may lie wherever this process found it
        _processes.append(
            subprocess.Popen(
                [sys.executable, "-m", __name__, os.environ.get("PYTHONPATH", "")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
                process_group=0,  # what a terminal sends is for this process, which decides
            )
        )
    return _processes[0]


def settle() -> None:
    """Wait for the calls that it was given."""
    if _threads:
        _threads[0].submit(int).result()


@atexit.register
def close() -> None:
    """Let the process end, after the calls that it was given; at once where all of them only prepared others."""
    if not _awaited:
        for executor in _threads:
            executor.shutdown(wait=False, cancel_futures=True)
        for process in _processes:
            process.kill()
    _awaited.clear()
    while _threads:
        _threads.pop().shutdown()
    while _processes:
        _close(_processes.pop())


def _close(process: "subprocess.Popen[bytes]") -> None:
    try:
        with contextlib.suppress(OSError):
            process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def _failure(exc: Exception) -> bytes:
    """An exception as a reply; in words where it cannot be made again on the other side."""
    try:
        reply = pickle.dumps((False, exc))
        pickle.loads(reply)  # noqa: S301 (made here)
    except Exception:  # noqa: BLE001 (whatever its class raises)
        return pickle.dumps((False, RuntimeError(f"{type(exc).__name__}: {exc}")))
    return reply


def _serve() -> None:
    """Run what comes in, until the other side ends."""
    os.environ["PYTHONPATH"] = sys.argv[1]  # what the user gave, for commands to paste; the path is read by now
    startup.collect_rarely()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both; the other side decides
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    said = os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else sys.stderr.fileno()  # None: it was closed
    os.dup2(said, sys.stdout.fileno())  # what a library prints is no reply
    redaction.install()
    startup.read_yaml_quickly()
    while True:
        try:
            secrets, function, args, kwargs = pickle.load(sys.stdin.buffer)  # noqa: S301 (from this program itself)
        except EOFError:
            return
        redaction.remember(secrets)
        try:
            reply = pickle.dumps((True, function(*args, **kwargs)))
        except Exception as exc:  # noqa: BLE001 (raised on the other side)
            exc.add_note(traceback.format_exc())
            reply = _failure(exc)
        try:
            replies.write(reply)
            replies.flush()
        except BrokenPipeError:  # the other side was killed
            return


if __name__ == "__main__":
    _serve()
    startup.leave()
