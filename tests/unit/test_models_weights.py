"""Weights: local files and published ones, with a classifier for other classes, and everything else strict."""

import logging
from pathlib import Path
from urllib.error import URLError

import huggingface_hub.constants
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models._api import WeightsEnum

from splitsem.errors import ConfigError
from splitsem.models.checkpoints import load_weights, read_weights
from splitsem.models.ready_made import timm_model, torchvision_model

PICTURE = (3, 64, 64)


def save(state: dict[str, torch.Tensor], path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", ["squeezenet1_1", "mnasnet0_5", "resnet18"])
def test_local_file_gives_back_the_whole_network_when_the_classes_agree(tmp_path: Path, name: str, suffix: str) -> None:
    original = torchvision_model(name, PICTURE, (10,)).eval()
    path = save(original.state_dict(), tmp_path / f"weights{suffix}")
    copy = torchvision_model(name, PICTURE, (10,), weights=path).eval()
    x = torch.rand(2, *PICTURE)
    assert torch.equal(copy(x), original(x))


@pytest.mark.parametrize(
    ("name", "classifier"),
    [
        ("squeezenet1_1", {"classifier.1.weight", "classifier.1.bias"}),
        ("resnet18", {"fc.weight", "fc.bias"}),
        ("mobilenet_v3_small", {"classifier.3.weight", "classifier.3.bias"}),
    ],
)
def test_only_the_classifier_starts_afresh_for_other_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, classifier: set[str]
) -> None:
    original = torchvision.models.get_model(name, num_classes=1000)
    path = save(original.state_dict(), tmp_path / "weights.pth")
    with caplog.at_level(logging.WARNING):
        network = torchvision_model(name, PICTURE, (7,), weights=path)
    loaded = network.state_dict()
    assert {key for key, value in original.state_dict().items() if not torch.equal(value, loaded[key])} == classifier
    assert all(key in caplog.text for key in classifier)


def test_both_classifiers_of_lraspp_start_afresh() -> None:
    original = torchvision.models.get_model("lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=21)
    network = torchvision.models.get_model("lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=12)
    fresh = load_weights(network, original.state_dict(), 12, "a file")
    assert {key.rpartition(".")[0] for key in fresh} == {"classifier.low_classifier", "classifier.high_classifier"}


def test_timm_takes_a_local_file_too(tmp_path: Path) -> None:
    original = timm_model("resnet18", PICTURE, (10,)).eval()
    path = save(original.state_dict(), tmp_path / "weights.safetensors")
    x = torch.rand(2, *PICTURE)
    assert torch.equal(timm_model("resnet18", PICTURE, (10,), weights=path).eval()(x), original(x))


def publish(monkeypatch: pytest.MonkeyPatch, name: str, **arguments: object) -> nn.Module:
    """Make torchvision 'download' the weights of a network with random ones, as they are published: 1000 classes."""
    original = torchvision.models.get_model(name, **arguments)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: original.state_dict())
    return original


def test_auxiliary_heads_in_published_weights_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    original = publish(monkeypatch, "googlenet", init_weights=True)
    network = torchvision_model("googlenet", PICTURE, (7,), pretrained=True)
    assert torch.equal(network.conv1.conv.weight, original.conv1.conv.weight)
    assert network.transform_input
    assert not any(key.startswith("aux") for key in network.state_dict())


def test_published_vit_fits_another_picture_size(monkeypatch: pytest.MonkeyPatch) -> None:
    original = publish(monkeypatch, "vit_b_32")
    network = torchvision_model("vit_b_32", PICTURE, (7,), pretrained=True)
    assert network.encoder.pos_embedding.shape == (1, 1 + 2 * 2, 768)
    assert torch.equal(network.conv_proj.weight, original.conv_proj.weight)


def test_vit_weights_whose_positions_are_no_square_are_a_config_error(tmp_path: Path) -> None:
    path = save({"encoder.pos_embedding": torch.zeros(1, 1 + 6, 768)}, tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"do not fit VisionTransformer: .*perfect square"):
        torchvision_model("vit_b_32", PICTURE, (7,), weights=path)


def test_published_densenet_has_names_of_an_older_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    original = publish(monkeypatch, "densenet121").state_dict()
    old = {
        key.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1").replace("conv2", "conv.2")
        if "denselayer" in key
        else key: value
        for key, value in original.items()
        if not key.endswith("num_batches_tracked")
    }
    assert not set(old) <= set(original)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: old)
    loaded = torchvision_model("densenet121", PICTURE, (7,), pretrained=True).state_dict()
    assert {key for key, value in original.items() if not torch.equal(value, loaded[key])} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_published_weights_without_network_are_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", refuse)
    with pytest.raises(ConfigError, match=r"resnet18 could not be downloaded: .*no network.*give weights=path"):
        torchvision_model("resnet18", PICTURE, (10,), pretrained=True)


def test_timms_published_weights_without_network_are_a_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"resnet18 with its published weights.*weights=path"):
        timm_model("resnet18", PICTURE, (10,), pretrained=True, cache_dir=str(tmp_path))


def changed(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor | None] = {
        **small().state_dict(),
        **{k.replace("_", "."): v for k, v in changes.items()},
    }
    return {key: value for key, value in state.items() if value is not None}


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 5))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (changed(**{"0_weight": None}), r"missing: 0\.weight"),
        (changed(**{"4_weight": torch.zeros(1)}), r"unknown: 4\.weight"),
        (changed(**{"0_weight": torch.zeros(9, 3, 3, 3)}), r"other shape .*0\.weight \(9, 3, 3, 3\)≠\(8, 3, 3, 3\)"),
        (changed(**{"3_weight": torch.zeros(5, 9)}), r"other shape .*3\.weight \(5, 9\)≠\(5, 8\)"),
        (
            {f"layer{number}": torch.zeros(1) for number in range(9)},
            r"missing: 0\.weight \(8.*unknown: layer0 \(1,\), .* and 4 more",
        ),
    ],
)
def test_weights_that_do_not_fit_are_a_config_error(weights: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_weights(small(), weights, 5, "a file")


def test_refused_weights_change_nothing() -> None:
    network = small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ConfigError):
        load_weights(network, changed(**{"4_weight": torch.zeros(1)}), 5, "a file")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_state_dict_inside_a_checkpoint_is_found(tmp_path: Path, key: str) -> None:
    torch.save({key: {"weight": torch.ones(2)}, "epoch": 3}, tmp_path / "checkpoint.pth")
    assert read_weights(tmp_path / "checkpoint.pth")["weight"].tolist() == [1, 1]


class Code:
    """Unpickling this would run code."""

    def __reduce__(self) -> tuple:
        return (print, ("code ran",))


@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors"])
def test_damaged_file_is_a_config_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(ConfigError, match=f"{name} cannot be read"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("cut", [0, 10, 600])
def test_truncated_file_is_a_config_error(tmp_path: Path, cut: int) -> None:
    torch.save(small().state_dict(), tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes((tmp_path / "weights.pth").read_bytes()[:cut])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_weights(tmp_path / "weights.pth")


def test_code_in_a_file_never_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Code()}, tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_weights(tmp_path / "weights.pth")
    assert "code ran" not in capsys.readouterr().out


def test_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pth does not exist"):
        read_weights(tmp_path / "nowhere.pth")


def test_file_of_something_else_is_a_config_error(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match="must hold a state dict of tensors, got list"):
        read_weights(tmp_path / "list.pth")
