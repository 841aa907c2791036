"""Detection: its drawn scenes, its loss and what the task promises."""

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn

from splitsem.detections import Boxes, pack_targets, suppress, unpack_targets
from splitsem.errors import ConfigError
from splitsem.tasks.detection.boxed_pictures import mirrored, renumbered
from splitsem.tasks.detection.class_names import COCO80
from splitsem.tasks.detection.detection import Detection
from splitsem.tasks.detection.loss import assign, detection_loss, places
from splitsem.tasks.detection.scenes import SHAPES, DrawnScenes, scene
from tests.conftest import ROOT

STRIDES = (4, 8, 16)


@pytest.fixture(scope="module")
def task() -> Detection:
    return Detection(DrawnScenes(num_train=6, num_val=3, num_test=4))


def targets_of(*boxes: tuple[float, float, float, float, float, int], most: int = 4) -> Tensor:
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    return pack_targets([Boxes(rows[:, :4], rows[:, 4], rows[:, 5].long())], most)


def test_the_same_seed_and_index_give_the_same_scene_and_others_another():
    picture, boxes = scene(3, 7)
    again, same = scene(3, 7)
    np.testing.assert_array_equal(picture, again)
    assert torch.equal(boxes.corners, same.corners)
    assert not np.array_equal(picture, scene(3, 8)[0])
    assert not np.array_equal(picture, scene(4, 7)[0])


def test_scenes_hold_all_classes_of_many_sizes_and_some_hold_nothing():
    found = [scene(0, index)[1] for index in range(60)]
    classes = torch.cat([boxes.classes for boxes in found])
    sides = torch.cat([(boxes.corners[:, 2:] - boxes.corners[:, :2]).amax(1) for boxes in found])
    assert set(classes.tolist()) == set(range(len(SHAPES)))
    assert sides.min() < 14 < 40 < sides.max()
    assert min(map(len, (boxes.classes for boxes in found))) == 0
    assert torch.cat([boxes.corners for boxes in found]).min() >= 0
    assert torch.cat([boxes.corners for boxes in found]).max() <= 128


def test_a_scene_may_be_so_small_that_shapes_vanish():
    assert all(len(scene(0, index, 16)[1].corners) <= 8 for index in range(20))


def test_a_scene_at_twice_the_size_has_the_same_boxes_twice_as_large():
    for index in range(5):
        small, large = scene(0, index, 128)[1], scene(0, index, 256)[1]
        assert small.classes.tolist() == large.classes.tolist()
        torch.testing.assert_close(2 * small.corners, large.corners, atol=2.0, rtol=0)


def test_samples_are_pictures_in_steps_of_one_255th_with_targets(task):
    x, y = task.splits().test[1]
    assert (x.shape, x.dtype, y.shape) == (task.input_shape, torch.float32, (8, 6))
    assert torch.equal((x * 255).round().to(torch.uint8) / 255, x)
    assert task.model_facts() == {"input_shape": (3, 128, 128), "output_shape": (100, 6), "num_classes": 5}
    assert task.input_bytes == 3 * 128 * 128


def test_mirroring_moves_picture_and_boxes_alike_and_leaves_unused_rows(task):
    x, y = task.splits().test[1]
    flipped, targets = mirrored(x, y)
    assert torch.equal(flipped, x.flip(-1))
    ((corners, _, classes),) = unpack_targets(y[None])
    ((moved, _, same),) = unpack_targets(targets[None])
    torch.testing.assert_close(
        moved, torch.stack([128 - corners[:, 2], corners[:, 1], 128 - corners[:, 0], corners[:, 3]], 1)
    )
    assert torch.equal(classes, same)
    torch.testing.assert_close(mirrored(flipped, targets)[1], y)


def test_half_of_the_training_pictures_are_mirrored_and_no_others(task):
    torch.manual_seed(0)
    assert len({task.splits().train[0][0].sum(1).numpy().tobytes() for _ in range(20)}) == 2
    assert len({task.splits().val[0][0].numpy().tobytes() for _ in range(20)}) == 1


def test_classes_are_renumbered_by_name_and_unknown_ones_are_told():
    y = targets_of((0, 0, 5, 5, 0, 0), (1, 1, 6, 6, 0, 1))
    moved = renumbered(y, torch.tensor([-1, 7]))
    ((corners, _, classes),) = unpack_targets(moved)
    assert (corners.tolist(), classes.tolist()) == ([[1, 1, 6, 6]], [7])
    source = DrawnScenes(1, 1, 1)
    turned = Detection(source, classes=SHAPES[::-1])
    y, plain = turned.splits().test[0][1], Detection(source).splits().test[0][1]
    is_used = plain[:, 5] >= 0
    assert torch.equal(y[is_used][:, 5], 4 - plain[is_used][:, 5])
    with pytest.raises(ConfigError, match=r"classes lack [a-z, ]*disc"):
        Detection(source, classes="coco80").splits()
    assert len(Detection(source, classes="coco80").class_names) == len(set(COCO80)) == 80


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"size": (8, 128)}, "size must be two numbers of 16…4096 pixels, got"),
        ({"most": 0}, "most must be 1…100, got 0"),
        ({"most": 101}, "most must be 1…100, got 101"),
        ({"classes": "coco"}, "classes must be a list of names, null, or coco80, got 'coco'"),
    ],
)
def test_bad_arguments_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Detection(DrawnScenes(1, 1, 1), **arguments)


