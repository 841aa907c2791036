"""The board's end of ``splitsem.remote.ssh_board``, which sends this file to the Python there.

It needs the standard library only, and loads in an old Python, which then says how old it is. stdin and stdout carry
lines, as in ``ssh_session``; in order:

    desk    this file
    board   {"python": [3, 11], "machine": "aarch64", "home": FOLDER}
    desk    {"store": FOLDER, "files": [{"name", "sha256", "num_bytes"}], "secrets": [NAME]}
    board   {"missing": [NUMBER], "run": FOLDER}
    desk    for each missing file, then each secret: {"num_bytes"}, and the bytes
    board   {"kept": true}
    desk    {"install": NUMBER of the wheel among the files, "offline": whether pip may use nothing but the files}
    board   {"said": LINE} …, {"ended": STATUS, "step": "present" | "venv" | "pip"}
    desk    {"command": [ARGUMENT]} of splitsem-device, any number of times; {"stop": true} interrupts it
    board   {"said": LINE} …, {"ended": STATUS, "report": the text of RUN/report.json, or null}

Whatever else goes wrong is {"failed": LINE}. This process ends when stdin does, or after SILENCE_S without a heartbeat:
what runs then is interrupted, ended hard after GRACE_S, and the run's folder, with its secrets, is removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import platform
import queue
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from typing import Any

MARK = b"splitsem: "
SILENCE_S = 60.0
GRACE_S = 10.0
MEMORY = "/dev/shm"  # a power cut leaves no secrets there
_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 16 << 20  # of the disk, that stay free


class FailedError(Exception):
    """What is wrong, in one line."""


class Desk:
    """Who sent this, at the far end of stdin and stdout."""

    def __init__(self) -> None:
        self._tell = os.dup(1)
        os.dup2(2, 1)  # all other prints go to stderr
        self._buffer = b""
        self._messages: queue.Queue[Any] = queue.Queue()
        self._child: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._is_over = False
        self.run_folder = ""

    def tell(self, **facts: Any) -> None:
        """Send one message."""
        data = MARK + json.dumps(facts).encode() + b"\n"
        while data:
            data = data[os.write(self._tell, data) :]

    def hear(self) -> Any:
        """The next message; of the thread that watches, once there is one."""
        while True:
            line = self._line()
            if line is None:
                sys.exit(1)
            if line.startswith(MARK):
                return json.loads(line[len(MARK) :].decode())

    def receive(self, path: str, sha256: str | None) -> None:
        """Receive a file; it stands at ``path`` whole or not at all."""
        num_bytes = self.hear()["num_bytes"]
        digest = hashlib.sha256()
        scratch = f"{path}.{os.getpid()}.part"
        try:
            with open(scratch, "wb") as file:
                while num_bytes:
                    self._buffer = self._buffer or self._more()
                    if not self._buffer:
                        sys.exit(1)
                    chunk, self._buffer = self._buffer[:num_bytes], self._buffer[num_bytes:]
                    file.write(chunk)
                    digest.update(chunk)
                    num_bytes -= len(chunk)
            if sha256 is not None and digest.hexdigest() != sha256:
                raise FailedError(f"{os.path.basename(path)} did not arrive as it was sent")
            os.replace(scratch, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(scratch)

    def watch(self) -> None:
        """From now on another thread listens: it keeps messages for ``next``, and ends all when the desk is gone."""
        threading.Thread(target=self._watch, daemon=True).start()

    def next(self) -> Any:
        """The next message, while another thread listens."""
        return self._messages.get()

    def run(self, command: list[str]) -> int:
        """Run a command in the home folder and tell its lines; returns its exit status."""
        environment = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONNOUSERSITE="1", LC_ALL="C.UTF-8")
        environment.pop("PYTHONPATH", None)
        with self._starting:
            if self._is_over:
                sys.exit(1)
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=os.path.expanduser("~"),
                start_new_session=True,
            )
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self.tell(said=line.decode(errors="replace").rstrip())
        return self._child.wait()

    def end(self) -> None:
        """End what runs, and remove the run's folder."""
        with self._starting:
            self._is_over = True
        self._signal(signal.SIGINT)
        if self._child is not None:
            try:
                self._child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        if self.run_folder:
            shutil.rmtree(self.run_folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        if self._child is not None and self._child.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._child.pid, number)

    def _watch(self) -> None:
        while True:
            line = self._line()
            if line is None:
                self.end()
                os._exit(1)
            message = json.loads(line[len(MARK) :].decode()) if line.startswith(MARK) else {}
            if message.get("stop"):
                self._signal(signal.SIGINT)
                killer = threading.Timer(GRACE_S, self._signal, (signal.SIGKILL,))
                killer.daemon = True
                killer.start()
            elif message:
                self._messages.put(message)

    def _line(self) -> bytes | None:
        while b"\n" not in self._buffer:
            data = self._more()
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _more(self) -> bytes:
        readable, _, _ = select.select([0], [], [], SILENCE_S)
        return os.read(0, _CHUNK_BYTES) if readable else b""


