"""A chain of three machines on one: namespaces for camera, gateway and server, joined by two veth pairs; needs root."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .line import NoNamespacesError, run  # relative: the error is one class for scripts and tests

MACHINES = ("camera", "gateway", "server")
GATEWAY_ADDRESS, SERVER_ADDRESS = "10.98.1.2", "10.98.2.2"


@dataclass(frozen=True)
class ChainLine:
    """Three namespaces that are up.

    Attributes:
        namespaces: by machine; none where processes are to run as they are, on the loopback.
    """

    namespaces: dict[str, str]

    @property
    def addresses(self) -> dict[str, str]:
        """Where gateway and server listen."""
        if not self.namespaces:
            return {"gateway": "127.0.0.1", "server": "127.0.0.1"}
        return {"gateway": GATEWAY_ADDRESS, "server": SERVER_ADDRESS}

    def start(self, machine: str, command: Sequence[str], **settings: Any) -> "subprocess.Popen[str]":
        """Start a process on a machine; ``settings`` go to ``Popen``."""
        prefix = ["ip", "netns", "exec", self.namespaces[machine]] if self.namespaces else []
        return subprocess.Popen([*prefix, *command], text=True, **settings)


@contextmanager
def chain_line(name: str) -> Iterator[ChainLine]:
    """A chain that is up while the context lasts; ``name`` and the process id name its namespaces.

    Raises:
        NoNamespacesError: the user is not root, ip is missing, or the kernel refuses.
    """
    if os.geteuid() or not shutil.which("ip"):
        raise NoNamespacesError("network namespaces need root and ip")
    names = {machine: f"{name}-{machine[0]}-{os.getpid()}" for machine in MACHINES}
    try:
        try:
            for namespace in names.values():
                run("ip", "netns", "add", namespace)
                run("ip", "-n", namespace, "link", "set", "lo", "up")
            for number, (here, there) in enumerate(pairwise(MACHINES), 1):
                veth = ["type", "veth", "peer", "name", f"back{number}", "netns", names[there]]
                run("ip", "link", "add", f"to{number}", "netns", names[here], *veth)
                for machine, end, host in ((here, f"to{number}", 1), (there, f"back{number}", 2)):
                    run("ip", "-n", names[machine], "address", "add", f"10.98.{number}.{host}/24", "dev", end)
                    run("ip", "-n", names[machine], "link", "set", end, "up")
        except subprocess.CalledProcessError as exc:
            raise NoNamespacesError(f"no network namespaces here: {exc.stderr.strip()}") from exc
        yield ChainLine(names)
    finally:
        for namespace in names.values():
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
