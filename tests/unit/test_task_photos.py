"""task=photos: crops of photographs, each photograph in one split, and agreement with the unsplit network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

import splitsem.data
from splitsem.check import check_task
from splitsem.data import shelf
from splitsem.errors import ConfigError
from splitsem.models.efficientnet_lite import FILE, efficientnet_lite0
from splitsem.splitting.graph import SplitGraph
from splitsem.tasks.photos import Photos, crops_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight pictures of noise of different sizes, two folders deep."""
    rng = np.random.default_rng(0)
    (tmp_path / "a" / "b").mkdir(parents=True)
    for number in range(8):
        pixels = rng.integers(0, 256, (60 + 10 * number, 120, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / ("a" if number % 2 else "a/b") / f"{number}.png")
    return tmp_path


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * 16, 1000)).eval()


def labelled(root: Path) -> Photos:
    task = Photos(root=str(root), image_size=32)
    task.label_by(network())
    return task


def test_it_keeps_the_contract_of_a_task(root: Path) -> None:
    check_task(lambda: labelled(root))


def test_no_photograph_is_in_two_splits_and_all_are_in_one(root: Path) -> None:
    for seed in range(5):
        parts = [set(paths) for paths in Photos(root=str(root), image_size=32, seed=seed).photographs()]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 8
        assert all(parts)


def test_the_unsplit_network_agrees_with_itself_and_another_one_does_not(root: Path) -> None:
    task, own = labelled(root), network()
    assert task.is_agreement
    other = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(3 * 16, 1000)).eval()
    scores = []
    for answering in (own, other):
        metrics = task.metrics()
        for x, y in DataLoader(task.splits().test, batch_size=5):
            metrics.update(answering(x).detach(), y)
        scores.append(float(metrics.compute()["score"]))
    assert scores[0] == 1 > scores[1]


def test_crops_cover_the_photograph_and_only_the_largest_may_be_enlarged() -> None:
    crops = crops_of((640, 427), 224, (1.0, 0.75, 0.5), 99)
    assert crops[0] == (0, 0, 427)
    assert {crop.side for crop in crops} == {427, 320}  # half of 427 would be enlarged
    assert max(crop.left + crop.side for crop in crops) == 640
    assert {(crop.side) for crop in crops_of((100, 80), 224, (1.0, 0.5), 99)} == {80}
    assert len(crops_of((2000, 1000), 224, (0.25,), 7)) == 7


@pytest.mark.parametrize("wrong", [{"scales": [0.0]}, {"val_fraction": 0.7}, {"most_per_photograph": 0}])
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Photos(**wrong)


def test_too_few_pictures_are_refused_and_missing_ones_named_with_the_command(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"splitsem\.data get photographs"):
        Photos().splits()
    with pytest.raises(ConfigError, match=r"has 0 pictures; .* at least 3"):
        Photos(root=str(tmp_path)).splits()


def test_the_network_without_its_weights_names_the_command_and_other_classes_are_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"splitsem\.data get efficientnet-lite0"):
        efficientnet_lite0((3, 224, 224), (1000,))
    with pytest.raises(ConfigError, match="1000 classes"):
        efficientnet_lite0((3, 224, 224), (10,))


needs_data = pytest.mark.skipif(
    any(shelf.where(shelf.named(name)) is None for name in ("photographs", "efficientnet-lite0")),
    reason="`make data` was not run here",
)


@needs_data
def test_the_real_network_knows_what_real_photographs_show() -> None:
    from PIL import Image as Pictures

    task = Photos()
    model = efficientnet_lite0(task.input_shape, task.output_shape).eval()
    for name, shown in {"chelsea.png": "Egyptian cat", "coffee.png": "espresso", "flower.jpg": "daisy"}.items():
        picture = Pictures.open(splitsem.data.path("photographs") / name).convert("RGB")
        left, top, side = crops_of(picture.size, 224, (1.0,), 1)[0]
        x = torch.from_numpy(np.array(picture.resize((224, 224), box=(left, top, left + side, top + side))))
        y = model(x.permute(2, 0, 1)[None].float() / 255).argmax(1)
        assert task.class_names[int(y)] == shown
    assert (splitsem.data.path("efficientnet-lite0") / FILE).is_file()
    points = [point.name for point in SplitGraph(model, task.input_shape).points]
    assert points[0] == "input"
    assert points[-3:] == ["bn2", "global_pool", "output"]
    assert len(points) == 12
