"""Detectors: our own one-stage detector, and those of torchvision, whose detections stay their own bit for bit."""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from splitsem.detections import Boxes, pack, pack_targets, unpack
from splitsem.errors import ConfigError
from splitsem.models.detection.anchor_free import AnchorFreeDetector, Decode
from splitsem.models.detection.detector import Detector
from splitsem.models.ready_made import torchvision_model
from splitsem.network import HasPostprocess
from splitsem.tasks.detection.loss import detection_loss
from tests.conftest import ROOT

SSDLITE = "ssdlite320_mobilenet_v3_large"
RCNN = "fasterrcnn_mobilenet_v3_large_320_fpn"
QUICK = [SSDLITE, RCNN, "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"]
SLOW = ["ssd300_vgg16", "fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "maskrcnn_resnet50_fpn"]


def maps_of(*places: tuple[int, int, int, tuple[float, ...]]) -> list[Tensor]:
    """Maps of a 32×32 picture with strides 8 and 16 and two classes: sure of (scale, y, x, values) only."""
    maps = [torch.full((1, 7, 32 // stride, 32 // stride), -20.0) for stride in (8, 16)]
    for scale, y, x, values in places:
        maps[scale][0, :, y, x] = torch.tensor(values)
    return maps


def test_a_place_proposes_a_box_around_its_centre_in_units_of_the_stride() -> None:
    maps = maps_of((0, 1, 2, (0.5, 0.25, 1, 1.5, 20, -20, 20)), (1, 0, 1, (0.5, 0.5, 0.25, 1, 0, 20, -20)))
    (found,) = unpack(Decode((8, 16), score_threshold=0.05, iou_threshold=0.5, most=10)(maps))
    torch.testing.assert_close(found.corners, torch.tensor([[16.0, 10, 28, 24], [16, 0, 28, 24]]))
    torch.testing.assert_close(found.scores, torch.tensor([1.0, 0.5**0.5]))
    assert found.classes.tolist() == [1, 0]


def test_boxes_end_with_the_picture() -> None:
    (found,) = unpack(Decode((8, 16), 0.05, 0.5, 10)(maps_of((1, 1, 1, (9, 9, 9, 9, 20, 20, -20)))))
    assert found.corners.tolist() == [[0, 0, 32, 32]]


def test_the_network_returns_a_map_a_scale_and_the_detector_boxes() -> None:
    model = AnchorFreeDetector((1, 48, 64), (7, 6), num_classes=4, width=4, bottleneck_width=2)
    assert isinstance(model, HasPostprocess)
    x = torch.rand(2, 1, 48, 64)
    assert [tuple(made.shape) for made in model.train()(x)] == [(2, 9, 6, 8), (2, 9, 3, 4)]
    assert all((made[:, :4] > 0).all() for made in model(x))
    assert model.eval()(x).shape == (2, 7, 6)


def test_fresh_weights_find_next_to_nothing() -> None:
    torch.manual_seed(0)
    model = AnchorFreeDetector((3, 64, 64), (50, 6), num_classes=3, score_threshold=0.3).eval()
    assert not model(torch.rand(2, 3, 64, 64)).any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (((3, 60, 64), (9, 6), 2), r"sides divisible by 16, got \(3, 60, 64\)"),
        (((3, 64, 64), (10,), 2), r"only detects; choose task=detection"),
        (((3, 64, 64), (9, 6), 0), r"num_classes must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_our_detector_are_told(arguments: tuple, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AnchorFreeDetector(*arguments)


def test_our_detector_learns_by_the_loss_of_the_task() -> None:
    torch.manual_seed(0)
    model = AnchorFreeDetector((3, 64, 64), (9, 6), num_classes=3, width=8)
    x, corners = torch.rand(4, 3, 64, 64), torch.tensor([[4.0, 8, 30, 28], [20, 10, 64, 60]])
    boxes = [Boxes(corners + shift, torch.zeros(2), torch.tensor([shift % 3, 2])) for shift in range(-3, 1)]
    y = pack_targets(boxes, most=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        loss = detection_loss(model(x), y, height=64)
        optimizer.zero_grad()
        loss.backward()
        assert all(weights.grad.abs().max() > 0 for weights in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def own_detections(model: nn.Module, x: Tensor, most: int) -> Tensor:
    """What torchvision's model itself finds, without the background, as one tensor."""
    found = []
    for boxes in model(list(x)):
        is_thing = boxes["labels"] > 0
        found.append(Boxes(boxes["boxes"][is_thing], boxes["scores"][is_thing], boxes["labels"][is_thing] - 1))
    return pack(found, most)


def talkative(name: str, num_labels: int = 6, **options: int) -> nn.Module:
    """torchvision's own model, with random weights that find something."""
    torch.manual_seed(0)
    model = get_model(name, weights=None, weights_backbone=None, num_classes=num_labels, **options).eval()
    with torch.no_grad():
        for key, weights in model.named_parameters():
            if "cls" in key or "classification" in key:
                weights.normal_(std=0.5)
    return model


def kept(model: nn.Module, folder: Path) -> str:
    path = folder / "weights.safetensors"
    save_file(model.state_dict(), path)
    return str(path)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_detections_are_torchvisions_own_bit_for_bit(name: str, tmp_path: Path) -> None:
    shape = (3, 64, 90)  # 90 is padded to 96, but for an SSD, which enlarges all to its own size
    options = {} if name.startswith("ssd") else {"min_size": 64, "max_size": 90}
    own = talkative(name, **options)
    ours = torchvision_model(name, shape, (40, 6), weights=kept(own, tmp_path), num_classes=5).eval()
    with torch.no_grad():
        for batch in (1, 2):
            x = torch.rand(batch, *shape)
            wanted = own_detections(own, x, most=40)
            assert (wanted[..., 4] > 0).any()
            assert torch.equal(ours(x), wanted)


def test_pictures_are_resized_as_torchvision_does() -> None:
    own = talkative(RCNN, min_size=96, max_size=96)
    ours = torchvision_model(RCNN, (3, 48, 48), (40, 6), num_classes=5, image_size=96).eval()
    ours.network.backbone.load_state_dict(own.backbone.state_dict())
    rest = {key: value for key, value in own.state_dict().items() if not key.startswith("backbone.")}
    ours.postprocess.model.load_state_dict(rest)
    x = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(ours(x), own_detections(own, x, most=40))


class Saying(nn.Module):
    """Finds these labels in every picture, each with half the score of the one before."""

    def __init__(self, *labels: int) -> None:
        super().__init__()
        self.labels = torch.tensor(labels)

    def forward(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        scores = 0.5 ** torch.arange(len(self.labels))
        boxes = torch.ones(len(self.labels), 4)
        return [{"boxes": boxes, "labels": self.labels, "scores": scores} for _ in pictures]


def test_labels_of_coco_become_its_80_classes(tmp_path: Path) -> None:
    names = get_model_weights(SSDLITE).DEFAULT.meta["categories"]
    own = talkative(SSDLITE, num_labels=len(names))
    ours = torchvision_model(SSDLITE, (3, 64, 64), (300, 6), weights=kept(own, tmp_path), num_classes=80).eval()
    classes = ours.postprocess.classes
    known = [name for name in names if name not in ("__background__", "N/A")]
    assert len(known) == 80
    assert [known[number] if number >= 0 else None for number in classes] == [n if n in known else None for n in names]
    ours.postprocess.model = Saying(names.index("N/A"), names.index("person"), names.index("toothbrush"))
    (found,) = unpack(ours(torch.rand(1, 3, 64, 64)))
    assert found.classes.tolist() == [0, 79]
    assert found.scores.tolist() == [0.5, 0.25]


def test_published_weights_of_old_models_are_normalised_without_epsilon(tmp_path: Path) -> None:
    name = "fasterrcnn_resnet50_fpn"
    own = talkative(name, num_labels=91)
    ours = torchvision_model(name, (3, 64, 64), (9, 6), weights=kept(own, tmp_path), num_classes=80)
    assert {module.eps for module in ours.modules() if isinstance(module, nn.BatchNorm2d)} == {0.0}


@pytest.mark.parametrize(("num_labels", "num_classes"), [(91, 5), (4, 5), (6, 80)])
def test_weights_of_other_classes_are_told(num_labels: int, num_classes: int, tmp_path: Path) -> None:
    path = kept(talkative(SSDLITE, num_labels=num_labels), tmp_path)
    known = 80 if num_labels == 91 else num_labels - 1
    with pytest.raises(ConfigError, match=f"weights.safetensors know {known} classes, the task has {num_classes};"):
        torchvision_model(SSDLITE, (3, 64, 64), (9, 6), weights=path, num_classes=num_classes)


def test_weights_of_another_network_are_told(tmp_path: Path) -> None:
    path = kept(nn.ModuleDict({"stem": nn.Conv2d(3, 4, 3), "last": nn.Linear(4, 5)}), tmp_path)
    with pytest.raises(ConfigError, match="do not fit SSD: "):
        torchvision_model(SSDLITE, (3, 64, 64), (9, 6), weights=path, num_classes=5)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"output_shape": (10,)}, "only detects, but the task needs .10,.; choose task=detection"),
        ({"output_shape": (9, 6), "num_classes": 5, "image_size": 224}, "always sees pictures of .320, 320.; leave"),
        (
            {"output_shape": (9, 6), "num_classes": 5, "wdith": 3},
            "has no setting wdith; it has image_size, score_thresh",
        ),
        (
            {"name": RCNN, "output_shape": (9, 6), "num_classes": 5, "min_size": 9},
            "no setting min_size; it has image_s",
        ),
    ],
)
def test_what_does_not_fit_a_detector_of_torchvision_is_told(facts: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        torchvision_model(**{"name": SSDLITE, "input_shape": (3, 64, 64), **facts})


def test_training_a_detector_of_torchvision_is_refused() -> None:
    model = torchvision_model(SSDLITE, (3, 64, 64), (9, 6), num_classes=5)
    with pytest.raises(
        ConfigError, match=r"not trained here; give them weights by .* with max_epochs=0 for the trainer"
    ):
        model.train()(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("choice", [["detector"], ["torchvision", f"model.name={SSDLITE}"]])
def test_an_option_of_the_group_model_makes_a_detector(choice: list[str]) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(overrides=[f"+model={choice[0]}", *choice[1:]]).model
    model = instantiate(cfg, input_shape=(3, 32, 32), output_shape=(9, 6), num_classes=5, _convert_="all").eval()
    assert isinstance(model, Detector)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 9, 6)
