"""Fixtures: the real entry point, run in a process of its own and a folder of its own."""

import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import yaml
from hydra.core.hydra_config import HydraConfig

from splitsem.workflows import sweep
from tests import hatchery

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one makes no example wrong
hypothesis.settings.load_profile("any machine")
sweep.register()  # as run.py does before it composes a configuration
SHRUNK = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "workflow.num_samples=6")


@pytest.fixture(scope="session")
def trained_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of trained weights that the tests of this process share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run_py(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call ``run.py`` with overrides in the test's own folder; returns the finished process with its output.

    The process is forked with its imports made: ``run_py_anew`` is for what they have to do with.
    """
    numbers = itertools.count()

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        log = tmp_path.with_name(f"{tmp_path.name}-run{next(numbers)}.log")
        return hatchery.script(
            ROOT / "run.py", list(arguments), tmp_path, os.environ | ENVIRONMENT | environment, 300, log
        )

    return call


@pytest.fixture
def run_py_anew(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same by a Python of its own, as a user starts it."""

    def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *arguments],
            cwd=tmp_path,
            env=os.environ | ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return call


@pytest.fixture(scope="module")
def inventory(tmp_path_factory):
    """hosts.yaml with one host, this machine, behind an sshd that only one key opens."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None or shutil.which("ssh") is None:
        pytest.skip("needs openssh-server and -client")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "device", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/device.pub\n"
        "PidFile none\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\nStrictModes no\n"
    )
    host_key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    for name in ("known_hosts", "nobody_known"):
        text = f"UserKnownHostsFile {folder}/{name}\nGlobalKnownHostsFile none\n"
        (folder / f"config_{name}").write_text(text)
    facts = {
        "address": "127.0.0.1",
        "port": port,
        "identity_file": str(folder / "device"),
        "ssh_config": str(folder / "config_known_hosts"),
        "strict_host_key_checking": "yes",
        "folder": str(ROOT),
        "python": sys.executable,
        "settings": {"cache_dir": str(folder / "far")},
    }
    direct = facts | {"connect": "direct"}
    (folder / "hosts.yaml").write_text(yaml.safe_dump({"here": facts, "direct": direct}))
    if os.geteuid() == 0:  # sshd insists when it is root's
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "log").open("w") as log:
        sshd = subprocess.Popen([program, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        deadline = time.monotonic() + 20
        while "Server listening" not in (folder / "log").read_text():
            assert sshd.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield folder / "hosts.yaml"
    finally:
        sshd.terminate()
        sshd.wait(20)


@pytest.fixture(scope="module", autouse=True)
def _own_hydra_config() -> Iterator[None]:
    """No module of tests finds the configuration that another one left as that of the run."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = None
    yield
    HydraConfig.instance().cfg = before
