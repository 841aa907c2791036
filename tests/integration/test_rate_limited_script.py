"""scripts/rate-limited-line: a line for as long as a command runs, and nothing left of it; needs root, ip and tc."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

SCRIPT = str(ROOT / "scripts" / "rate-limited-line")


def namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout


@pytest.fixture(autouse=True, scope="module")
def can_make_one() -> None:
    if os.geteuid() or not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("network namespaces need root, ip and tc")
    if subprocess.run([SCRIPT, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespace 'far' here, or another run's")


def test_the_line_has_its_rate_both_ways_and_goes_with_the_command_that_fails():
    shown = "tc qdisc show dev near; ip netns exec far tc qdisc show dev there; ip netns exec far sleep 60 & exit 7"
    done = subprocess.run([SCRIPT, "-r", "20mbit", "bash", "-c", shown], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert done.stdout.count("rate 20Mbit") == 2
    assert "far" not in namespaces()  # the process behind the line is gone, too


def test_one_line_after_the_other_finds_nothing_of_the_last():
    """A namespace's interfaces outlive it for a moment, in which no next line can be made, unless they are removed."""
    for _ in range(5):
        assert subprocess.run([SCRIPT, "true"], check=False).returncode == 0
        assert not Path("/sys/class/net/near").exists()


def test_a_delay_that_the_kernel_has_not_leaves_nothing():
    done = subprocess.run([SCRIPT, "-d", "nonsense", "true"], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "far" not in namespaces()


def test_a_command_is_asked_for():
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: rate-limited-line" in done.stderr
