"""The datagram transport between two network namespaces joined by a rate-limited veth pair; needs root, ip and tc."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import ENVIRONMENT, ROOT

pytestmark = pytest.mark.slow
LINE_BPS = 20e6
FRAME_BYTES = 14 + 28 + 43 + 1400
"""What the line carries for a full fragment: Ethernet, IP and UDP, packet, payload."""
CAPACITY_BPS = LINE_BPS * 1400 / FRAME_BYTES
DEVICE, SERVER = (f"splitsem-udp-{end}-{os.getpid()}" for end in ("d", "s"))


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def python(namespace: str, *arguments: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def line() -> Iterator[None]:
    """Two namespaces, 10.97.0.1 and 10.97.0.2; from the device on a token bucket of 20 Mbit/s with a 24 ms queue."""
    if os.geteuid() or not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("network namespaces need root, ip and tc")
    try:
        run("ip", "netns", "add", DEVICE)
        run("ip", "netns", "add", SERVER)
        veth = ["type", "veth", "peer", "name", "there", "netns", SERVER]
        run("ip", "link", "add", "here", "netns", DEVICE, *veth)
        for namespace, name, address in ((DEVICE, "here", "10.97.0.1/24"), (SERVER, "there", "10.97.0.2/24")):
            run("ip", "-n", namespace, "address", "add", address, "dev", name)
            run("ip", "-n", namespace, "link", "set", name, "up")
        shape = ["tbf", "rate", "20mbit", "burst", "5kb", "limit", "60kb"]
        run("ip", "netns", "exec", DEVICE, "tc", "qdisc", "add", "dev", "here", "root", *shape)
        yield
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no network namespaces here: {exc.stderr.strip()}")
    finally:
        for namespace in (DEVICE, SERVER):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


@pytest.fixture(scope="module")
def measure(line: None) -> Iterator[Callable[..., dict]]:
    """Goodput of a client in the device's namespace to a server in the other."""
    server = python(SERVER, "tests.integration.udp_tail_server", "10.97.0.2", "0", "{}")
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()

        def call(**settings: object) -> dict:
            client = python(DEVICE, "tests.integration.udp_goodput", address, json.dumps(settings))
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
