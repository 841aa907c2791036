"""What is wrong with point, codec and data is told before a network is trained."""

import logging
import socket

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from splitsem.errors import ConfigError, SplitPointError
from splitsem.tasks.photos import Photos
from splitsem.training.fit import Fit
from splitsem.workflows import (
    assemble,
    assemble_codec,
    device_bundle,
    learned_codec,
    offload,
    serve,
    split,
    split_train,
    sweep,
    train,
)
from splitsem.workflows.federated import workflow as federated
from tests.conftest import ROOT


def composed(*overrides):
    sweep.register()
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        return compose("config", ["task=digits", "device=cpu", *overrides])


@pytest.fixture(autouse=True)
def untrainable(monkeypatch, tmp_path):
    def train(fit, *_, **__):
        assert fit.max_epochs == 0, "a network was trained"
        return []

    monkeypatch.setattr(Fit, "run", train)
    monkeypatch.chdir(tmp_path)  # its cache is empty


@pytest.mark.parametrize(
    ("run", "overrides", "error", "said"),
    [
        (split.run, ["split.point=stag1"], SplitPointError, "did you mean 'stage1'?"),
        (split.run, ["split.index=99"], SplitPointError, "no split point 99; valid: 0…8"),
        (split.run, ["transport=grpc"], ConfigError, "needs a simulated link, e.g. transport=wifi"),
        (train.run, ["workflow=train", "split.point=stag1"], SplitPointError, "did you mean 'stage1'?"),
        (learned_codec.run, ["workflow=codec", "split.point=output"], ConfigError, "points that suit: "),
        (serve.run, ["workflow=serve", "transport.bind=0.0.0.0:0"], ConfigError, "refusing to serve on 0.0.0.0"),
        (serve.run, ["workflow=serve", "transport.security.token_file=/no"], ConfigError, "cannot read /no"),
        (serve.run, ["workflow=serve", "transport=udp", "transport.bind=1.2.3.4:0"], ConfigError, "refusing to serve"),
        (offload.run, ["workflow=offload", "transport.security.ca=/no"], ConfigError, "cannot read /no"),
        (device_bundle.run, ["workflow=bundle", "split.point=nowhere"], SplitPointError, "no split point 'nowhere'"),
        (device_bundle.run, ["workflow=bundle", "split.point=output"], ConfigError, "nothing is left for a server"),
        (device_bundle.run, ["workflow=bundle", "codec=topk"], ConfigError, "TopK cannot be exported: how many values"),
        (device_bundle.run, ["workflow=bundle", "workflow.formats=[int8]"], ConfigError, "needs float32, which"),
    ],
)
def test_what_does_not_fit_the_network_is_told_before_it_is_trained(run, overrides, error, said, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(error, match=said):
        run(composed(*overrides), tmp_path)
    assert "Training" not in caplog.text


@pytest.mark.parametrize(
    ("run", "overrides"),
    [
        (federated.run, ["workflow=federated"]),
        (federated.run_splitfed, ["workflow=splitfed"]),
        (split_train.run, ["workflow=split_train"]),
        (serve.run, ["workflow=serve", "workflow.training=true"]),
        (train.run, ["workflow=train", "model=repvgg_tiny", "model.alpha_epochs=1"]),
    ],
)
def test_training_by_labels_is_refused_before_it_begins_where_there_are_none(run, overrides, tmp_path, monkeypatch):
    monkeypatch.setattr(Photos, "crops", None)  # no data are read
    given = ["task=photos", "model=cnn", "task.image_size=32", *overrides]
    with pytest.raises(ConfigError, match="trains by labels, and Photos has none"):
        run(composed(*given), tmp_path)


def test_targets_stay_those_of_the_network_before_it_learns(tmp_path):
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    given = [
        "task=photos",
        f"task.root={tmp_path}",
        "task.image_size=16",
        "model=cnn",
        f"cache_dir={tmp_path / 'kept'}",
    ]
    network = assemble.fresh_network(composed(*given))
    x = network.task.splits().test.samples[0]
    before = network.run(x[None]).argmax(1).item()
    for tensor in network.model.parameters():
        tensor.data.neg_()  # what a training does
    assert network.run(x[None]).argmax(1).item() != before
    assert network.task.splits().test[0][1].item() == before


def test_halves_of_a_detector_are_not_trained_apart(tmp_path):
    pytest.importorskip("flwr")
    given = ["task=detection", "model=detector", "workflow=splitfed", "split.point=stage2", "task.size=[64,64]"]
    with pytest.raises(ConfigError, match="such as a detector's: train it by workflow=train or federated"):
        federated.run_splitfed(composed(*given), tmp_path)


def test_missing_data_are_told_before_a_training_is(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cfg = composed("task=netqos", "task.csv=nowhere.csv")
    with pytest.raises(ConfigError, match="nowhere"):
        assemble.network(cfg)
    assert "Training" not in caplog.text


def test_random_weights_are_said(caplog):
    network = assemble.network(composed("trainer.max_epochs=0"), assemble_codec.suits(composed()))
    assert len(network.graph.points) == 9
    assert "scores are those of random weights" in caplog.text


@pytest.mark.parametrize("setting", ["transport.bind", "workflow.metrics_bind"])
def test_a_port_in_use_is_told_before_a_server_trains(setting, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"cannot listen on {address}: Address already in use"):
            serve.run(composed("workflow=serve", "transport.bind=127.0.0.1:0", f"{setting}={address}"), tmp_path)
