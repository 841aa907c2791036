"""Federated training by real Flower processes on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT

pytest.importorskip("flwr", reason="the extra federated is not installed")


@pytest.mark.slow  # Flower starts a process, with all its imports, for each of nine client messages
def test_a_deployment_gives_the_network_of_the_run_in_one_process(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(ROOT / "scripts" / "federated-deploy"), "trainer.limit_train_batches=2"],
        env=os.environ | ENVIRONMENT | {"PATH": path, "PYTHONPATH": str(ROOT), "FEDERATED_FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "largest difference of a weight" in done.stdout
