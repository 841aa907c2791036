"""Threads: what OpenMP is told before torch is loaded, by the entry point itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SEEN = "import os, sys, run; print('torch' in sys.modules, *(os.environ.get(n) for n in %r))"
NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({}, "False 1000 None"),
        ({"GOMP_SPINCOUNT": "7"}, "False 7 None"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "False None PASSIVE"),
    ],
)
def test_the_entry_point_has_threads_spin_briefly_unless_the_environment_says_otherwise(
    given: dict[str, str], seen: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | given
    command = [sys.executable, "-c", SEEN % (NAMES,)]
    output = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert output.split() == seen.split()
