"""The datagram transport between two network namespaces joined by a rate-limited veth pair; needs root, ip and tc."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from benchmarks.harness.line import SERVER_ADDRESS, Line, NoNamespacesError, rate_limited_line
from tests.conftest import ENVIRONMENT, ROOT

pytestmark = pytest.mark.slow
LINE_BPS = 20e6
FRAME_BYTES = 14 + 28 + 43 + 1400
"""What the line carries for a full fragment: Ethernet, IP and UDP, packet, payload."""
CAPACITY_BPS = LINE_BPS * 1400 / FRAME_BYTES


def python(line: Line, namespace: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *arguments]
    return line.start(namespace, command, cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE)


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    """From the device on a token bucket of 20 Mbit/s with a 24 ms queue."""
    try:
        with rate_limited_line("splitsem-udp", LINE_BPS) as line:
            yield line
    except NoNamespacesError as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="module")
def measure(line: Line) -> Iterator[Callable[..., dict]]:
    """Goodput of a client in the device's namespace to a server in the other."""
    server = python(line, line.server, "tests.integration.udp_tail_server", SERVER_ADDRESS, "0", "{}")
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()

        def call(**settings: object) -> dict:
            client = python(line, line.device, "tests.integration.udp_goodput", address, json.dumps(settings))
            return json.loads(client.communicate(timeout=60)[0])

        yield call
    finally:
        server.kill()
        server.communicate()


def test_a_line_of_unknown_rate_is_filled_and_not_flooded(measure):
    for _ in range(3):  # a busy machine can starve both ends for a while
        found = measure()
        if found["goodput_bps"] > 0.95 * CAPACITY_BPS:
            break
    assert 0.95 * CAPACITY_BPS < found["goodput_bps"] < 1.02 * CAPACITY_BPS
    assert found["fragments_lost"] < 0.1 * 6_000_000 / 1400
    assert found["timeouts"] <= 2


def test_pacing_below_the_line_rate_loses_nothing(measure):
    found = measure(rate_bps=0.95 * LINE_BPS)
    assert found["fragments_lost"] == 0
    assert found["goodput_bps"] > 0.9 * CAPACITY_BPS


def test_a_fragment_beyond_the_mtu_is_named(measure):
    found = measure(fragment_bytes=3000, retries=2)
    assert "fragment_bytes=3000 does not fit into the MTU" in found["error"]
