"""A rate-limited line on one machine: two network namespaces joined by a veth pair with token buckets; needs root."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

DEVICE_ADDRESS, SERVER_ADDRESS = "10.97.0.1", "10.97.0.2"
ETHERNET_BYTES, TCP_BYTES, MTU = 14, 52, 1500
"""Headers that a token bucket counts: Ethernet's, and those of IP and TCP with time stamps."""


class NoNamespacesError(Exception):
    """This machine or user cannot make network namespaces; the message says why."""


@dataclass(frozen=True)
class Line:
    """A rate-limited line that is up.

    Attributes:
        device, server: names of the edge's and the server's namespace, at ``DEVICE_ADDRESS`` and ``SERVER_ADDRESS``.
        rate_bps: bits per second that pass from the edge to the server, headers included.
    """

    device: str
    server: str
    rate_bps: float

    @property
    def tcp_capacity_bps(self) -> float:
        """Bits per second left for the bytes of a TCP connection: full segments, without headers."""
        return self.rate_bps * (MTU - TCP_BYTES) / (MTU + ETHERNET_BYTES)

    def start(self, namespace: str, command: Sequence[str], **settings: Any) -> subprocess.Popen[str]:
        """Start a process in a namespace; ``settings`` go to ``Popen``."""
        return subprocess.Popen(["ip", "netns", "exec", namespace, *command], text=True, **settings)

    def set_rate(self, rate_bps: float, burst_bytes: int = 5_000, queue_bytes: int = 60_000) -> "Line":
        """This line with another rate; a queue of ``queue_bytes`` holds what comes faster, and drops the rest."""
        shape = _bucket(rate_bps, burst_bytes, queue_bytes)
        run("ip", "netns", "exec", self.device, "tc", "qdisc", "replace", "dev", "here", "root", *shape)
        return Line(self.device, self.server, rate_bps)


@contextmanager
def rate_limited_line(
    name: str, rate_bps: float, burst_bytes: int = 5_000, queue_bytes: int = 60_000, both: bool = False
) -> Iterator[Line]:
    """A line that is up while the context lasts; ``name`` and the process id name its namespaces.

    The token bucket holds ``burst_bytes`` and the queue ``queue_bytes``; the line slows the server's answers only where
    ``both`` ways have a token bucket.

    Raises:
        NoNamespacesError: the user is not root, ip or tc is missing, or the kernel refuses.
    """
    if os.geteuid() or not (shutil.which("ip") and shutil.which("tc")):
        raise NoNamespacesError("network namespaces need root, ip and tc")
    device, server = (f"{name}-{end}-{os.getpid()}" for end in ("d", "s"))
    try:
        try:
            run("ip", "netns", "add", device)
            run("ip", "netns", "add", server)
            veth = ["type", "veth", "peer", "name", "there", "netns", server]
            run("ip", "link", "add", "here", "netns", device, *veth)
            for namespace, end, address in ((device, "here", DEVICE_ADDRESS), (server, "there", SERVER_ADDRESS)):
                run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", end)
                run("ip", "-n", namespace, "link", "set", end, "up")
                run("ip", "-n", namespace, "link", "set", "lo", "up")
            line = Line(device, server, rate_bps).set_rate(rate_bps, burst_bytes, queue_bytes)
            if both:
                shape = _bucket(rate_bps, burst_bytes, queue_bytes)
                run("tc", "-n", server, "qdisc", "add", "dev", "there", "root", *shape)
        except subprocess.CalledProcessError as exc:
            raise NoNamespacesError(f"no network namespaces here: {exc.stderr.strip()}") from exc
        yield line
    finally:
        for namespace in (device, server):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def environment(**settings: str) -> Mapping[str, str]:
    """This process's environment for its children: one thread each, no telemetry."""
    return os.environ | {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", **settings}


def _bucket(rate_bps: float, burst_bytes: int, queue_bytes: int) -> list[str]:
    return f"tbf rate {round(rate_bps)}bit burst {burst_bytes} limit {queue_bytes}".split()


def run(*command: str) -> None:
    """Run a command to its end. Raises CalledProcessError."""
    subprocess.run(command, check=True, capture_output=True, text=True)
