"""YOLO networks of ultralytics and libreyolo: what is cut and what decodes give what the package itself gives."""

import os
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from splitsem.errors import ConfigError
from splitsem.models.detection.libre_yolo import libreyolo_detector
from splitsem.models.detection.ultralytics_yolo import ultralytics_detector
from splitsem.models.detection.yolo_heads import TowerMaps
from splitsem.network import HasPostprocess
from tests.unit.test_darknet import assert_cuts_are_exact

SHAPES = {"input_shape": (3, 64, 64), "output_shape": (50, 6)}
BUILDERS = {"ultralytics": ultralytics_detector, "libreyolo": libreyolo_detector}
NETWORKS = [
    ("ultralytics", "yolov5n"),
    ("ultralytics", "yolov8n"),
    ("ultralytics", "yolo11n"),
    ("ultralytics", "yolo12n"),
    ("libreyolo", "yolox_n"),
    ("libreyolo", "yolo9_t"),
]


def built(package: str, name: str, **settings):
    os.environ["YOLO_OFFLINE"] = "1"
    pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    torch.manual_seed(0)
    return BUILDERS[package](name, **SHAPES | settings)


def liven(network: nn.Module) -> None:
    """Random weights with which batch norm and biases do something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("package", "name"), [("ultralytics", "yolov8n"), ("libreyolo", "yolox_n")])
def test_it_is_a_detector_whose_cuts_are_exact(package, name):
    model = built(package, name)
    assert isinstance(model, HasPostprocess)
    with torch.no_grad():
        assert model(torch.rand(3, 3, 64, 96)).shape == (3, 50, 6)
    assert assert_cuts_are_exact(model, 64, step=25) > 35


@pytest.mark.slow
@pytest.mark.parametrize(("package", "name"), NETWORKS)
def test_every_cut_of_each_family_is_exact(package, name):
    assert_cuts_are_exact(built(package, name), 64)


@pytest.mark.parametrize("name", ["yolov5n", "yolov8n", "yolo11n"])
def test_places_are_decoded_as_ultralytics_decodes_them(name, tmp_path):
    model = built("ultralytics", name)
    from ultralytics.nn.tasks import DetectionModel

    theirs = DetectionModel(f"{name}.yaml", ch=3, nc=80, verbose=False).eval()
    liven(theirs)
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    model = built("ultralytics", name, weights=str(tmp_path / "w.safetensors"))
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        y = theirs(x)[0].transpose(1, 2)
        corners, scores = model.postprocess.proposals(model.network(x))
    centre, half = y[..., :2], y[..., 2:4] / 2
    assert torch.allclose(corners, torch.cat([centre - half, centre + half], -1), atol=1e-3)
    assert torch.allclose(scores, y[..., 4:], atol=1e-6)


def test_places_are_decoded_as_yolo9_decodes_them():
    model = built("libreyolo", "yolo9_t")
    from libreyolo.models.yolo9.nn import LibreYOLO9Model

    theirs = LibreYOLO9Model("t").eval()
    liven(theirs)
    model.network.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        y = theirs(x)["predictions"].transpose(1, 2)
        corners, scores = model.postprocess.proposals(model.network(x))
    assert torch.allclose(corners, y[..., :4], atol=1e-3)
    assert torch.allclose(scores, y[..., 4:], atol=1e-6)


def test_places_are_decoded_as_yolox_decodes_them():
    model = built("libreyolo", "yolox_n")
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        corners, scores = model.postprocess.proposals(model.network(x))
        model.network.head.export = True  # the package's own decoding; it takes blue first, in 0 … 255
        y = model.network.head(model.network.backbone(x[:, [2, 1, 0]] * 255))
    half = y[..., 2:4] / 2
    assert torch.allclose(corners, torch.cat([y[..., :2] - half, y[..., :2] + half], -1), rtol=1e-4, atol=1e-3)
    assert torch.allclose(scores, y[..., 4:5] * y[..., 5:], atol=1e-6)


def test_weights_of_other_classes_start_the_last_layers_afresh(tmp_path):
    state = built("libreyolo", "yolox_n").network.state_dict()
    save_file(state, tmp_path / "coco.safetensors")
    model = built("libreyolo", "yolox_n", weights=str(tmp_path / "coco.safetensors"), num_classes=5)
    fresh = [key for key, value in model.network.state_dict().items() if value.shape != state[key].shape]
    assert len(fresh) == 6  # weight and bias of each scale's classes
    assert all(torch.equal(v, state[key]) for key, v in model.network.state_dict().items() if key not in fresh)


@pytest.mark.parametrize(("package", "name"), [("ultralytics", "yolov8n"), ("libreyolo", "yolox_n")])
def test_weights_of_another_network_are_refused(package, name, tmp_path):
    save_file({"other.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match="do not fit"):
        built(package, name, weights=str(tmp_path / "other.safetensors"))


class Whole(nn.Module):
    """Stands for a network that a trainer saved whole."""


def test_a_pickled_network_is_not_run_and_the_line_says_how_to_convert_it(tmp_path):
    torch.save({"model": Whole(), "epoch": 3}, tmp_path / "yolov8n.pt")
    with pytest.raises(ConfigError, match=r"would run code.*state_dict\(\)") as told:
        built("ultralytics", "yolov8n", weights=str(tmp_path / "yolov8n.pt"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("package", "name", "line"),
    [
        ("ultralytics", "yolov8", "did you mean yolov8"),
        ("ultralytics", "https://a.host/yolov8n", "AGPL-3.0"),
        ("libreyolo", "yolox", "did you mean yolox_"),
    ],
)
def test_an_unknown_name_gets_the_nearest(package, name, line):
    with pytest.raises(ConfigError, match=line):
        BUILDERS[package](name, **SHAPES)


@pytest.mark.parametrize(
    ("package", "name", "line"),
    [
        ("ultralytics", "yolov8n", r"pip install 'splitsem\[ultralytics\]'; its licence is AGPL-3\.0"),
        ("libreyolo", "yolox_n", r"\[detection\]'; its licence is MIT"),
    ],
)
def test_a_missing_package_is_one_line_with_its_licence(package, name, line, monkeypatch):
    for module in [key for key in sys.modules if key.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=line) as told:
        BUILDERS[package](name, **SHAPES)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("package", "name"), [("ultralytics", "yolov8n"), ("libreyolo", "yolox_n")])
def test_pictures_that_do_not_fit_are_one_line(package, name):
    with pytest.raises(ConfigError, match="multiples of 32, got"):
        built(package, name, input_shape=(3, 60, 64))


def test_a_head_without_decoding_keeps_the_names_of_its_weights():
    head = nn.Module()
    head.cv2, head.cv3 = (nn.ModuleList([nn.Conv2d(2, n, 1)]) for n in (8, 3))
    maps = TowerMaps(head)
    assert list(maps.state_dict()) == ["cv2.0.weight", "cv2.0.bias", "cv3.0.weight", "cv3.0.bias"]
    (made,) = maps([torch.rand(1, 2, 4, 4)])
    assert made.shape == (1, 11, 4, 4)
