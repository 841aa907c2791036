"""Workflows serve and split_train through the real entry point; the trained weights are used by workflow=split."""

import json
import math
import signal

import pytest

COMMON = ("task=digits", "device=cpu", "tracking=none")


@pytest.fixture
def training_server(serve_py):
    """Address of a server that trains, and its process."""
    return serve_py("workflow.training=true", *COMMON, "cache_dir=server_cache")


def test_a_network_trained_over_the_link_drops_into_the_other_workflows(run_py, training_server, tmp_path):
    address, process = training_server
    cut = ("codec=quant8", "split.point=stage2", *COMMON)
    done = run_py(
        "workflow=split_train", *cut, f"transport.target={address}", "trainer.max_epochs=2", "hydra.run.dir=trained"
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "trained" / "metrics.json").read_text())
    assert done.stdout.count("validation score") == 2
    assert (tmp_path / "trained" / "training_curve.png").stat().st_size > 10_000
    assert metrics["num_steps"] == 16
    assert metrics["uplink_bytes"] > metrics["label_bytes"] > 128 * 8
    stages = [metrics[f"step_{name}_s"] for name in ("edge", "link", "server")]
    assert all(math.isfinite(s) and s > 0 for s in stages)
    assert metrics["step_s"] == pytest.approx(sum(stages))

    used = run_py(*cut, "trainer.weights=trained/weights.safetensors", "hydra.run.dir=used")
    assert used.returncode == 0, used.stderr
    again = json.loads((tmp_path / "used" / "metrics.json").read_text())
    assert [again[name] for name in ("score", "score_unsplit")] == [metrics[n] for n in ("score", "score_unsplit")]

    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