def machine() -> str:
    """The processor as wheels name it; a 32-bit Python on a 64-bit kernel is a 32-bit machine."""
    name = platform.machine()
    return "armv7l" if name in ("aarch64", "armv8l") and struct.calcsize("P") == 4 else name


def take(desk: Desk, asked: dict[str, Any]) -> list[str]:
    """Receive what is missing here; returns the files' paths. In the run's folder, links to them have their names."""
    store = os.path.join(os.path.expanduser("~"), os.path.expanduser(asked["store"]))
    paths = [os.path.join(store, "received", one["sha256"], one["name"]) for one in asked["files"]]
    for path in paths:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    missing = [k for k, one in enumerate(asked["files"]) if not _is_whole(paths[k], one["sha256"])]
    needed, free = sum(asked["files"][k]["num_bytes"] for k in missing), shutil.disk_usage(store).free
    if missing and needed + _SPARE_BYTES > free:
        raise FailedError(f"no room in {store}: {needed:,} bytes are to be sent, and {free:,} are free")
    in_memory = os.access(MEMORY, os.W_OK)
    desk.run_folder = tempfile.mkdtemp(prefix="splitsem-", dir=MEMORY if in_memory else store)
    desk.tell(missing=missing, run=desk.run_folder)
    for k in missing:
        desk.receive(paths[k], asked["files"][k]["sha256"])
    for name in asked["secrets"]:
        desk.receive(os.path.join(desk.run_folder, name), None)
    for path in paths:
        os.symlink(path, os.path.join(desk.run_folder, os.path.basename(path)))
    desk.tell(kept=True)
    return paths


def install(desk: Desk, wheel: str, is_offline: bool) -> str:
    """A virtual environment with the wheel, made once for each wheel and Python; returns its interpreter.

    Packages of the system count, so that a board without a package index can have the wheel's needs from there.
    """
    received, name = os.path.split(wheel)
    store, version = os.path.dirname(os.path.dirname(received)), "{}.{}".format(*sys.version_info[:2])
    venv = os.path.join(store, "venvs", f"{os.path.basename(received)[:16]}-{version}")
    python, done = os.path.join(venv, "bin", "python"), os.path.join(venv, "complete")
    os.makedirs(os.path.dirname(venv), exist_ok=True)
    with open(venv + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another start may be at it
        if os.path.exists(done) and os.path.exists(python):
            desk.tell(ended=0, step="present")
            return python
        shutil.rmtree(venv, ignore_errors=True)
        status = desk.run([sys.executable, "-m", "venv", "--system-site-packages", venv])
        if status:
            desk.tell(ended=status, step="venv")
            return python
        options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        options += ["--no-index", "--find-links", desk.run_folder] if is_offline else []
        status = desk.run([python, "-m", "pip", "install", *options, os.path.join(desk.run_folder, name)])
        if not status:
            open(done, "w").close()
        desk.tell(ended=status, step="pip")
    return python


def serve(desk: Desk) -> None:
    """What the desk asks for, in order."""
    desk.tell(python=list(sys.version_info[:2]), machine=machine(), home=os.path.expanduser("~"))
    paths = take(desk, desk.hear())
    desk.watch()
    asked = desk.next()
    python = install(desk, paths[asked["install"]], asked["offline"])
    report = os.path.join(desk.run_folder, "report.json")
    while True:
        status = desk.run([python, "-m", "splitsem_device", *desk.next()["command"]])
        text = None
        if os.path.exists(report):
            with open(report) as file:
                text = file.read()
            os.unlink(report)
        desk.tell(ended=status, report=text)


def main() -> None:
    """Serve one desk."""
    os.umask(0o077)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    desk = Desk()
    try:
        serve(desk)
    except FailedError as exc:
        desk.tell(failed=str(exc))
    except OSError as exc:
        said = f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc)
        with contextlib.suppress(OSError):  # the desk may be what is gone
            desk.tell(failed=f"no room on the disk ({said})" if exc.errno == errno.ENOSPC else said)
    finally:
        desk.end()


def _is_whole(path: str, sha256: str) -> bool:
    if not os.path.isfile(path):
        return False
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest() == sha256


if __name__ == "__main__":
    main()
