"""SSH start against a real sshd of this test's own, on this machine's loopback."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import psutil
import pytest
from hydra import compose, initialize_config_dir

from splitsem.errors import ConfigError, LinkError
from splitsem.remote.ssh_inventory import Host, load
from splitsem.remote.ssh_server import SshServer
from splitsem.workflows import assemble, ssh_start
from splitsem.workflows.serve import remote_transport
from tests.conftest import ROOT

UNTRAINED = ("task=digits", "trainer.max_epochs=0", "device=cpu", "device.num_threads=1", "tracking=none")
DEVICE = """
import json, logging, pathlib, sys
from splitsem.remote.ssh_inventory import Host
from splitsem.remote.ssh_server import SshServer
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(message)s")
SshServer(Host(**json.loads(sys.argv[1])), {}, pathlib.Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def host(inventory) -> Host:
    return load(inventory)["here"]


def assert_gone(pid: int, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} stayed behind"
            time.sleep(0.02)


@pytest.mark.thorough
def test_a_run_starts_its_server_sends_it_the_weights_and_leaves_nothing_behind(run_py, inventory, tmp_path):
    done = run_py(
        "workflow=offload", *UNTRAINED, "transport.start=ssh", "transport.host=here",
        f"transport.inventory={inventory}", "codec=identity", "split.point=stage1", "workflow.num_samples=5",
        "workflow.num_timed=5", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["score"] == metrics["score_unsplit"]
    assert metrics["frames_answered"] >= 10
    assert metrics["start_s"] > 0
    (weights,) = (tmp_path / ".cache" / "weights").glob("*.safetensors")
    (sent,) = (inventory.parent / "far" / "received").glob("*.safetensors")
    assert sent.read_bytes() == weights.read_bytes()
    (pid,) = re.findall(r"process (\d+) there", done.stdout)
    assert_gone(int(pid), within_s=1.0)


@pytest.mark.thorough
def test_jobs_of_a_process_share_a_server_and_a_dead_connection_is_told_and_ends_it(inventory, tmp_path):
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        start = ("transport.start=ssh", "transport.host=direct", f"transport.inventory={inventory}")
        here = ("transport.bind=127.0.0.1:0", f"cache_dir={tmp_path}")
        cfg = compose("config", ["workflow=offload", *UNTRAINED, *start, *here])
    transport, network = remote_transport(cfg), assemble.network(cfg)
    far_host = ssh_start.chosen_host(cfg, transport)
    try:
        with ssh_start.server_for(cfg, transport, far_host, network) as first:
            target = transport.target
        (server,) = ssh_start._running.values()
        cfg.split.point, cfg.codec = "stage2", {"_target_": "splitsem.codecs.tensorwise.Identity"}

        def job() -> None:
            with ssh_start.server_for(cfg, transport, far_host, network) as second:
                assert (first["start_s"] > 0, second["start_s"], transport.target) == (True, 0.0, target)
                os.kill(server.session.process.pid, signal.SIGKILL)
                raise LinkError("no answer")

        with pytest.raises(LinkError, match="ended by signal 9"):
            job()
        assert_gone(server.pid)
        assert not server.is_running
    finally:
        ssh_start.stop()


def test_a_killed_device_takes_its_server_with_it(host, tmp_path):
    (tmp_path / "weights").write_bytes(b"any")
    command = [sys.executable, "-c", DEVICE, json.dumps(asdict(host)), str(tmp_path / "weights")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as device:
        line = next(text for text in device.stdout if "process" in text)
        device.kill()
    assert_gone(int(re.findall(r"process (\d+)", line)[0]))


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"address": "nowhere.invalid"}, LinkError, "nowhere.invalid cannot be resolved"),
        ({"port": 1}, LinkError, "refuses ssh connections"),
        ({"identity_file": "stranger"}, ConfigError, "the login is refused"),
        ({"identity_file": "none"}, ConfigError, "does not exist"),
        ({"ssh_config": "config_nobody_known"}, ConfigError, "its host key is unknown"),
        ({"folder": "/nowhere"}, ConfigError, "there is no folder /nowhere"),
        ({"python": "no-such-python"}, ConfigError, "there is no no-such-python"),
        ({"python": "bare"}, ConfigError, "cannot import what is needed"),
        ({"settings": {"seeed": 1}}, LinkError, "seeed"),
    ],
)
def test_what_keeps_a_server_from_starting_is_told_in_one_line(change, kind, said, host, inventory, tmp_path):
    (tmp_path / "weights").write_bytes(b"any")
    bare = tmp_path / "bare"  # an interpreter without any packages
    bare.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S "$@"\n')
    bare.chmod(0o755)
    change = {k: str(inventory.parent / v) if k in ("identity_file", "ssh_config") else v for k, v in change.items()}
    if change == {"python": "bare"}:
        change = {"python": str(bare)}
    with pytest.raises(kind, match=re.escape(said)) as told:
        SshServer(Host(**asdict(host) | change), {}, tmp_path / "weights")
    assert "\n" not in str(told.value)
