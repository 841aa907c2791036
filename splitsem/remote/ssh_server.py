"""SshServer runs a server on another machine for as long as the ssh connection lives. The messages, in order:

    edge    {"protocol", "sections", "settings", "weights": {"sha256", "num_bytes"}}
    server  {"weights": "missing" | "present", "pid"}
    edge    the weights file's bytes, when the file is missing; from here on an empty line every HEARTBEAT_S
    server  {"serving": "HOST:PORT"}

The server ends when its stdin ends, or after SILENCE_S without input.
"""

import contextlib
import hashlib
import json
import logging
import queue
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from splitsem.errors import ConfigError, LinkError, SplitSemError
from splitsem.json_files import decode
from splitsem.remote.ssh_inventory import NO_FOLDER, NO_PYTHON, Host, serve_command, tunnel_command
from splitsem_device.peer_text import shown

PROTOCOL_VERSION = 1
HEARTBEAT_S = 10.0
SILENCE_S = 60.0
MAX_LINE_BYTES = 1 << 20
_MARK = b"splitsem: "  # marks messages: login scripts and libraries print to stdout too


def to_line(facts: dict[str, Any]) -> bytes:
    """One message, as a line."""
    return _MARK + json.dumps(facts).encode() + b"\n"


def from_line(line: bytes) -> dict[str, Any] | None:
    """The message in a line; None when the line is something else."""
    if not line.startswith(_MARK):
        return None
    try:
        return decode(line.removeprefix(_MARK), dict[str, Any])
    except ValueError:
        return None


_SSH_FAILED = 255
_LOGIN: tuple[tuple[str, type[SplitSemError], str], ...] = (  # what ssh says, and what it means
    ("could not resolve", LinkError, "the name {0.address} cannot be resolved: check address"),
    ("connection refused", LinkError, "{0.address} refuses ssh connections: check address and port"),
    ("timed out", LinkError, "{0.address} does not answer: is it on, and does a firewall let ssh through?"),
    ("no route to host", LinkError, "{0.address} cannot be reached: no route to it"),
    ("network is unreachable", LinkError, "{0.address} cannot be reached: no network"),
    ("permission denied", ConfigError, "the login is refused (user {user}): check user, identity_file and agent"),
    ("too many authentication failures", ConfigError, "the login is refused: give identity_file"),
    ("remote host identification has changed", ConfigError, "its host key is not the known one: another machine?"),
    ("host key verification failed", ConfigError, "its host key is unknown: log in once with ssh, or {accept}"),
)


def explain(host: Host, returncode: int, lines: Sequence[str]) -> SplitSemError:
    """The error for a remote command that ended.

    Args:
        host: where it ran.
        returncode: ssh's exit code; negative: the signal that killed ssh.
        lines: the last lines that ssh and the command wrote.
    """
    said = " ".join(lines).lower()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if returncode < 0:
        return LinkError(f"host {host.name}: the ssh connection was ended by signal {-returncode}")
    if returncode == NO_FOLDER:
        return ConfigError(f"host {host.name}: there is no folder {host.folder}; folder must be the checkout there")
    if returncode == NO_PYTHON:
        return ConfigError(
            f"host {host.name}: there is no {host.python} in {host.folder}; check python, or `make setup`"
        )
    if returncode == _SSH_FAILED:
        for words, kind, meaning in _LOGIN:
            if words in said:
                accept = "strict_host_key_checking: accept-new"
                return kind(
                    f"host {host.name}: " + meaning.format(host, user=host.user or "as ssh has it", accept=accept)
                )
        return LinkError(f"host {host.name}: ssh failed: {last or 'it said nothing'}")
    if "No module named" in last:
        return ConfigError(
            f"host {host.name}: {host.python} there cannot import what is needed ({last.rpartition(': ')[2]}); is "
            f"{host.folder} a checkout as new as this one, and set up?"
        )
    return LinkError(f"host {host.name}: the server ended with {returncode}: {last or 'it said nothing'}")


log = logging.getLogger(__name__)
_MOST_SAID = 1000  # characters of a line of the other machine's
_STOP_S = 20.0  # longer than the server's own grace
_WILDCARDS = ("0.0.0.0", "[::]")


