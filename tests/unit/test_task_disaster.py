"""Disaster: what its scenes, its loss and its score promise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassJaccardIndex

from splitsem.errors import DataError
from splitsem.models.unet import UNet
from splitsem.tasks.aerial import scene
from splitsem.tasks.disaster import Disaster, Turned, dice_loss
from splitsem.tasks.rescuenet import CLASS_NAMES, IGNORED, PALETTE
from splitsem.tasks.segmentation_metrics import SegmentationIoU

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def task() -> Disaster:
    return Disaster(num_train=24, num_val=8, num_test=48)


def test_the_same_seed_and_index_give_the_same_scene() -> None:
    for first, second in zip(scene(3, 7), scene(3, 7), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("other", [(3, 8), (4, 7)])
def test_another_seed_or_index_gives_another_scene(other: tuple[int, int]) -> None:
    assert not np.array_equal(scene(3, 7)[0], scene(*other)[0])


def test_a_larger_size_shows_the_same_world() -> None:
    agree = [np.mean(scene(0, i)[1] == scene(0, i, size=128)[1][::2, ::2]) for i in range(12)]
    assert np.median(agree) > 0.9


def test_samples_are_pictures_in_steps_of_one_255th_with_labels(task: Disaster) -> None:
    x, y = task.splits().test[0]
    assert (x.shape, x.dtype) == (task.input_shape, torch.float32)
    assert (y.shape, y.dtype) == (task.output_shape[1:], torch.int64)
    assert torch.equal((x * 255).round().to(torch.uint8) / 255, x)
    assert task.is_image
    assert task.input_bytes == 3 * 64 * 64


def test_no_scene_is_in_two_splits(task: Disaster) -> None:
    train, val, test = task.splits()
    indices = [set(train.dataset.indices), set(val.indices), set(test.indices)]
    assert len(set.union(*indices)) == sum(map(len, indices)) == 24 + 8 + 48
    pictures = {x.numpy().tobytes() for split in (train.dataset, val, test) for x, _ in split_items(split)}
    assert len(pictures) == 24 + 8 + 48


def test_the_size_of_one_split_leaves_the_others_alone(task: Disaster) -> None:
    other = Disaster(num_train=3, num_val=2, num_test=1)
    assert torch.equal(other.splits().test[0][0], task.splits().test[0][0])


def test_scenes_are_imbalanced_and_hold_every_class(task: Disaster) -> None:
    labels = torch.stack([y for _, y in split_items(task.splits().test)])
    share = torch.bincount(labels.flatten(), minlength=12) / labels.numel()
    assert (share > 0).all()
    assert share[CLASS_NAMES.index("background")] > 0.35
    assert share[CLASS_NAMES.index("vehicle")] < 0.02
    assert share[CLASS_NAMES.index("pool")] < 0.02
    grades = [share[CLASS_NAMES.index(n)] for n in CLASS_NAMES if n.startswith("building")]
    assert len(grades) == 4
    assert max(grades) < 0.15


def test_there_are_twelve_classes_in_twelve_colours() -> None:
    assert len(CLASS_NAMES) == len(PALETTE) == 12
    assert len({tuple(colour) for colour in PALETTE.tolist()}) == 12
    assert CLASS_NAMES[0] == "background"
    assert tuple(PALETTE[0]) == (0, 0, 0)
    assert tuple(PALETTE[CLASS_NAMES.index("road_blocked")]) == (160, 150, 20)


def test_iou_equals_counting_pixel_by_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4, (3, 5, 6), generator=generator)
    y[y == 2] = IGNORED  # so class 2 is absent, though it is predicted
    logits = torch.randn(3, 4, 5, 6, generator=generator)
    metric = SegmentationIoU("abcd", ignore_index=IGNORED)
    for k in range(3):
        metric.update(logits[k : k + 1], y[k : k + 1])
    result = metric.compute()
    predicted, counted = logits.argmax(1), y != IGNORED
    expected = {}
    for c, name in ((0, "a"), (1, "b"), (3, "d")):
        hit = int(((predicted == c) & (y == c) & counted).sum())
        union = int((((predicted == c) | (y == c)) & counted).sum())
        expected[f"iou_{name}"] = hit / union
    assert {k: float(v) for k, v in result.items() if k != "score"} == pytest.approx(expected)
    assert float(result["score"]) == pytest.approx(np.mean(list(expected.values())))


def test_iou_of_each_class_is_that_of_torchmetrics_jaccard_index() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 9, (8, 20, 20), generator=generator)  # classes 9…11 are absent, though they are predicted
    y[torch.rand(y.shape, generator=generator) < 0.1] = IGNORED
    predicted = torch.randint(0, 12, y.shape, generator=generator)
    metric = SegmentationIoU(CLASS_NAMES, IGNORED)
    metric.update(predicted, y)
    ours = metric.compute()
    theirs = MulticlassJaccardIndex(12, average="none", ignore_index=IGNORED)(predicted, y)
    assert [ours.get(f"iou_{name}") for name in CLASS_NAMES] == [*theirs[:9], None, None, None]
    assert ours["score"] == theirs[:9].mean()


@pytest.mark.parametrize("is_logits", [True, False])
def test_the_states_of_samples_at_once_are_those_of_each_alone(is_logits: bool) -> None:
    torch.manual_seed(0)
    y = torch.randint(0, len(CLASS_NAMES), (5, 8, 8))
    y[torch.rand(y.shape) < 0.2] = IGNORED
    y[3] = IGNORED
    shape = (5, len(CLASS_NAMES), 8, 8)
    predicted = torch.randn(shape) if is_logits else torch.randint(0, len(CLASS_NAMES), (5, 8, 8))
    together = SegmentationIoU(CLASS_NAMES, IGNORED).sample_states(predicted, y)["confmat"]
    for sample in range(5):
        metric = SegmentationIoU(CLASS_NAMES, IGNORED)
        metric.update(predicted[sample : sample + 1], y[sample : sample + 1])
        assert torch.equal(together[sample], metric.confmat)


@pytest.mark.parametrize("label", [-1, 12])
def test_a_label_that_is_no_class_is_refused_and_not_counted_elsewhere(label: int) -> None:
    y = torch.zeros(2, 4, 4, dtype=torch.int64)
    y[1, 0, 0] = label
    with pytest.raises(DataError, match=f"0…11, or {IGNORED} for no class, got {label}"):
        SegmentationIoU(CLASS_NAMES, IGNORED).update(torch.zeros_like(y), y)


def test_perfect_masks_score_one_and_a_data_set_without_labels_zero(task: Disaster) -> None:
    metrics = task.metrics()
    _, y = task.splits().test[0]
    metrics.update(torch.nn.functional.one_hot(y, 12).movedim(-1, 0).float()[None], y[None])
    result = metrics.compute()
    assert {float(v) for v in result.values()} == {1.0}
    present = {f"iou_{CLASS_NAMES[c]}" for c in y.unique()}
    assert set(result) == present | {"score"}
    empty = task.metrics()
    empty.update(torch.zeros(1, 12, 8, 8), torch.full((1, 8, 8), IGNORED))
    assert {name: float(value) for name, value in empty.compute().items()} == {"score": 0.0}


def test_loss_falls_as_the_mask_gets_better(task: Disaster) -> None:
    _, y = task.splits().test[0]
    truth = torch.nn.functional.one_hot(y, 12).movedim(-1, 0).float()[None]
    losses = [float(task.loss(certainty * truth, y[None])) for certainty in (0, 2, 5, 30)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-3)


def test_ignored_pixels_change_no_loss(task: Disaster) -> None:
    y = torch.randint(0, 12, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    y[:, :3] = IGNORED
    logits = torch.randn(1, 12, 8, 8, generator=torch.Generator().manual_seed(1))
    changed = logits.clone()
    changed[:, :, :3] += 5 * torch.randn(1, 12, 3, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(task.loss(changed, y), task.loss(logits, y))


def test_dice_equals_its_formula_for_two_classes() -> None:
    y = torch.tensor([[[0, 1], [1, 1]]])
    p = torch.tensor([[0.6, 0.2], [0.5, 0.9]])  # probability of class 1
    logits = torch.stack(((1 - p).log(), p.log()))[None]
    of_one = 2 * (0.2 + 0.5 + 0.9) / ((0.6 + 0.2 + 0.5 + 0.9) + 3)
    of_zero = 2 * 0.4 / ((0.4 + 0.8 + 0.5 + 0.1) + 1)
    assert float(dice_loss(logits, y, IGNORED)) == pytest.approx(1 - (of_one + of_zero) / 2, rel=1e-5)


def test_turning_moves_picture_and_labels_alike_and_covers_all_eight_positions() -> None:
    labels = torch.arange(9).reshape(1, 3, 3)
    turned = Turned(TensorDataset(labels.float()[:, None], labels))
    torch.manual_seed(0)
    seen = set()
    for _ in range(200):
        x, y = turned[0]
        assert torch.equal(x[0].long(), y)
        seen.add(tuple(y.flatten().tolist()))
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_test": 0}, "num_test must be 1…1000000, got 0"),
        ({"size": 4}, "size must be at least 8 pixels, got 4"),
        ({"dice_weight": -1}, "dice_weight must be at least 0, got -1"),
        ({"stride": 0}, "stride must be at least 1 pixel, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Disaster(**arguments)


def test_the_options_in_conf_build_the_task_and_a_model_that_fits() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["task=disaster"])
    built = instantiate(cfg.task, num_test=2)
    assert cfg.model == OmegaConf.load(CONF / "model/unet.yaml")
    model = instantiate(cfg.model, input_shape=built.input_shape, output_shape=built.output_shape)
    x, y = next(iter(DataLoader(built.splits().test, 2)))
    assert torch.isfinite(built.loss(model(x), y))


@pytest.mark.slow
def test_the_default_network_reaches_a_mean_iou_that_leaves_room_above_and_below() -> None:
    torch.manual_seed(0)
    task = Disaster()
    model = UNet(task.input_shape, task.output_shape)
    loader = DataLoader(task.splits().train, batch_size=8, shuffle=True, drop_last=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=12 * len(loader))
    for _ in range(12):
        for x, y in loader:
            optimiser.zero_grad()
            task.loss(model(x), y).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    model.eval()
    metrics = task.metrics()
    with torch.inference_mode():
        for x, y in DataLoader(task.splits().test, 32):
            metrics.update(model(x), y)
    assert 0.5 <= float(metrics.compute()["score"]) <= 0.95


def split_items(split) -> list:
    return [split[i] for i in range(len(split))]
