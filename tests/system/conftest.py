"""Fixtures: a server that runs workflow=serve through the real entry point."""

import contextlib
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.site.metrics_page import known
from tests.conftest import ENVIRONMENT, ROOT

Served = tuple[str, subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def _metrics_are_explained(tmp_path: Path) -> Iterator[None]:
    """Each metric of each run, and each column of each sweep, that a test of this folder makes is explained."""
    yield
    names = {name for path in tmp_path.rglob("metrics.json") for name in json.loads(path.read_text() or "{}")}
    for path in tmp_path.rglob("results.csv"):
        with path.open(newline="") as table:
            names |= set(next(csv.reader(table), []))
    unknown = sorted(name for name in names if not known(name))
    assert unknown == [], "scripts/site/metrics_page.py: say in WORKFLOWS what these metrics mean"


@pytest.fixture
def serve_py(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start ``workflow=serve`` with overrides in the test's folder (its run in ``served``); its address and process."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> Served:
            options = [word for word in arguments if word.startswith("-")]  # Hydra takes them before overrides only
            fixed = (*options, "workflow=serve", "transport.bind=127.0.0.1:0", "hydra.run.dir=served")
            arguments = tuple(word for word in arguments if word not in options)
            process = subprocess.Popen(
                [sys.executable, str(ROOT / "run.py"), *fixed, *arguments],
                cwd=tmp_path,
                env=os.environ | ENVIRONMENT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            address = tmp_path / "served" / "address.txt"
            give_up = time.monotonic() + 120
            while not (address.exists() and address.read_text().endswith("\n")):
                if process.poll() is not None or time.monotonic() > give_up:
                    process.kill()
                    pytest.fail(process.communicate()[0])
                time.sleep(0.05)
            return address.read_text().strip(), process

        yield start
