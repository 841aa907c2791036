"""Workflow federated through the real entry point; its network is used by workflow=split; bad settings are one line."""

import json

import pytest

pytest.importorskip("flwr", reason="the extra federated is not installed")
COMMON = ("task=digits", "device=cpu", "tracking=none", "split.point=stage1")
FEDERATED = ("workflow=federated", "federated.num_clients=2", "trainer.limit_train_batches=2")


def test_a_federated_network_drops_into_the_other_workflows(run_py, tmp_path):
    done = run_py(*FEDERATED, *COMMON, "codec=quant8", "federated.rounds=2", "hydra.run.dir=trained")
    assert done.returncode == 0, done.stderr
    assert "INFO :" not in done.stderr  # Flower's own log
    metrics = json.loads((tmp_path / "trained" / "metrics.json").read_text())
    assert metrics["rounds"] == metrics["num_clients"] == 2
    assert metrics["failed_clients"] == 0
    assert 4 < metrics["uplink_compression_ratio"] == metrics["uplink_raw_bytes"] / metrics["uplink_bytes"]
    assert metrics["downlink_bytes"] > metrics["uplink_raw_bytes"]  # sent as it is, with its header
    for figure in ("score_by_round", "score_by_uplink", "partition"):
        assert (tmp_path / "trained" / f"{figure}.png").stat().st_size > 5_000
    used = run_py(*COMMON, "trainer.weights=trained/weights.safetensors", "hydra.run.dir=used")
    assert used.returncode == 0, used.stderr
    assert json.loads((tmp_path / "used" / "metrics.json").read_text())["score_unsplit"] == metrics["score"]


def test_bad_settings_are_said_before_training():
    from hydra import compose, initialize_config_dir

    from splitsem.errors import ConfigError
    from splitsem.workflows.federated_ends import build
    from tests.conftest import ROOT

    cases = {
        "federated.min_clients=9": "federated.min_clients must be 1…2",
        "federated/strategy=krum": "Krum with num_malicious_nodes=1 needs at least 5 clients a round, got 2",
        "codec=jpeg": "Jpeg cannot carry this network's updates",
        "codec=semanticnn": "codecs without weights",
        "federated.local_epochs=0": "federated.local_epochs must be at least 1",
        "device.precision=bfloat16": "needs device.precision=float32",
        "federated.num_clients=2000": "gets none of",
    }
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        for override, message in cases.items():
            with pytest.raises(ConfigError, match=message):
                build(compose("config", [*FEDERATED, *COMMON, override]))
