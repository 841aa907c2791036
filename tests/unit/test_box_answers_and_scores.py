"""Boxes as answers, and mean average precision: torchmetrics' numbers, on draws of the pictures too."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from splitsem.detections import unpack, unpack_targets
from splitsem.errors import PayloadError
from splitsem.intervals import resamples
from splitsem.tasks.detection.box_list import BoxList
from splitsem.tasks.detection.mean_average_precision import MeanAveragePrecision

CODERS = {
    "coco": BoxList((416, 416), 80, 100),
    "wide": BoxList((128, 4096), 5, 20),
    "many classes": BoxList((64, 48), 1000, 3),
}


def random_boxes(draw: np.random.Generator, num: int, most: int, size: float = 100.0) -> Tensor:
    """``num`` pictures with up to ``most`` targets each, the first one without any; a few of them crowds."""
    targets = torch.zeros(num, most, 6)
    targets[..., 5] = -1
    for number in range(1, num):
        for row in range(draw.integers(0, most + 1)):
            x, y, w, h = draw.uniform(0, size / 2, 2).tolist() + draw.uniform(5, size / 2, 2).tolist()
            targets[number, row] = torch.tensor((x, y, x + w, y + h, draw.random() < 0.15, draw.integers(4)))
    return targets


def found_near(draw: np.random.Generator, targets: Tensor, most: int) -> Tensor:
    """Detections: the targets moved a little, some twice, some of another class, and some where nothing is."""
    made = torch.zeros(len(targets), most, 6)
    for number, (corners, _, classes) in enumerate(unpack_targets(targets)):
        rows = []
        for box, kind in zip(corners.numpy(), classes.tolist(), strict=True):
            for _ in range(draw.integers(0, 3)):
                moved = box + draw.normal(0, 2.5, 4)
                rows.append(
                    (*moved, round(draw.uniform(0.05, 1), 2), kind if draw.random() < 0.85 else draw.integers(5))
                )
        for _ in range(draw.integers(0, 4)):
            x, y = draw.uniform(0, 80, 2)
            rows.append((x, y, x + 15, y + 15, round(draw.uniform(0.05, 0.6), 2), draw.integers(5)))
        rows = sorted(rows, key=lambda row: -row[4])[:most]
        made[number, : len(rows)] = torch.tensor(rows).reshape(-1, 6)
    return made


def torchmetrics_map(detections: Tensor, targets: Tensor) -> tuple[float, float]:
    pytest.importorskip("pycocotools", reason="the extra detection is not installed")
    from torchmetrics.detection import MeanAveragePrecision as Theirs

    metric = Theirs(backend="pycocotools")
    metric.update(
        [{"boxes": b.corners, "scores": b.scores, "labels": b.classes} for b in unpack(detections)],
        [{"boxes": b.corners, "labels": b.classes, "iscrowd": b.scores.int()} for b in unpack_targets(targets)],
    )
    found = metric.compute()
    return float(found["map"]), float(found["map_50"])


@pytest.mark.parametrize("seed", range(6))
def test_map_is_that_of_torchmetrics_whatever_the_batches(seed):
    draw = np.random.default_rng(seed)
    targets = random_boxes(draw, 24, 9)
    detections = found_near(draw, targets, 30)
    metric = MeanAveragePrecision()
    for rows, wanted in zip(detections.split(7), targets.split(7), strict=True):
        metric.update(rows, wanted)
    found = metric.compute()
    assert (float(found["score"]), float(found["map50"])) == pytest.approx(
        torchmetrics_map(detections, targets), abs=1e-6
    )
    assert 0.05 < float(found["score"]) < 0.95
    once = metric.draws(np.ones((1, 24), int))
    assert once.dtype == np.float32
    assert once[0] == pytest.approx(float(found["score"]), abs=1e-6)


def test_a_draw_is_the_map_of_the_drawn_pictures():
    draw = np.random.default_rng(11)
    targets = random_boxes(draw, 16, 6)
    detections = found_near(draw, targets, 20)
    detections[..., 4] *= 1 - torch.rand(detections.shape[:2], generator=torch.Generator().manual_seed(0)) * 1e-3
    metric = MeanAveragePrecision()
    metric.update(detections, targets)
    times = resamples(16)[:4].astype(int)
    draws = metric.draws(times)
    for row, found in zip(times, draws, strict=True):
        again = np.repeat(np.arange(16), row)
        assert found == pytest.approx(torchmetrics_map(detections[again], targets[again])[0], abs=1e-6)


def test_perfect_boxes_score_one_and_no_targets_or_no_detections_zero():
    targets = random_boxes(np.random.default_rng(0), 6, 4)
    perfect = targets.clone()
    perfect[..., 4] = (targets[..., 5] >= 0).float()
    nothing = torch.zeros(6, 10, 6)
    empty = torch.zeros(6, 4, 6)
    empty[..., 5] = -1
    scores = []
    for detections, wanted in ((perfect, targets), (nothing, targets), (perfect, empty), (nothing, empty)):
        metric = MeanAveragePrecision()
        metric.update(detections, wanted)
        scores.append({name: float(value) for name, value in metric.compute().items()})
        assert metric.draws(resamples(6)).shape == (500,)
    assert scores[0] == {"score": 1.0, "map50": 1.0}
    assert all(found == {"score": 0.0, "map50": 0.0} for found in scores[1:])


def test_a_reset_metric_has_forgotten_all():
    targets = random_boxes(np.random.default_rng(0), 6, 4)
    metric = MeanAveragePrecision()
    metric.update(torch.rand(6, 10, 6), targets)
    metric.reset()
    perfect = targets.clone()
    perfect[..., 4] = (targets[..., 5] >= 0).float()
    metric.update(perfect, targets)
    assert float(metric.compute()["score"]) == 1.0
    assert metric.draws(np.ones((2, 6), int)).tolist() == [1.0, 1.0]


def test_five_hundred_draws_of_two_hundred_full_pictures_take_seconds():
    draw = np.random.default_rng(0)
    targets = random_boxes(draw, 200, 20)
    detections = torch.rand(200, 100, 6, generator=torch.Generator().manual_seed(0))
    detections[:, :20, :4] = targets[..., :4] + 1
    detections[..., 5] = (detections[..., 5] * 4).floor()
    detections[:, :20, 5] = targets[..., 5].clamp_min(0)
    metric = MeanAveragePrecision()
    before = time.process_time()
    metric.update(detections, targets)
    draws = metric.draws(resamples(200))
    assert time.process_time() - before < 5
    assert draws.std() > 0


@pytest.mark.parametrize("name", CODERS)
def test_boxes_survive_their_bytes_up_to_the_step_and_give_an_output_of_the_same_answer(name):
    coder = CODERS[name]
    output = torch.zeros(1, coder.most, 6)
    height, width = coder.size
    generator = torch.Generator().manual_seed(0)
    num = coder.most - 1
    output[0, :num, :4] = torch.rand(num, 4, generator=generator) * torch.tensor([width, height, width, height])
    corners = output[0, :num, :4].reshape(num, 2, 2).sort(dim=1).values
    output[0, :num, :4] = corners.reshape(num, 4)
    output[0, :num, 4] = torch.rand(num, generator=generator).sort(descending=True).values.clamp_min(1e-3)
    output[0, :num, 5] = torch.randint(coder.num_classes, (num,), generator=generator).float()
    answer = coder.encode(output)
    again = coder.as_output(coder.decode(answer))
    assert len(answer) == num * (11 if coder.num_classes <= 256 else 12)
    assert (again.shape, again.dtype) == (output.shape, torch.float32)
    assert coder.encode(again) == answer
    assert (again - output)[..., :4].abs().max() <= max(height, width) / 65535
    assert torch.equal(again[..., 5], output[..., 5])
    assert (again - output)[..., 4].abs().max() <= 1 / 65535


def test_an_answer_without_a_box_is_no_byte():
    coder = CODERS["coco"]
    assert coder.encode(torch.zeros(1, 100, 6)) == b""
    assert not coder.as_output(coder.decode(b"")).any()


@given(junk=st.binary(max_size=60), name=st.sampled_from(sorted(CODERS)))
def test_bytes_that_are_no_boxes_are_refused_and_all_others_are_their_own_answer(junk, name):
    coder = CODERS[name]
    try:
        answer = coder.decode(junk)
    except PayloadError:
        return
    assert coder.encode(coder.as_output(answer)) == junk


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (bytes(10), "at most 100 boxes of 11 bytes each, got 10 bytes"),
        (bytes(11 * 101), "at most 100 boxes of 11 bytes each, got 1111 bytes"),
        (bytes(11), "boxes with an area, within 416x416 pixels"),
        (bytes([0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0]), "with an area"),
        (bytes(8) + b"\xff\xff\x50", "of 80 classes"),
    ],
)
def test_a_wrong_answer_is_told(answer, said):
    with pytest.raises(PayloadError, match=said):
        CODERS["coco"].decode(answer)


def test_what_is_not_finite_or_has_no_area_is_left_out_and_the_rest_becomes_a_box_of_the_picture():
    output = torch.zeros(1, 100, 6)
    output[0, :2] = torch.tensor([[-9.0, -1.0, 500, 40, 2.0, 99.0], [0, 0, 9, 9, float("nan"), 3]])
    output[0, 2:4] = torch.tensor([[5.0, 5, 5, 9, 0.9, 3], [1, 1, float("nan"), 9, 0.9, 3]])
    coder = CODERS["coco"]
    (row,) = coder.decode(coder.encode(output))
    assert row.tolist() == pytest.approx([0, 0, 416, 40, 1, 79], abs=0.01)