def test_bad_arguments_of_scenes_are_refused():
    with pytest.raises(ValueError, match="num_val must be 1…1000000, got 0"):
        DrawnScenes(num_val=0)
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        DrawnScenes(seed=-1)
    with pytest.raises(ValueError, match=r"task\.size must be two equal numbers, got \[64, 128\]"):
        Detection(DrawnScenes(1, 1, 1), size=(64, 128)).splits()


def maps_of(batch: int, num_classes: int, size: int = 128) -> list[Tensor]:
    return [torch.zeros(batch, 5 + num_classes, size // stride, size // stride) for stride in STRIDES]


def test_a_place_answers_for_the_smallest_box_that_it_lies_in_on_the_map_that_suits_it():
    at = places(maps_of(1, 1), 128)
    small, large, far = (30, 30, 46, 46, 0, 0), (20, 20, 90, 100, 0, 0), (100, 2, 120, 22, 0, 0)
    numbers, _ = assign(at, targets_of(large, small, far))
    answered = [
        sorted({float(at.strides[p]) for p in torch.nonzero(numbers[0] == number)[:, 0]}) for number in range(3)
    ]
    assert answered == [[16.0], [4.0], [4.0]]
    for number, (x1, y1, x2, y2, *_) in enumerate((large, small, far)):
        x, y = at.centres[numbers[0] == number].T
        assert bool(((x > x1) & (x < x2) & (y > y1) & (y < y2)).all())
    inner = targets_of((40, 40, 60, 60, 0, 0), (44, 44, 56, 56, 0, 0))
    numbers, _ = assign(at, inner)
    centre = (at.strides == 4) & (at.centres == torch.tensor([50.0, 50.0])).all(1)
    assert numbers[0, centre].tolist() == [1]


def test_a_box_between_places_has_one_and_a_crowd_has_none_but_is_no_ground_either():
    at = places(maps_of(1, 1), 128)
    numbers, _ = assign(at, targets_of((15.0, 15.0, 17.0, 17.0, 0, 0)))
    assert 1 <= int((numbers == 0).sum()) <= 4
    numbers, is_ignored = assign(at, targets_of((0, 0, 64, 64, 1, 0), (10, 10, 20, 20, 0, 0)))
    assert set(numbers.unique().tolist()) == {-1, 1}
    assert bool(is_ignored.any())
    assert not bool((is_ignored & (numbers >= 0)).any())
    x, y = at.centres[is_ignored[0]].T
    assert bool(((x < 64) & (y < 64)).all())


def test_what_lies_in_a_crowd_changes_no_loss():
    maps = maps_of(1, 2)
    louder = [found.clone() for found in maps]
    louder[0][:, 5:, :4, :4] = 5.0
    crowd, ground = targets_of((0, 0, 32, 32, 1, 0)), targets_of()
    assert torch.equal(detection_loss(maps, crowd, 128), detection_loss(louder, crowd, 128))
    assert detection_loss(maps, ground, 128) < detection_loss(louder, ground, 128)


def decoded(maps: list[Tensor]) -> Tensor:
    """Detections as the loss means its maps."""
    at = places(maps, 128)
    made = torch.cat([found.flatten(2) for found in maps], 2).transpose(1, 2)
    low = at.centres - made[..., :2] * at.strides[:, None]
    high = at.centres + made[..., 2:4] * at.strides[:, None]
    scores = (made[..., 5:].sigmoid() * made[..., 4:5].sigmoid()).sqrt()
    return suppress(torch.cat([low, high], -1), scores, score_threshold=0.3)


def test_maps_that_have_learnt_the_loss_are_the_boxes_of_the_targets(task):
    y = torch.stack([task.splits().test[i][1] for i in range(4)])
    raw = [nn.Parameter(found) for found in maps_of(4, 5)]
    optimiser = torch.optim.Adam(raw, lr=0.1)

    def maps() -> list[Tensor]:
        return [torch.cat([nn.functional.softplus(found[:, :4]), found[:, 4:]], 1) for found in raw]

    losses = []
    for _ in range(120):
        optimiser.zero_grad()
        loss = task.loss(maps(), y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    metrics = task.metrics()
    metrics.update(decoded([found.detach() for found in maps()]), y)
    found = metrics.compute()
    assert found["map50"] > 0.99
    assert found["score"] > 0.9


def test_a_batch_without_a_box_has_a_finite_loss_with_gradients(task):
    maps = [found.requires_grad_() for found in maps_of(2, 5)]
    loss = task.loss(maps, targets_of().repeat(2, 1, 1))
    loss.backward()
    assert loss.isfinite()
    assert all(found.grad is not None and found.grad.isfinite().all() for found in maps)


@pytest.mark.parametrize("made", [torch.zeros(1, 100, 6), [torch.zeros(1, 8, 4, 4)], {"boxes": 1}, []])
def test_another_detector_cannot_be_trained_and_is_told_so(task, made):
    with pytest.raises(ConfigError, match=r"list of maps \(batch, 5 \+ 5 classes, h, w\).*trainer\.max_epochs=0"):
        task.loss(made, targets_of())


def test_the_option_in_conf_builds_the_task():
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", ["task=detection", "task.source.num_train=2", "task.size=[64,64]"])
    built = instantiate(cfg.task)
    assert built.input_shape == (3, 64, 64)
    assert len(built.splits().train) == 2
