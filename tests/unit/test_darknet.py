"""YOLOv3 from darknet's own files: every number is used, layers compute what darknet's do, and cuts are exact."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from splitsem.detections import unpack
from splitsem.errors import ConfigError
from splitsem.models.detection.darknet import Darknet, DarknetPool, darknet_detector
from splitsem.models.detection.darknet_files import read_cfg, read_weights_file
from splitsem.network import HasPostprocess
from splitsem.splitting.graph import SplitGraph

CFG = """\
[net]
width=64   # of training
height=64

[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=4
size=1
activation=leaky

[shortcut]
from=-2
activation=linear

[maxpool]
size=2
stride=1

[convolutional]
batch_normalize=1
filters=6
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=14
size=1
activation=linear

[yolo]
mask = 1,2
anchors = 4,4, 8,10, 20,30
classes=2
jitter=.3

[route]
layers = -3

[upsample]
stride=2

[route]
layers = -1, 3

[convolutional]
filters=7
size=1
activation=linear

[yolo]
mask = 0
anchors = 4,4, 8,10, 20,30
classes=2
"""


def made(folder: Path, cfg: str = CFG) -> Path:
    """A folder with the cfg and random weights for it; the value of each number is its place in the file."""
    (folder / "tiny.cfg").write_text(cfg)
    count = sum(int(np.prod(shape)) for _, shape in Darknet(read_cfg(folder / "tiny.cfg")).weight_shapes())
    numbers = np.random.default_rng(0).uniform(0.1, 0.5, count).astype("<f4")
    (folder / "tiny.weights").write_bytes(struct.pack("<iiiq", 0, 2, 0, 7) + numbers.tobytes())
    return folder


def detector(folder: Path, **settings):
    return darknet_detector((3, 64, 64), (20, 6), str(folder), **settings)


def test_every_number_of_the_file_becomes_a_weight_in_darknets_order(tmp_path):
    network = detector(made(tmp_path)).network
    file = np.fromfile(tmp_path / "tiny.weights", "<f4", offset=20)
    first = network.get_submodule("conv0")
    parts = [first.bn.bias, first.bn.weight, first.bn.running_mean, first.bn.running_var, first.conv.weight]
    second = network.get_submodule("conv1").conv
    read = torch.cat([part.detach().flatten() for part in [*parts, second.bias, second.weight]])
    assert np.array_equal(read.numpy(), file[: len(read)])
    used = sum(v.numel() for v in network.state_dict().values() if v.is_floating_point())
    assert used == len(file)


def test_the_layers_compute_what_darknets_do(tmp_path):
    network = detector(made(tmp_path)).network
    x = torch.rand(2, 3, 64, 64)
    w = {name: module for name, module in network.named_children() if name.startswith("conv")}
    with torch.no_grad():
        a = F.leaky_relu(w["conv0"].bn(F.conv2d(x, w["conv0"].conv.weight, stride=2, padding=1)), 0.1)
        b = F.leaky_relu(w["conv1"].conv(a), 0.1) + a
        c = F.max_pool2d(F.pad(b, (0, 1, 0, 1), value=-1e30), 2, 1)
        d = F.leaky_relu(w["conv4"].bn(F.conv2d(c, w["conv4"].conv.weight, stride=2, padding=1)), 0.1)
        coarse = w["conv5"].conv(d)
        fine = w["conv10"].conv(torch.cat([d.repeat_interleave(2, 2).repeat_interleave(2, 3), c], 1))
        maps = network(x)
    assert [tuple(m.shape) for m in maps] == [(2, 14, 16, 16), (2, 7, 32, 32)]
    assert torch.allclose(maps[0], coarse, atol=1e-5)
    assert torch.allclose(maps[1], fine, atol=1e-5)
    assert [(s.stride, s.anchors) for s in network.scales] == [(4, ((8, 10), (20, 30))), (2, ((4, 4),))]


@pytest.mark.parametrize(("size", "stride", "height"), [(2, 1, 7), (5, 1, 7), (2, 2, 8), (3, 2, 8)])
def test_what_lies_beyond_the_edge_counts_nothing_in_a_pool(size, stride, height):
    x = -torch.rand(1, 2, height, height) - 1
    padding = 0 if size == stride else size - 1
    y = DarknetPool(size, stride, padding)(x)[0, 0]
    before = padding // 2
    for i, j in np.ndindex(*y.shape):
        top, left = i * stride - before, j * stride - before
        assert y[i, j] == x[0, 0, max(top, 0) : top + size, max(left, 0) : left + size].max()
    assert len(y) == height // stride


def test_boxes_are_decoded_as_published(tmp_path):
    found = detector(made(tmp_path), iou_threshold=1.0)
    coarse, fine = torch.full((1, 14, 16, 16), -9.0), torch.full((1, 7, 32, 32), -9.0)
    coarse[0, 7:14, 3, 5] = torch.tensor([0.0, 1.0, 0.5, -0.5, 4.0, -3.0, 2.0])  # the second anchor, 20 × 30
    (box,) = unpack(found.postprocess((coarse, fine)))

    def sigmoid(t):
        return 1 / (1 + np.exp(-t))

    x, y = 4 * (5 + sigmoid(0)), 4 * (3 + sigmoid(1))
    w, h = 20 * np.exp(0.5), 30 * np.exp(-0.5)
    assert box.corners.numpy() == pytest.approx(np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]]), rel=1e-5)
    assert box.scores.item() == pytest.approx(sigmoid(4) * sigmoid(2), rel=1e-5)
    assert box.classes.tolist() == [1]


def test_it_is_a_detector_and_any_size_of_32_works(tmp_path):
    model = detector(made(tmp_path), num_classes=2)
    assert isinstance(model, HasPostprocess)
    with torch.no_grad():
        assert model(torch.rand(3, 3, 96, 32)).shape == (3, 20, 6)
    assert len(model.train()(torch.rand(3, 3, 64, 64))) == 2


def test_masks_take_the_place_of_the_cfgs(tmp_path):
    model = detector(made(tmp_path), masks=[[0, 1], [2]])
    assert [scale.anchors for scale in model.network.scales] == [((4, 4), (8, 10)), ((20, 30),)]
    with pytest.raises(ConfigError, match=r"2 \[yolo\] sections, got 1"):
        detector(tmp_path, masks=[[0, 1]])


def assert_cuts_are_exact(model: nn.Module, size: int, step: int = 1) -> int:
    """Every ``step``-th cut with batches of 1 and 3, maps and detections; returns how many points there are."""
    network, whole = SplitGraph(model.network, (3, size, size)), SplitGraph(model, (3, size, size))
    with torch.no_grad():
        batches = [
            (x, model.network(x), model(x)) for x in (torch.rand(1, 3, size, size), torch.rand(3, 3, size, size))
        ]
        for point in network.points[::step]:
            cut = network.cut(point)
            for x, maps, _ in batches:
                made = cut.tail(*cut.head(x))
                assert all(torch.equal(a, b) for a, b in zip(made, maps, strict=True)), point.name
        for point in (whole.points[1], whole.points[-1]):
            cut = whole.cut(point)
            assert all(torch.equal(cut.tail(*cut.head(x)), found) for x, _, found in batches), point.name
    return len(network.points)


def test_every_cut_is_exact(tmp_path):
    assert assert_cuts_are_exact(detector(made(tmp_path)), 64) > 5


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("activation=leaky", "activation=mish", "activation must be one of leaky, linear, relu, got mish"),
        ("[upsample]", "[crop]", r"\[crop\] is no layer that is known here"),
        ("from=-2", "from=-2\nscale=2", "sets scale, which is not known here"),
        ("from=-2", "from=-9", "refers to layer"),
        ("layers = -1, 3", "layers = -1, 6", "joins maps that do not fit"),
        ("filters=14", "filters=13", "needs 14 channels before it, got 13"),
        ("mask = 1,2", "mask = 1,3", "must name some of its 3 anchors"),
        (
            "anchors = 4,4, 8,10",
            "anchors = 1, 4,4, 8,10",
            "anchors must be pairs of .* above 0, got 7",
        ),
        ("filters=6", "filters=-6", "filters must be at least 1, got -6"),
        ("filters=6", "filters=6\ngroups=5", "groups=5 must divide its 4 channels in and 6 out"),
        ("filters=6", "filters=six", "filters must be whole numbers, got 'six'"),
        ("filters=6\n", "", "needs filters"),
        ("[net]\n", "", "expected .section. or name=value"),
        ("stride=2\npad", "stride 2\npad", "expected .section. or name=value, got 'stride 2'"),
    ],
)
def test_what_is_wrong_in_a_cfg_is_one_line(tmp_path, old, new, line):
    (tmp_path / "bad.cfg").write_text(CFG.replace(old, new, 1))
    with pytest.raises(ConfigError, match=line) as told:
        Darknet(read_cfg(tmp_path / "bad.cfg"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda data: data[:-4], "the file is damaged or of another cfg"),
        (lambda data: data + b"\0\0\0\0", "the file is damaged or of another cfg"),
        (lambda data: data[:-1], "the file is damaged or of another cfg"),
        (lambda data: data[:3], "the file is damaged or of another cfg"),
        (lambda data: data[:-4] + struct.pack("<f", float("nan")), "NaN or infinite"),
    ],
)
def test_damaged_weights_are_one_line(tmp_path, damage, line):
    file = made(tmp_path) / "tiny.weights"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ConfigError, match=line) as told:
        detector(tmp_path)
    assert "\n" not in str(told.value)


def test_an_old_header_is_shorter(tmp_path):
    (tmp_path / "w").write_bytes(struct.pack("<iiii", 0, 1, 0, 7) + struct.pack("<ff", 1.5, 2.5))
    assert read_weights_file(tmp_path / "w", [("a", (2,))])["a"].tolist() == [1.5, 2.5]


def test_what_does_not_fit_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"must hold one \.cfg file"):
        detector(tmp_path)
    made(tmp_path)
    with pytest.raises(ConfigError, match="multiples of 32, got"):
        darknet_detector((3, 60, 64), (20, 6), str(tmp_path))
    with pytest.raises(ConfigError, match="multiples of 32, got"):
        darknet_detector((96,), (20, 6), str(tmp_path))
    with pytest.raises(ConfigError, match="knows 2 classes, the task has 80"):
        detector(tmp_path, num_classes=80)


def test_the_published_network_uses_all_of_its_file_and_cuts_exactly():
    data = pytest.importorskip("splitsem.data")
    try:
        data.path("yolov3-tiny")
    except ConfigError as exc:
        pytest.skip(str(exc))
    model = darknet_detector((3, 64, 64), (100, 6), num_classes=80, masks=[[3, 4, 5], [1, 2, 3]])
    used = sum(v.numel() for v in model.network.state_dict().values() if v.is_floating_point())
    assert used == 8_858_734
    assert assert_cuts_are_exact(model, 64, step=4) > 12
