"""The page on two machines, followed in two network namespaces joined by a slow line; needs root."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.line import SERVER_ADDRESS, Line, NoNamespacesError, rate_limited_line
from tests.conftest import ENVIRONMENT, ROOT

LINE_BPS, PAGE_ADDRESS = 20e6, "192.168.1.20"
SHRUNK = ("device=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=2")
BRIEF = ("workflow.num_samples=20", "workflow.num_timed=20", "workflow.num_probes=20")
Run = Callable[..., "subprocess.Popen[str]"]


def page_command(word: str) -> list[str]:
    """The page's command for two machines that holds this word, with the addresses of the namespaces."""
    text = (ROOT / "docs" / "two-machines.md").read_text().replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if word in line and PAGE_ADDRESS in line]
    words = shlex.split(line, comments=True)
    return [word.replace(PAGE_ADDRESS, SERVER_ADDRESS) for word in words]


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """20 Mbit/s from the device to the server, with a queue that holds a frame of this size."""
    try:
        with rate_limited_line("splitsem-two", LINE_BPS, burst_bytes=16_000, queue_bytes=1_000_000) as line:
            yield line
    except NoNamespacesError as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both machines' folder: what the page says to copy is there."""
    return tmp_path_factory.mktemp("machines")


@pytest.fixture(scope="module")
def run(line: Line, folder: Path) -> Run:
    """A command of the page in a namespace, with settings that make it short."""

    def start(namespace: str, command: list[str], *settings: str) -> subprocess.Popen[str]:
        assert command[:2] == ["python", "run.py"]
        flags = [word for word in command if word == "-m"]  # must not stand between settings
        words = [word for word in command[2:] if word != "-m"]
        command = [sys.executable, str(ROOT / "run.py"), *flags, *words, *settings, *SHRUNK]
        environment = os.environ | ENVIRONMENT
        return line.start(
            namespace, command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    return start


@pytest.fixture(scope="module")
def served(line: Line, run: Run, folder: Path) -> Iterator[None]:
    """The server of the page, in its namespace, with TLS; it ends as a service manager would end it."""
    make, *arguments = page_command("make certs")
    subprocess.run([make, "-f", str(ROOT / "Makefile"), *arguments], cwd=folder, check=True, capture_output=True)
    process = run(line.server, page_command("workflow=serve"), "tracking=none", "hydra.run.dir=served")
    try:
        give_up = time.monotonic() + 120
        while not (address := folder / "served" / "address.txt").exists():
            if process.poll() is not None or time.monotonic() > give_up:
                process.kill()
                pytest.fail(process.communicate()[0])
            time.sleep(0.05)
        assert address.read_text().startswith(SERVER_ADDRESS)
        yield
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.thorough
def test_a_device_offloads_over_tls_to_a_server_behind_a_slow_line(line, served, run, folder):
    command = [word for word in page_command("workflow=offload") if word != "-m" and "split.point" not in word]
    settings = ("split.point=stage1", "codec=identity", "tracking=none", "hydra.run.dir=one", *BRIEF)
    device = run(line.device, command, *settings)
    output = device.communicate(timeout=120)[0]
    assert device.returncode == 0, output
    metrics = json.loads((folder / "one" / "metrics.json").read_text())
    assert metrics["score"] == metrics["score_unsplit"]
    assert metrics["frames_sent"] == metrics["frames_answered"]
    assert metrics["server_timing"] == "measured on the server"
    # no frame can be faster than the line carries what its bucket does not hold
    assert metrics["link_bandwidth_bps"] == pytest.approx(line.tcp_capacity_bps, rel=0.2)
    assert metrics["measured_throughput_hz"] < 1.1 * line.tcp_capacity_bps / (8 * metrics["payload_bytes"])


@pytest.mark.slow  # three more starts of a process, a sweep's report and a table of all points
def test_the_readme_sweeps_and_profiles_between_two_machines(line, served, run, folder):
    sweep = run(line.device, page_command("workflow=offload"), "hydra.sweep.dir=swept", *BRIEF)
    output = sweep.communicate(timeout=240)[0]
    assert sweep.returncode == 0, output
    assert "stage2" in (folder / "swept" / "results.csv").read_text()

    profile = run(line.device, page_command("workflow=profile"), "workflow.budget_s=0.05", "hydra.run.dir=tables")
    output = profile.communicate(timeout=240)[0]
    assert profile.returncode == 0, output
    (pair,) = re.findall(r"python run.py (hardware=local .*)", output)
    used = run(
        line.device, ["python", "run.py", *shlex.split(pair)], "hydra.run.dir=used", "split.point=stage1", BRIEF[0]
    )
    output = used.communicate(timeout=240)[0]
    assert used.returncode == 0, output
    metrics = json.loads((folder / "used" / "metrics.json").read_text())
    server = json.loads((folder / "tables" / "server_lut.json").read_text())
    assert (metrics["edge_timing"], metrics["server_timing"]) == ("lut", "lut")
    assert metrics["tail_s"] == server["points"]["stage1"]["tail_s"]["median"]
