"""Fixtures: the real entry point, run in a process of its own and a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from splitsem.workflows import sweep

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
sweep.register()  # as run.py does before it composes a configuration
SHRUNK = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "workflow.num_samples=6")


@pytest.fixture(scope="session")
def trained_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of trained weights that the tests of this process share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run_py(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call ``run.py`` with overrides in the test's own folder; returns the finished process with its output."""

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
