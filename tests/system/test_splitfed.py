"""Workflow splitfed through the real entry point, over gRPC; its network is a network; bad settings are one line."""

import json

import pytest

from tests.conftest import ROOT

pytest.importorskip("flwr", reason="the extra federated is not installed")
COMMON = ("task=digits", "device=cpu", "tracking=none", "split.point=stage1", "codec=quant8")
SPLITFED = ("workflow=splitfed", "federated.num_clients=2", "trainer.limit_train_batches=2")


def composed(*overrides):
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", [*SPLITFED, *COMMON, *overrides])


def test_a_network_trained_over_grpc_has_its_score_in_one_piece(run_py, tmp_path):
    done = run_py(
        *SPLITFED,
        *COMMON,
        "federated.rounds=2",
        "transport=grpc",
        "workflow.own_server=true",
        "codec@federated.head_codec=quant8",
        "codec@workflow.gradient_codec=quant8",
        "hydra.run.dir=trained",
    )
    assert done.returncode == 0, done.stderr
    assert "server of this process, 127.0.0.1:" in done.stdout
    metrics = json.loads((tmp_path / "trained" / "metrics.json").read_text())
    assert metrics["rounds"] == metrics["num_clients"] == 2
    assert metrics["failed_clients"] == 0
    assert metrics["uplink_bytes"] > metrics["head_uplink_bytes"] + metrics["label_bytes"]
    assert metrics["uplink_compression_ratio"] > 3
    assert metrics["strategy"] == "splitfed averaged"
    for figure in ("score_by_round", "score_by_uplink", "partition"):
        assert (tmp_path / "trained" / f"{figure}.png").stat().st_size > 5_000

    from splitsem.scoring import score
    from splitsem.workflows import assemble

    task, model, device = assemble.initial_model(
        composed(f"trainer.weights={tmp_path / 'trained' / 'weights.safetensors'}")
    )
    again = score(model, task, assemble.test_batches(task, device, 256, None))
    assert again["score"] == pytest.approx(metrics["score_unsplit"], abs=1e-6)


def test_bad_settings_are_said_before_training():
    from splitsem.errors import ConfigError
    from splitsem.workflows.federated.splitfed import open_ends

    cases = {
        ("federated.tail=both",): "federated.tail must be one of averaged, in_turn, got both",
        ("federated/strategy=fedprox",): "a client has a head only",
        ("codec=semanticnn",): "codec without weights",
        ("federated.local_epochs=0",): "federated.local_epochs must be at least 1",
        ("split.point=input",): "leaves the clients nothing to train",
        ("transport=udp",): "split training needs transport=grpc",
        ("workflow.own_server=true",): "workflow.own_server needs a transport",
    }
    for overrides, message in cases.items():
        with pytest.raises(ConfigError, match=message), open_ends(composed(*overrides)):
            pass
