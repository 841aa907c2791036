"""SshBoard runs splitsem-device on a board that has only Python, for as long as the ssh connection lives.

The board's end is ``board_end.py``, which says what the two tell each other; it is sent first.
"""

import contextlib
import hashlib
import json
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from splitsem.errors import ConfigError, SplitSemError
from splitsem.remote.ssh_inventory import NO_PYTHON, Host, board_command, board_python
from splitsem.remote.ssh_session import Program, SshSession, to_line
from splitsem_device.peer_text import shown

log = logging.getLogger(__name__)
OLDEST_PYTHON = (3, 11)
_SOURCE = Path(__file__).with_name("board_end.py")
_POLL_S = 0.2
_MOST_LINE = 500  # characters of a line that is shown
_PIP = (  # what pip and venv say, and what it means
    (r"No space left on device", "no room on the disk for splitsem-device and what it needs"),
    (r"(\S+\.whl) is not a supported wheel on this platform", r"\1 is not for its processor or system ({machine})"),
    (
        r"No matching distribution found for (\S+)",
        r"pip finds no \1: is a package index reachable there? Else give workflow.wheels=FOLDER, see docs/device.md",
    ),
    (r"ensurepip is not available|No module named (?:venv|ensurepip|pip)", "{python} there makes no virtual "
     "environment with pip: install them (Debian, Raspberry Pi OS: sudo apt install python3-venv)"),
)  # fmt: skip


def program(host: Host, num_bytes: int) -> Program:
    """The board's end as a program of ``host``, and what its ends mean."""
    python = board_python(host)
    old = f"{python} there is too old: splitsem-device needs {'.'.join(map(str, OLDEST_PYTHON))}; check python"
    ends: dict[int | str, str] = {
        NO_PYTHON: f"there is no {python}: install Python, or check python",
        "SyntaxError": old,
        "is not defined": old,
    }
    return Program("the board", board_command(host, num_bytes), ends)


def install_trouble(step: str, lines: Sequence[str], python: str, machine: str) -> str:
    """Why the virtual environment (``venv``) or the wheel (``pip``) could not be had, in one line."""
    for pattern, meaning in _PIP:
        for line in lines:
            if found := re.search(pattern, line):
                return found.expand(meaning).format(python=python, machine=machine)
    errors = [line for line in lines if "error" in line.lower()] or [*lines]
    return f"{step} failed: {shown(errors[-1], _MOST_LINE) if errors else 'it said nothing'}"


class SshBoard:
    """A board with Python, reached over ssh; as a context manager, it ends what runs there.

    Args:
        host: the board.

    Attributes:
        machine: its processor, as wheels name it.
        num_sent_bytes: bytes of files that it lacked; secrets do not count.

    Raises:
        ConfigError: the login or the interpreter is wrong.
        LinkError: the machine cannot be reached.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        source = _SOURCE.read_bytes()
        self.session = SshSession(host, program(host, len(source)))
        try:
            self.session.send([source])
            self.session.beat()
            facts = self._hear("python")
            version = tuple(facts["python"])
            if version < OLDEST_PYTHON:
                found, needed = (".".join(map(str, each)) for each in (version, OLDEST_PYTHON))
                raise self._refusal(f"{board_python(host)} there is {found}, and {needed} is needed; check python")
            self.machine = str(facts["machine"])
        except BaseException:
            self.session.stop()
            raise
        self.num_sent_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.stop()

    def send(self, files: Sequence[Path], secrets: Mapping[str, Path]) -> str:
        """Have files on the board; what it has is not sent again. Returns the run's folder there.

        Args:
            files: bundle and wheels; the run's folder has them by name.
            secrets: name in the run's folder → file that goes with the run's folder.
        """
        contents = [path.read_bytes() for path in files]
        kept = {name: path.read_bytes() for name, path in secrets.items()}
        facts = [
            {"name": path.name, "sha256": hashlib.sha256(content).hexdigest(), "num_bytes": len(content)}
            for path, content in zip(files, contents, strict=True)
        ]
        store = self.host.folder or "splitsem-device"
        self.session.send([to_line({"store": store, "files": facts, "secrets": [*kept]})])
        answer = self._hear("missing")
        missing = [contents[int(k)] for k in answer["missing"]]
        self.num_sent_bytes = sum(map(len, missing))
        for content in (*missing, *kept.values()):
            self.session.send([to_line({"num_bytes": len(content)}), content])
        self._hear("kept")
        return str(answer["run"])

    def install(self, wheel: int, is_offline: bool) -> bool:
        """Make a virtual environment with a wheel, unless there is one; returns whether it was made.

        Args:
            wheel: its number among the sent files.
            is_offline: pip uses the sent files only, and what the system has.
        """
        self.session.send([to_line({"install": wheel, "offline": is_offline})])
        lines: list[str] = []
        ended = self._until_ended(lines.append, is_patient=False)
        if ended["ended"]:
            why = install_trouble(str(ended["step"]), lines, board_python(self.host), self.machine)
            raise self._refusal(why)
        return bool(ended["step"] != "present")

    def run(
        self, arguments: Sequence[str], show: Callable[[str], None], stopped: threading.Event | None = None
    ) -> tuple[int, dict[str, Any] | None]:
        """Run splitsem-device.

        Args:
            arguments: of its command line.
            show: gets each line that it writes.
            stopped: set from elsewhere, it lets the program stop in order.

        Returns:
            Its exit status, and what it wrote to ``report.json`` of the run's folder.
        """
        over = threading.Event()
        self.session.send([to_line({"command": [*arguments]})])
        if stopped is not None:
            threading.Thread(target=self._stop_when, args=(stopped, over), daemon=True).start()
        try:
            ended = self._until_ended(show, is_patient=True)
        finally:
            over.set()
        report = ended["report"]
        return int(ended["ended"]), None if report is None else json.loads(report)

    def tunnel(self, target: str) -> str:
        """A port of the board's loopback from which frames go through ssh to ``target``; returns its ``host:port``."""
        done = self.session.forward("-R", f"127.0.0.1:0:{target}")
        if done.returncode or not done.stdout.strip().isdigit():
            raise self.session.no_tunnel(done)
        return f"127.0.0.1:{int(done.stdout)}"

    def _stop_when(self, stopped: threading.Event, over: threading.Event) -> None:
        while not stopped.wait(_POLL_S):
            if over.is_set():
                return
        log.info("Stopping %s", self.host.name)
        with contextlib.suppress(SplitSemError):  # which whoever listens is told, too
            self.session.send([to_line({"stop": True})])

    def _until_ended(self, show: Callable[[str], None], is_patient: bool) -> dict[str, Any]:
        while "ended" not in (facts := self._hear("said", "ended", is_patient=is_patient)):
            show(shown(str(facts["said"]).expandtabs(), _MOST_LINE))
        return facts

    def _hear(self, *names: str, is_patient: bool = False) -> dict[str, Any]:
        facts = self.session.hear(*names, "failed", timeout_s=None if is_patient else self.host.start_timeout_s)
        if "failed" in facts:
            raise self._refusal(shown(facts["failed"], _MOST_LINE))
        return facts

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(f"host {self.host.name}: {why}")
