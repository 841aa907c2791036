"""Frames over a line that loses packets: what docs/links.md claims. Needs root, ip and /dev/net/tun."""

import json
import subprocess
import sys

import pytest

from harness.line import NoNamespacesError
from harness.lossy_line import Shape, lossy_line
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
LINE_BPS = 20e6


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, dict]:
    """What benchmarks/udp_lines.py finds for each way at 1 % loss, for frames of 64 KB."""
    try:
        with lossy_line("splitsem-test", Shape(LINE_BPS)):
            pass
    except NoNamespacesError as exc:
        pytest.skip(str(exc))
    path = tmp_path_factory.mktemp("lines") / "rows.json"
    chosen = "--rates 20 --losses 0.01 --sizes 65536 --seconds 2 --ways grpc-cubic udp --json"
    command = [sys.executable, "benchmarks/udp_lines.py", *chosen.split(), str(path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    return {row["way"]: row for row in json.loads(path.read_text())}


def test_a_line_of_unknown_rate_is_filled_in_spite_of_losses_and_not_flooded(found):
    assert 0.75 * LINE_BPS < found["udp"]["goodput_bps"] < LINE_BPS
    assert found["udp"]["lost"] < 0.03
    assert 0.1 < found["udp"]["filled"] < 0.7


def test_frames_that_tolerate_loss_are_faster_than_those_that_must_arrive(found):
    assert found["udp"]["goodput_bps"] > 1.3 * found["grpc-cubic"]["goodput_bps"]
    assert found["udp"]["p95_s"] < found["grpc-cubic"]["p95_s"]
