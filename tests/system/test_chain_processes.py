"""The page on a chain of machines (docs/how-to/chain-of-machines.md): its commands, as processes on three machines.

The machines are network namespaces where these can be made (root), else the loopback.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.chain_line import ChainLine, chain_line
from harness.line import NoNamespacesError
from tests.conftest import ENVIRONMENT, ROOT

pytestmark = pytest.mark.slow  # four starts of a process
SHRUNK = ("device=cpu", "tracking=none", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "cache_dir=cache")
OPEN = "transport.security.insecure=true"
BRIEF = ("workflow.num_samples=20", "workflow.num_timed=10", "workflow.num_probes=10", "workflow.num_paced=20")


def commands() -> list[list[str]]:
    """The page's commands after ``python run.py``, in order: joint, server, gateway, camera."""
    text = (ROOT / "docs" / "how-to" / "chain-of-machines.md").read_text().replace("\\\n", " ")
    return [shlex.split(line)[2:] for line in text.splitlines() if line.startswith("python run.py")]


@pytest.fixture(scope="module")
def line() -> Iterator[ChainLine]:
    try:
        with chain_line("splitsem-chain") as line:
            yield line
    except NoNamespacesError:
        yield ChainLine({})


@pytest.fixture(scope="module")
def start(line: ChainLine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    folder, started = tmp_path_factory.mktemp("machines"), []

    def begin(machine: str, words: list[str], *settings: str) -> subprocess.Popen[str]:
        places = {"127.0.0.1:50052": f"{line.addresses['gateway']}:50052"}
        places |= {"127.0.0.1:50053": f"{line.addresses['server']}:50053"}
        words = [part for word in words for part in [_placed(word, places)]]
        command = [sys.executable, str(ROOT / "run.py"), *words, *SHRUNK, *settings]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = line.start(machine, command, cwd=folder, env=os.environ | ENVIRONMENT, **streams)
        started.append(process)
        return process

    begin.folder = folder  # type: ignore[attr-defined]
    yield begin
    for process in started:
        process.kill()
        process.communicate()


def _placed(word: str, places: dict[str, str]) -> str:
    for page, here in places.items():
        word = word.replace(page, here)
    return word


def up(process: "subprocess.Popen[str]", folder: Path) -> None:
    give_up = time.monotonic() + 120
    while not (folder / "address.txt").exists():
        if process.poll() is not None or time.monotonic() > give_up:
            process.kill()
            pytest.fail(process.communicate()[0])
        time.sleep(0.05)


def test_three_processes_are_the_unsplit_network_and_name_the_one_that_is_down(start):
    folder = start.folder
    _, server, gateway, camera = commands()
    camera = [word for word in camera if not word.startswith(("codec=", "workflow.onward="))]
    exact = [*camera, "codec=identity", "workflow.onward=[[stage2,identity]]", *BRIEF]
    servers = [start("server", server, OPEN, "hydra.run.dir=last")]
    up(servers[0], folder / "last")  # trains, and the others find its weights
    servers.append(start("gateway", gateway, OPEN, "hydra.run.dir=middle"))
    up(servers[1], folder / "middle")
    output = start("camera", exact, OPEN, "hydra.run.dir=one").communicate(timeout=200)[0]
    metrics = json.loads((folder / "one" / "metrics.json").read_text())
    assert metrics["score"] == metrics["score_unsplit"]
    assert metrics["score_delta_ci95"] == 0
    assert metrics["frames_sent"] == metrics["frames_answered"] >= 20
    assert metrics["retries"] == 0
    assert "server_s is the work of all machines behind the first hop. Predicted of each machine: " in output
    machines_s = [metrics[f"machine_{n}_s"] for n in range(3)]
    assert min(machines_s) > 0
    assert sum(machines_s[1:]) == pytest.approx(metrics["server_s"])
    assert metrics["cycle_s"] >= max(*machines_s, metrics["link_busy_s"], metrics["hop_1_busy_s"])
    assert metrics["num_hosts"] == 1
    assert "presumes a machine for each end; here 3 processes share 1." in output
    assert metrics["answer_s"] >= metrics["hop_1_s"] >= 0

    coded = start("camera", commands()[3], OPEN, "hydra.run.dir=two", *BRIEF).communicate(timeout=200)[0]
    coarse = json.loads((folder / "two" / "metrics.json").read_text())
    assert coarse["payload_bytes"] < metrics["payload_bytes"] / 2, coded

    servers[0].kill()
    servers[0].wait()
    patience = ("transport.retry.patience_s=2", "hydra.run.dir=three")
    down = start("camera", exact, OPEN, *patience)
    told = down.communicate(timeout=200)[0]
    assert down.returncode == 1
    assert "Traceback" not in told
    assert ":50053 refuses connections" in told
    assert "next machine" in told
    servers[1].terminate()
    assert servers[1].wait(30) == 0


def test_the_choice_of_the_page_is_made_and_says_how_to_run_it(start):
    process = start("camera", commands()[0], "hydra.run.dir=chosen", "workflow.num_samples=20")
    told = process.communicate(timeout=200)[0]
    assert process.returncode == 0, told
    found = json.loads((start.folder / "chosen" / "chain.json").read_text())
    assert found["machines"] == ["raspberry_pi_4", "jetson_tx2", "datacenter_gpu"]
    assert "to run it" in told
