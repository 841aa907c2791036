"""Workflow federated through the real entry point; its network is used by workflow=split; bad settings are one line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import ENVIRONMENT, ROOT

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
    from splitsem.workflows.federated.assembly import build

    cases = {
        "federated.min_clients=9": "federated.min_clients must be 1…2",
        "federated/strategy=krum": "Krum with num_malicious_nodes=1 needs at least 5 clients a round, got 2",
        "codec=jpeg": "Jpeg cannot carry this network's updates",
        "codec=semanticnn": "codecs that are not built for a cut",
        "federated.local_epochs=0": "federated.local_epochs must be at least 1",
        "device.precision=bfloat16": "needs device.precision=float32",
        "federated.num_clients=2000": "gets none of",
        "federated/privacy=server_fixed": "add federated.statistics=local",
    }
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        for override, message in cases.items():
            with pytest.raises(ConfigError, match=message):
                build(compose("config", [*FEDERATED, *COMMON, override]))


def test_an_unknown_strategy_is_answered_by_those_that_there_are():
    from hydra import compose, initialize_config_dir
    from hydra.errors import MissingConfigException

    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        for group, known in (("strategy", "fedtrimmedavg"), ("privacy", "server_adaptive"), ("engine", "simulation")):
            with pytest.raises(MissingConfigException, match=rf"(?s)federated/{group}/guess'.*{known}"):
                compose("config", [*FEDERATED, f"federated/{group}=guess"])


def test_a_superlink_that_is_not_there_is_said_by_flower_in_one_line(monkeypatch, tmp_path):
    from hydra import compose, initialize_config_dir

    from splitsem.errors import LinkError
    from splitsem.workflows.federated.deployment import as_text, submit

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    connection = f'[superlink.gone]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (tmp_path / "config.toml").write_text(connection)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [*FEDERATED, "federated.superlink=gone", "federated.resume=before"])
    assert f"resume: {tmp_path / 'before'}" in as_text(cfg)  # Flower's processes run in folders of their own
    with pytest.raises(LinkError, match=r"flwr run gone left no weights .* it said: .*SuperLink") as caught:
        submit(cfg, tmp_path)
    assert "\n" not in str(caught.value)
    assert "│" not in str(caught.value)


@pytest.mark.slow  # three processes one after the other, each with all its imports
def test_a_run_that_was_killed_goes_on_after_its_last_round(run_py, tmp_path):
    settings = (*FEDERATED, *COMMON, "codec=topk", "codec@federated.downlink_codec=quant8", "federated.rounds=40")
    command = [sys.executable, str(ROOT / "run.py"), *settings, "hydra.run.dir=killed"]
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ | ENVIRONMENT, stderr=subprocess.PIPE) as process:
        checkpoint = tmp_path / "killed" / "federated.safetensors"
        while not checkpoint.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "metrics.json").exists()
    resumed = run_py(*settings, "federated.resume=killed", "hydra.run.dir=resumed")
    assert resumed.returncode == 0, resumed.stderr
    assert "Going on after round" in resumed.stdout
    whole = run_py(*settings, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    scores = [json.loads((tmp_path / name / "metrics.json").read_text())["score"] for name in ("resumed", "whole")]
    assert scores[0] == scores[1]