class SshServer:
    """Starts a server on another machine and waits until it serves.

    The server never outlives this process: its stdin is a pipe from here, and the server ends when its stdin ends.

    Args:
        host: where to run the server.
        sections: parts of the configuration that replace the server's parts.
        weights: the .safetensors file that both ends must hold; sent only if the server lacks the file.

    Attributes:
        target: ``HOST:PORT`` that reaches the server from here.
        start_s: seconds that the start took.
        num_sent_bytes: bytes of weights that were sent.
        pid: number of the server's process on its machine.

    Raises:
        ConfigError: the login, the folder, the interpreter or a setting is wrong.
        LinkError: the machine cannot be reached, or the server ended.
    """

    def __init__(self, host: Host, sections: dict[str, Any], weights: Path) -> None:
        began = time.perf_counter()
        self.host = host
        for name in ("identity_file", "ssh_config"):
            path = getattr(host, name)
            if path is not None and not Path(path).expanduser().is_file():
                raise ConfigError(f"host {host.name}: {name} {path} does not exist")
        self._said: deque[str] = deque(maxlen=20)
        self._heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._folder = Path(tempfile.mkdtemp(prefix="splitsem-"))
        log.info("Starting the server on %s (%s)", host.name, host.address)
        try:
            self._process = self._login()
            facts = self._agree(sections, weights)
            self.target = self._reach(str(facts["serving"]))
        except BaseException:
            self.stop()
            raise
        self.start_s = time.perf_counter() - began
        sent = f"{self.num_sent_bytes} bytes of weights sent" if self.num_sent_bytes else "weights were there"
        log.info("%s serves after %.1f s (process %d there, %s)", host.name, self.start_s, self.pid, sent)

    @property
    def is_running(self) -> bool:
        """Whether the connection, and with it the server, is alive."""
        return self._process.poll() is None

    def explain(self, error: LinkError) -> LinkError:
        """The error that ended the ssh connection, if it caused ``error``; else ``error``."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        if not self.is_running:
            return LinkError(str(self._trouble()))
        refused = [line for line in self._said if "open failed" in line]  # ssh, of a tunnel that is not allowed
        return LinkError(f"{error} (ssh to {self.host.name}: {refused[-1]})") if refused else error

    def stop(self) -> None:
        """Let the server answer what it has, then end server and connection; harmless when the server has ended."""
        self._stopping.set()
        if hasattr(self, "_process"):
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                log.warning("%s does not let go; ending the connection", self.host.name)
                self._process.kill()
                self._process.wait()
            for thread in self._threads:
                thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _login(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                serve_command(self.host, self._folder / "ssh"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for this process, which then ends ssh in order
            )
        except FileNotFoundError as exc:
            raise ConfigError("there is no ssh client here: install one (openssh-client)") from exc
        assert process.stdout is not None
        assert process.stderr is not None
        jobs = ((self._listen, process.stdout), (self._note, process.stderr))
        self._threads = [threading.Thread(target=job, args=(stream,), daemon=True) for job, stream in jobs]
        for thread in self._threads:
            thread.start()
        return process

    def _agree(self, sections: dict[str, Any], weights: Path) -> dict[str, Any]:
        num_bytes = weights.stat().st_size
        with weights.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        hello = {
            "protocol": PROTOCOL_VERSION,
            "sections": sections,
            "settings": dict(self.host.settings),
            "weights": {"sha256": sha256, "num_bytes": num_bytes},
        }
        self._send(to_line(hello))
        first = self._hear("weights")
        self.pid, self.num_sent_bytes = int(first["pid"]), 0
        log.debug("%s: process %d has %s weights", self.host.name, self.pid, first["weights"])
        if first["weights"] == "missing":
            with weights.open("rb") as file:
                while chunk := file.read(1 << 20):
                    self._send(chunk)
            self.num_sent_bytes = num_bytes
        threading.Thread(target=self._beat, daemon=True).start()
        return self._hear("serving")

    def _reach(self, bound: str) -> str:
        address, _, port = bound.rpartition(":")
        if self.host.connect == "direct":
            return f"{self.host.address if address in _WILDCARDS else address}:{port}"
        for _ in range(3):  # another process may take the port before ssh does
            local_port = _free_port()
            command = tunnel_command(self.host, self._folder / "ssh", local_port, int(port))
            done = subprocess.run(command, capture_output=True, text=True, timeout=_STOP_S, stdin=subprocess.DEVNULL)
            if done.returncode == 0:
                return f"127.0.0.1:{local_port}"
        raise LinkError(f"host {self.host.name}: no tunnel: {shown(done.stderr.strip()) or 'ssh said nothing'}")

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except (OSError, ValueError) as exc:
            raise self._trouble() from exc

    def _hear(self, name: str) -> dict[str, Any]:
        """The next message, which must have the key ``name``."""
        try:
            facts = self._heard.get(timeout=self.host.start_timeout_s)
        except queue.Empty:
            last = self._said[-1] if self._said else "nothing"
            raise LinkError(
                f"host {self.host.name}: the server is silent for {self.host.start_timeout_s:.0f} s (start_timeout_s); "
                f"it last said: {last}"
            ) from None
        if facts is None:
            raise self._trouble()
        if name not in facts:
            raise LinkError(f"host {self.host.name}: expected a message about {name}, got {shown(sorted(facts))}")
        return facts

    def _trouble(self) -> SplitSemError:
        """The error that tells why the remote command has ended or is about to end."""
        try:
            returncode = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            return LinkError(f"host {self.host.name}: the server hung up and did not end")
        for thread in self._threads:
            thread.join()
        return explain(self.host, returncode, list(self._said))

    def _beat(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the connection is gone, or being closed
            while not self._stopping.wait(HEARTBEAT_S):
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()

    def _listen(self, stdout: IO[bytes]) -> None:
        with stdout:
            while line := stdout.readline(MAX_LINE_BYTES):
                facts = from_line(line)
                if facts is not None:
                    self._heard.put(facts)
        self._heard.put(None)

    def _note(self, stderr: IO[bytes]) -> None:
        with stderr:
            while line := stderr.readline(MAX_LINE_BYTES):
                text = shown(line.decode(errors="replace").rstrip(), _MOST_SAID)
                self._said.append(text)
                log.debug("%s: %s", self.host.name, text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
