"""Federated training by real Flower processes on this machine: over TLS, and with some of them killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ENVIRONMENT, ROOT

pytest.importorskip("flwr", reason="the extra federated is not installed")
SMALL = ("workflow=federated", "codec=quant8", "device=cpu", "tracking=none", "trainer.limit_train_batches=2")
SCRIPT = str(ROOT / "scripts" / "federated-deploy")
PATIENCE_S = 600  # Flower notices after a minute that a process is gone; on a busy machine each takes long to start


def environment(folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | ENVIRONMENT | {"PATH": path, "PYTHONPATH": str(ROOT), "FEDERATED_FOLDER": str(folder)}


@pytest.mark.slow  # Flower starts a process, with all its imports, for each of nine client messages
def test_a_deployment_gives_the_network_of_the_run_in_one_process_and_lets_no_stranger_in(tmp_path):
    done = subprocess.run(
        [SCRIPT, "--tls", "trainer.limit_train_batches=2"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "largest difference of a weight" in done.stdout
    assert done.stdout.count("refused: a SuperNode that is") == 2
    metrics = [json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("deployed", "in-process")]
    assert metrics[0]["uplink_bytes"] == metrics[1]["uplink_bytes"]


class Submitted:
    """A run that ``run.py`` has submitted; it is waited for at the end."""

    def __init__(self, deployment, folder, *overrides):
        self.folder, self.deployment = folder, deployment
        fixed = (*SMALL, "federated.num_clients=3", "federated.min_clients=2", "federated.rounds=3")
        command = [sys.executable, str(ROOT / "run.py"), *fixed, "federated.superlink=here", *overrides]
        variables = environment(deployment) | {"FLWR_HOME": str(deployment / "flwr"), "FLWR_TELEMETRY_ENABLED": "0"}
        self.process = subprocess.Popen(
            [*command, f"hydra.run.dir={folder}"],
            env=variables,
            cwd=deployment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, happened):
        """Wait for something; fails when the run ends before."""
        give_up = time.monotonic() + PATIENCE_S
        while not (found := happened()):
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < give_up, [log.read_text()[-2000:] for log in self.deployment.glob("*.log")]
            time.sleep(0.05)
        return found

    def output(self):
        return self.process.communicate(timeout=PATIENCE_S)[0]


def started(pid_file, name):
    """The process of that name below the one of the file; None before there is one."""
    below = psutil.Process(int(pid_file.read_text())).children(recursive=True)
    return next((process for process in below if name in " ".join(process.cmdline())), None)


@pytest.mark.slow  # a dozen processes, each with all its imports, and Flower's minute of patience twice
def test_a_killed_server_goes_on_from_its_last_round_and_a_killed_client_is_left_out(tmp_path):
    with subprocess.Popen([SCRIPT, "--wait"], env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as script:
        try:
            assert script.stdout.readline().startswith("ready:")
            first = Submitted(tmp_path, tmp_path / "first")
            first.until((tmp_path / "first" / "federated.safetensors").exists)
            server = started(tmp_path / "superlink.pid", "flwr-serverapp")
            server.kill()
            said = first.output()
            assert first.process.returncode == 1
            assert "left no weights" in said
            assert "Traceback" not in said

            seen = (tmp_path / "supernode2.log").read_text().count("Receiving: train")
            second = Submitted(tmp_path, tmp_path / "second", "federated.resume=first")
            second.until(lambda: (tmp_path / "supernode2.log").read_text().count("Receiving: train") > seen)
            node = psutil.Process(int((tmp_path / "supernode2.pid").read_text()))
            for process in (node, *node.children(recursive=True)):
                process.send_signal(signal.SIGKILL)
            said = second.output()
            assert second.process.returncode == 0, said
            metrics = json.loads((tmp_path / "second" / "metrics.json").read_text())
            assert metrics["rounds"] == 3
            assert metrics["failed_clients"] == 1
        finally:
            script.terminate()
