"""SshSession: one ssh connection, a program at its other end, and messages in lines over its stdin and stdout."""

import contextlib
import json
import logging
import queue
import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from splitsem.errors import ConfigError, LinkError, SplitSemError
from splitsem.json_files import decode
from splitsem.remote.ssh_inventory import Host, login_command, tunnel_command
from splitsem_device.peer_text import shown

HEARTBEAT_S = 10.0
MAX_LINE_BYTES = 1 << 20
_MARK = b"splitsem: "  # marks messages: login scripts and libraries print to stdout too
_MOST_SAID = 1000  # characters of a line of the other machine's
_STOP_S = 20.0  # longer than the grace of what runs there


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


@dataclass(frozen=True)
class Program:
    """What runs on the other machine.

    Attributes:
        name: for messages.
        command: for the login shell there.
        ends: what an exit code means, or words in the last line that was written; LAST stands for the line's end.
    """

    name: str
    command: str
    ends: Mapping[int | str, str] = field(default_factory=dict)


def explain(host: Host, program: Program, returncode: int, lines: Sequence[str]) -> SplitSemError:
    """The error for a remote program that ended.

    Args:
        host: where it ran.
        program: what ran.
        returncode: ssh's exit code; negative: the signal that killed ssh.
        lines: the last lines that ssh and the program wrote.
    """
    said = " ".join(lines).lower()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    if returncode < 0:
        return LinkError(f"host {host.name}: the ssh connection was ended by signal {-returncode}")
    if returncode == _SSH_FAILED:
        for words, kind, meaning in _LOGIN:
            if words in said:
                accept = "strict_host_key_checking: accept-new"
                return kind(
                    f"host {host.name}: " + meaning.format(host, user=host.user or "as ssh has it", accept=accept)
                )
        return LinkError(f"host {host.name}: ssh failed: {last or 'it said nothing'}")
    for sign, meaning in program.ends.items():
        if sign == returncode or (isinstance(sign, str) and sign in last):
            return ConfigError(f"host {host.name}: {meaning.replace('LAST', last.rpartition(': ')[2])}")
    return LinkError(f"host {host.name}: {program.name} ended with {returncode}: {last or 'it said nothing'}")


log = logging.getLogger(__name__)


class SshSession:
    """Logs in and runs a program; as a context manager, it ends both.

    The program never outlives this process: its stdin is a pipe from here, and it ends when its stdin ends.

    Args:
        host: where to log in.
        program: what to run.

    Raises:
        ConfigError: there is no ssh client, or a file of ``host`` is missing.
    """

    def __init__(self, host: Host, program: Program) -> None:
        self.host, self.program = host, program
        for name in ("identity_file", "ssh_config"):
            path = getattr(host, name)
            if path is not None and not Path(path).expanduser().is_file():
                raise ConfigError(f"host {host.name}: {name} {path} does not exist")
        self._said: deque[str] = deque(maxlen=20)
        self._heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._sending = threading.Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="splitsem-"))
        self.process = self._login()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether the connection, and with it the program, is alive."""
        return self.process.poll() is None

    def send(self, parts: Iterable[bytes]) -> None:
        """Write to the program's stdin; no heartbeat comes between the parts. Raises the session's trouble."""
        assert self.process.stdin is not None
        try:
            with self._sending:
                for part in parts:
                    self.process.stdin.write(part)
                self.process.stdin.flush()
        except (OSError, ValueError) as exc:
            raise self.trouble() from exc

    def hear(self, *names: str, timeout_s: float | None) -> dict[str, Any]:
        """The next message, which must have one of the keys. Raises LinkError after a silence, None: never."""
        try:
            facts = self._heard.get(timeout=timeout_s)
        except queue.Empty:
            last = self._said[-1] if self._said else "nothing"
            raise LinkError(
                f"host {self.host.name}: {self.program.name} is silent for {timeout_s:.0f} s (start_timeout_s); "
                f"it last said: {last}"
            ) from None
        if facts is None:
            raise self.trouble()
        if not set(names) & set(facts):
            known = " or ".join(names)
            raise LinkError(f"host {self.host.name}: expected a message about {known}, got {shown(sorted(facts))}")
        return facts

    def beat(self) -> None:
        """From now on, an empty line every ``HEARTBEAT_S``."""
        threading.Thread(target=self._beat, daemon=True).start()

    def forward(self, *forward: str) -> subprocess.CompletedProcess[str]:
        """Add a tunnel to the connection, as ssh's ``-L`` or ``-R`` has it."""
        command = tunnel_command(self.host, self._folder / "ssh", *forward)
        return subprocess.run(command, capture_output=True, text=True, timeout=_STOP_S, stdin=subprocess.DEVNULL)

    def no_tunnel(self, done: subprocess.CompletedProcess[str]) -> LinkError:
        """The error for a tunnel that ``forward`` could not add."""
        return LinkError(f"host {self.host.name}: no tunnel: {shown(done.stderr.strip()) or 'ssh said nothing'}")

    def explain(self, error: LinkError) -> LinkError:
        """The error that ended the ssh connection, if it caused ``error``; else ``error``."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        if not self.is_running:
            return LinkError(str(self.trouble()))
        refused = [line for line in self._said if "open failed" in line]  # ssh, of a tunnel that is not allowed
        return LinkError(f"{error} (ssh to {self.host.name}: {refused[-1]})") if refused else error

    def trouble(self) -> SplitSemError:
        """The error that tells why the program has ended or is about to end."""
        try:
            returncode = self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            return LinkError(f"host {self.host.name}: {self.program.name} hung up and did not end")
        for thread in self._threads:
            thread.join()
        return explain(self.host, self.program, returncode, list(self._said))

    def stop(self) -> None:
        """Let the program end in order, and end the connection; harmless when it has ended."""
        self._stopping.set()
        if hasattr(self, "process"):
            assert self.process.stdin is not None
            with contextlib.suppress(OSError):
                self.process.stdin.close()
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                log.warning("%s does not let go; ending the connection", self.host.name)
                self.process.kill()
                self.process.wait()
            for thread in self._threads:
                thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _login(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                login_command(self.host, self._folder / "ssh", self.program.command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for this process, which then ends ssh in order
            )
        except FileNotFoundError as exc:
            self.stop()
            raise ConfigError("there is no ssh client here: install one (openssh-client)") from exc
        assert process.stdout is not None
        assert process.stderr is not None
        jobs = ((self._listen, process.stdout), (self._note, process.stderr))
        self._threads = [threading.Thread(target=job, args=(stream,), daemon=True) for job, stream in jobs]
        for thread in self._threads:
            thread.start()
        return process

    def _beat(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the connection is gone, or being closed
            while not self._stopping.wait(HEARTBEAT_S):
                with self._sending:
                    self.process.stdin.write(b"\n")
                    self.process.stdin.flush()

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
