"""Workflows serve and offload over datagrams, through the real entry point, on a network that loses some."""

import json
import socket

import pytest

from tests.integration.udp_relay import Relay
from tests.system.test_offload import NETWORK, SERVED


def free_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_what_got_lost_is_in_the_metrics_and_in_the_score(run_py, serve_py, trained_cache, tmp_path):
    port = free_port()
    bind = f"transport.bind=127.0.0.1:{port}"
    address, _ = serve_py(*SERVED, f"cache_dir={trained_cache}", "transport=udp", "codec=fixed", bind)
    assert address == f"127.0.0.1:{port}"
    few = ("workflow.num_samples=100", "workflow.num_timed=5", "workflow.num_probes=5", "transport.fragment_bytes=64")
    chosen = ("transport=udp", "codec=fixed", "codec.bit_width=16", "split.point=stage1")
    common = ("workflow=offload", *chosen, *NETWORK, *few, f"cache_dir={trained_cache}", f"transport.target={address}")
    with Relay(address, 1, loss=0.05) as relay:
        done = run_py(*common, f"transport.datagram_target={relay.address}", "hydra.run.dir=lossy")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "lossy" / "metrics.json").read_text())
    assert metrics["frames_filled"] > 10
    assert metrics["frames_lost"] <= 15
    assert metrics["missing_share"] == pytest.approx(0.05, abs=0.03)
    assert abs(metrics["score"] - metrics["score_unsplit"]) < 0.2
    assert f"{metrics['frames_filled']} with gaps filled" in done.stdout
