"""Fixtures: a real gRPC server in another process, and device ends that talk to it."""

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from splitsem_device.grpc.client import GrpcTail
from splitsem_device.grpc.connection import HEARTBEAT_S, Security
from splitsem_device.plan import Plan
from splitsem_device.retry import Backoff, Retry
from tests.conftest import ROOT
from tests.hatchery import Hatched
from tests.integration import tail_server
from tests.integration.network import small_frames, small_network, small_plan

QUICK = Backoff(retries=2, first_s=0.01, most_s=0.1, deadline_s=5.0)


@dataclasses.dataclass
class Running:
    """A server process and the address that it bound."""

    process: Hatched | subprocess.Popen[bytes]
    address: str


@pytest.fixture(scope="session")
def network():
    """The model and its graph."""
    return small_network()


@pytest.fixture(scope="session")
def frames() -> tuple[list[bytes], list[torch.Tensor]]:
    """2,000 identity payloads at stage1 and the outputs that their answers must equal."""
    return small_frames(2000)


@pytest.fixture(scope="session")
def plan(network) -> Plan:
    """What the tests' server agrees to."""
    return small_plan(*network)


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a server with settings for tail_server; all are killed after the test.

    ``is_forked`` False: by a Python of its own, whose memory no other process has used before.
    """
    started: list[Hatched | subprocess.Popen[bytes]] = []

    def start(is_forked: bool = True, **settings: object) -> Running:
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        log = folder / "stderr.log"
        if is_forked:
            process = Hatched(log, tail_server.main, settings, folder)
        else:
            program = f"from tests.integration.tail_server import *; main({settings}, Path({str(folder)!r}))"
            with log.open("w") as written:
                process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=written)
        started.append(process)
        address = folder / "address.txt"
        give_up = time.monotonic() + 60
        while not (address.exists() and address.read_text().endswith("\n")):
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"the server did not start: {log.read_text()}")
            time.sleep(0.005)
        return Running(process, address.read_text().strip())

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server with usual settings, shared by the tests that do it no harm."""
    generator = start_server.__wrapped__(tmp_path_factory.mktemp("server"))  # type: ignore[attr-defined]
    yield next(generator)()
    next(generator, None)


@pytest.fixture
def connect() -> Iterator[Callable[..., GrpcTail]]:
    """Placement ends, closed after the test."""
    made: list[GrpcTail] = []

    def make(
        address: str, window: int = 8, retry: Retry = QUICK, heartbeat_s: float = HEARTBEAT_S, **security: object
    ) -> GrpcTail:
        made.append(GrpcTail(address, window, retry, Security(**security), heartbeat_s))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for tail in made:
        tail.close()


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls") / "certs"
    subprocess.run(["make", "certs", f"CERTS={folder}"], cwd=ROOT, check=True, timeout=60, capture_output=True)
    return folder
