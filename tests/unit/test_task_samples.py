"""Samples without labels: a folder, an array, a list or a generator is a data set, and the score is agreement."""

import numpy as np
import pytest
import torch
from PIL import Image

from splitsem.errors import ConfigError
from splitsem.scoring import score_samples
from splitsem.tasks.agreement_metrics import SameClasses, SameValues
from splitsem.tasks.samples import Samples

NUMBERS = np.random.default_rng(0).normal(size=(10, 4))
PAIRS = [(number.astype(np.float32), np.int64(index)) for index, number in enumerate(NUMBERS)]
UNLIKE = [np.zeros(3), np.zeros(3), np.zeros(4), np.zeros(3)]
WORDS = ["a", "b", "c", "d"]
HERE = f"{__name__}."


def endless():
    while True:
        yield torch.ones(2)


def all_of(task):
    return [x for split in task.splits() for x, _ in split]


def double(x):
    return 2 * x


def labelled(settings):
    task = Samples(**settings)
    task.label_by(double)
    return task


@pytest.mark.parametrize("source", [f"{HERE}NUMBERS", "file"])
def test_an_array_gives_a_sample_a_row(source, tmp_path):
    np.save(tmp_path / "x.npy", NUMBERS)
    task = Samples(str(tmp_path / "x.npy") if source == "file" else source, compare="values")
    task.label_by(double)
    rows = sorted(tuple(x.tolist()) for x in all_of(task))
    assert rows == sorted(tuple(row.tolist()) for row in torch.from_numpy(NUMBERS).float())
    assert [len(split) for split in task.splits()] == [3, 2, 5]
    assert task.input_shape == (4,)


def test_a_generator_is_read_as_far_as_asked():
    assert len(Samples(f"{HERE}endless", most=7).samples) == 7


def test_a_list_of_tuples_gives_inputs_by_position():
    task = Samples(f"{HERE}PAIRS", compare="values")
    task.label_by(lambda pair: {"a": pair[0], "b": pair[1][:, None] + 0.5})
    (x, index), y = task.splits().test[0]
    assert x.dtype is torch.float32
    assert torch.equal(y, torch.cat([x, index[None] + 0.5]))
    assert task.input_shape == ()
    assert task.example()[0].shape == (1, 4)


def test_pictures_of_a_folder(tmp_path):
    for k in range(4):
        Image.new("RGB", (20 + k, 10), (255, 60 * k, 0)).save(tmp_path / f"{k}.png")
    task = Samples(str(tmp_path), image_size=8)
    assert task.is_image
    assert task.samples[2].shape == (3, 8, 8)
    assert task.samples[2][:, 0, 0].tolist() == pytest.approx([1, 120 / 255, 0])


def test_the_score_is_agreement_with_the_unsplit_network():
    task = Samples(f"{HERE}NUMBERS", compare="values")
    task.label_by(double)
    test = [(x[None], y[None]) for x, y in task.splits().test]
    assert score_samples(double, task, test).metrics["score"] == 1
    assert score_samples(lambda x: 1.8 * x, task, test).metrics["score"] == pytest.approx(0.99)
    assert score_samples(lambda x: -x, task, test).metrics["score"] == 0
    assert score_samples(double, task, test).draws is not None


def test_classes_are_compared_place_by_place():
    metric = SameClasses()
    output = torch.zeros(2, 3, 2, 2)
    output[:, 1] = 1
    y = torch.ones(2, 2, 2, dtype=torch.int64)
    y[0, 0, 0] = 2
    metric.update({"out": output}, y)
    assert metric.compute() == pytest.approx(7 / 8)


def test_zero_that_stays_zero_agrees():
    metric = SameValues()
    metric.update(torch.zeros(2, 3), torch.zeros(2, 3))
    assert metric.compute() == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"source": "no.such.thing"}, "no folder"),
        ({"source": f"{HERE}WORDS"}, "array"),
        ({"source": f"{HERE}UNLIKE"}, "sample 2"),
        ({"source": f"{HERE}__name__"}, "gives str"),
        ({"source": f"{HERE}NUMBERS", "most": 2}, "most"),
        ({"source": f"{HERE}NUMBERS", "compare": "taste"}, "classes, values"),
        ({"source": f"{HERE}NUMBERS", "val_fraction": 0.9}, "rest for test"),
    ],
)
def test_what_is_no_source_is_told_in_one_line(settings, said):
    with pytest.raises((ConfigError, ValueError), match=said) as failed:
        all_of(labelled(settings))
    assert "\n" not in str(failed.value)
