"""SshServer runs a server on another machine for as long as the ssh connection lives. The messages, in order:

    edge    {"protocol", "sections", "settings", "weights": {"sha256", "num_bytes"}}
    server  {"weights": "missing" | "present", "pid"}
    edge    the weights file's bytes, when the file is missing; from here on an empty line every HEARTBEAT_S
    server  {"serving": "HOST:PORT"}

The server ends when its stdin ends, or after SILENCE_S without input.
"""

import hashlib
import logging
import socket
import time
from pathlib import Path
from typing import Any

from splitsem.remote.ssh_inventory import NO_FOLDER, NO_PYTHON, Host, server_command, server_folder, server_python
from splitsem.remote.ssh_session import Program, SshSession, to_line

PROTOCOL_VERSION = 1
SILENCE_S = 60.0
log = logging.getLogger(__name__)
_WILDCARDS = ("0.0.0.0", "[::]")


def program(host: Host) -> Program:
    """The server as a program of ``host``, and what its ends mean."""
    folder, python = server_folder(host), server_python(host)
    ends: dict[int | str, str] = {
        NO_FOLDER: f"there is no folder {folder}; folder must be the checkout there",
        NO_PYTHON: f"there is no {python} in {folder}; check python, or `make setup`",
        "No module named": (
            f"{python} there cannot import what is needed (LAST); "
            f"is {folder} a checkout as new as this one, and set up?"
        ),
    }
    return Program("the server", server_command(host), ends)


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
        log.info("Starting the server on %s (%s)", host.name, host.address)
        self.session = SshSession(host, program(host))
        try:
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
        return self.session.is_running

    def stop(self) -> None:
        """Let the server answer what it has, then end server and connection; harmless when the server has ended."""
        self.session.stop()

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
        self.session.send([to_line(hello)])
        first = self._hear("weights")
        self.pid, self.num_sent_bytes = int(first["pid"]), 0
        log.debug("%s: process %d has %s weights", self.host.name, self.pid, first["weights"])
        if first["weights"] == "missing":
            with weights.open("rb") as file:
                while chunk := file.read(1 << 20):
                    self.session.send([chunk])
            self.num_sent_bytes = num_bytes
        self.session.beat()
        return self._hear("serving")

    def _reach(self, bound: str) -> str:
        address, _, port = bound.rpartition(":")
        if self.host.connect == "direct":
            return f"{self.host.address if address in _WILDCARDS else address}:{port}"
        for _ in range(3):  # another process may take the port before ssh does
            local_port = _free_port()
            done = self.session.forward("-L", f"127.0.0.1:{local_port}:127.0.0.1:{int(port)}")
            if done.returncode == 0:
                return f"127.0.0.1:{local_port}"
        raise self.session.no_tunnel(done)

    def _hear(self, name: str) -> dict[str, Any]:
        return self.session.hear(name, timeout_s=self.host.start_timeout_s)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
