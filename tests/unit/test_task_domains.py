"""Task domains: splits stay apart, domains share no sample, and data is the same whenever it is read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Subset

from splitsem.errors import ConfigError
from splitsem.report.data_figures import domains as draw_domains
from splitsem.report.data_figures import partition as draw_partition
from splitsem.tasks.classification import labels_of
from splitsem.tasks.digits import Digits
from splitsem.tasks.domains import Domains, suits
from splitsem.tasks.imagefolder import ImageFolderTask
from splitsem.tasks.netqos import NetQos
from splitsem.tasks.partitions import ClassGroups, Dirichlet, Iid
from splitsem.tasks.photos import Photos
from splitsem.tasks.texts import Texts
from tests.conftest import ROOT

FOUR = [
    {"corruption": "gaussian_noise", "std": 0.2},
    {"corruption": "salt_and_pepper", "probability": 0.2},
    {"corruption": "fog", "severity": 3},
    {"corruption": "occlusion", "severity": 1},
]
BASE = Digits()


def task(domain: int | None = 0, partition=None, **settings) -> Domains:
    return Domains(BASE, FOUR, partition or ClassGroups(), domain, **settings)


def everything(data: Dataset, batch_size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(DataLoader(data, batch_size=batch_size))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


@pytest.mark.parametrize("partition", [ClassGroups(), Dirichlet(0.5), Iid()])
def test_domains_share_no_sample_lose_none_and_keep_the_bases_splits(partition):
    of_each = [task(domain, partition).splits() for domain in range(4)]
    for number, base in enumerate(BASE.splits()):
        held = [splits[number].indices for splits in of_each]
        np.testing.assert_array_equal(np.sort(np.concatenate(held)), np.arange(len(base)))
        assert all(splits[number].base is base for splits in of_each)


@pytest.mark.parametrize("partition", [ClassGroups(), Dirichlet(0.5)])
def test_a_domain_is_tested_on_the_classes_it_was_trained_on(partition):
    splits = task(1, partition).splits()
    train, test = (np.bincount(split.labels, minlength=10) / len(split) for split in (splits.train, splits.test))
    assert np.abs(train - test).max() < 0.05


def test_with_disjoint_groups_domains_of_different_groups_share_no_class():
    first, second = (set(task(domain).splits().train.labels) for domain in (0, 1))
    assert len(first) == len(second) == 5
    assert not first & second


def test_the_data_is_the_same_in_every_process_order_and_batch():
    test = task().splits().test
    x, y = everything(test)
    again, _ = everything(task().splits().test, batch_size=7)
    assert torch.equal(x, again)
    assert torch.equal(x[5], test[5][0])
    assert y.tolist() == test.labels.tolist()
    assert not torch.equal(x, everything(task(seed=1).splits().test)[0][: len(x)])


def test_a_sample_is_corrupted_alike_whichever_partition_put_it_there():
    one, other = (task(partition=rule).splits().test for rule in (ClassGroups(), Iid()))
    shared = sorted(set(one.indices) & set(other.indices))
    assert shared
    for index in shared:
        a, b = (data[int(np.flatnonzero(data.indices == index)[0])][0] for data in (one, other))
        assert torch.equal(a, b)


def test_the_corruption_is_the_domains_own():
    for domain, name in ((0, "gaussian"), (1, "salt")):
        test = task(domain).splits().test
        x, _ = everything(test)
        clean, _ = everything(Subset(test.base, test.indices.tolist()))
        changed = x != clean
        assert changed.any(), name
        if name == "salt":
            assert changed.float().mean() < 0.2
            assert set(x[changed].tolist()) <= {0.0, 1.0}


def test_without_a_domain_the_data_is_all_domains_together():
    every = task(None).splits().test
    assert len(every) == len(BASE.splits().test)
    assert set(every.domains) == {0, 1, 2, 3}
    x, y = everything(every)
    alone, labels = everything(task(2).splits().test)
    assert torch.equal(x[every.domains == 2], alone)
    assert torch.equal(y[every.domains == 2], labels)


def test_a_domain_looks_like_its_base_from_outside():
    own = task()
    assert (own.input_shape, own.output_shape, own.input_bytes, own.class_names) == (
        BASE.input_shape,
        BASE.output_shape,
        BASE.input_bytes,
        BASE.class_names,
    )
    assert own.is_image
    assert own.counts.sum() == len(BASE.splits().train)


def test_pictures_in_folders_are_read_from_disk_and_corrupted(tmp_path: Path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                picture = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / split / name / f"{i}.png")
    base = ImageFolderTask(str(tmp_path), image_size=16, augment=False, val_fraction=0.5)
    splits = Domains(base, FOUR[:2], Iid(), 1).splits()
    assert [len(split) for split in splits] == [4, 4, 4]
    x, y = everything(splits.train, batch_size=2)
    assert x.shape == (4, 3, 16, 16)
    assert torch.equal(x, everything(splits.train)[0])
    assert y.tolist() == splits.train.labels.tolist()


BAD = [
    (lambda: task(4), "domain must be 0…3, or null for all of them, got 4"),
    (lambda: task(-1), "domain must be 0…3.*got -1"),
    (lambda: task(seed=-1), "seed must be at least 0, got -1"),
    (lambda: Domains(BASE, [], Iid()), "domains must name at least one corruption"),
    (lambda: Domains(BASE, [{"corruption": "rain"}], Iid()), "corruption must be one of .*, got 'rain'"),
    (lambda: Domains(NetQos(), FOUR, Iid()), "base must be an image classification task.*got NetQos"),
    (lambda: Domains(Photos(), FOUR, Iid()), "base must be an image classification task with labels.*got Photos"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_settings_are_refused_in_one_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_domains_are_made_of_pictures_that_have_labels(tmp_path: Path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_text(name)
    assert [suits(task) for task in (Digits(), Photos(), Texts(str(tmp_path)))] == [True, False, False]


def test_a_domain_with_one_class_or_without_test_samples_is_refused_before_training():
    with pytest.raises(ConfigError, match=r"domain \d gets samples of 1 class.*task.partition.beta"):
        task(partition=Dirichlet(0.01, seed=3)).splits()
    many = [{"corruption": "gaussian_noise", "std": 0.2}] * 400
    with pytest.raises(ConfigError, match=r"domain \d+ of 400 gets none of the 359 val samples"):
        Domains(BASE, many, ClassGroups(2)).splits()


def test_a_data_set_that_hides_its_labels_is_refused():
    class Hidden(Dataset):
        pass

    with pytest.raises(ConfigError, match="Hidden must have `labels` or `targets`"):
        labels_of(Hidden())


def test_the_configured_task_is_the_papers_ten_domains_over_any_base():
    overrides = ["task=domains", "task@task.base=digits", "partition@task.partition=dirichlet", "task.domain=7"]
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", overrides)
    made = instantiate(cfg.task)
    assert [c.value for c in made.corruptions] == [0.2, 0.22, 0.24, 0.2, 0.22, 0.18, 0.5, 0.25, 0.35, 0.4]
    assert [c.name for c in made.corruptions].count("salt_and_pepper") == 3
    assert isinstance(made.base, Digits)
    assert made.domain == 7
    assert len(made.splits().train) >= 10


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_domains_are_drawn_as_they_are(channels):
    images = np.random.default_rng(0).random((2, 3, channels, 8, 8))
    figure = draw_domains(images, ["fog density 0.3", "jpeg quality 7"], [["a", "b", "c"]] * 2)
    drawn = [np.asarray(ax.get_images()[0].get_array()) for ax in figure.axes]
    np.testing.assert_allclose(drawn[4], images[1, 1, 0] if channels == 1 else images[1, 1].transpose(1, 2, 0))
    figure.canvas.draw()


@pytest.mark.parametrize(("num_clients", "num_classes"), [(1, 2), (10, 10), (100, 10), (10, 100)])
def test_who_has_what_shows_every_sample(num_clients, num_classes):
    counts = np.random.default_rng(0).integers(0, 4, (num_clients, num_classes))
    counts[0, 0] = 3
    figure = draw_partition(counts, [f"class {i}" for i in range(num_classes)])
    totals, of_each = figure.axes
    assert [bar.get_height() for bar in totals.patches] == counts.sum(1).tolist()
    drawn = np.zeros(counts.shape)
    for bar in of_each.patches:
        assert -0.5 <= bar.get_y() + bar.get_height() < bar.get_y() <= num_classes - 0.5
        drawn[round(bar.get_x() + bar.get_width() / 2), round(bar.get_y() - 0.5)] = -bar.get_height()
    np.testing.assert_allclose(drawn / drawn.max(), counts / counts.max())
    figure.canvas.draw()
