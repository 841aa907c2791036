"""Classification tasks that read files: small data sets in the real formats, and missing or damaged ones."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader

from splitsem.errors import ConfigError
from splitsem.tasks import fashion_mnist
from splitsem.tasks.cifar import CLASS_NAMES, Cifar
from splitsem.tasks.fashion_mnist import FashionMnist, read_idx
from splitsem.tasks.imagefolder import ImageFolderTask

RNG = np.random.default_rng(0)


def idx_bytes(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_fashion_mnist(folder: Path, zipped: bool) -> None:
    folder.mkdir(parents=True)
    for (images_name, labels_name), count in zip(fashion_mnist.FILES.values(), (120, 30), strict=True):
        images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for name, values in ((images_name, images), (labels_name, np.arange(count, dtype=np.uint8) % 10)):
            path = folder / (f"{name}.gz" if zipped else name)
            path.write_bytes(gzip.compress(idx_bytes(values)) if zipped else idx_bytes(values))


ZIPPED = gzip.compress(idx_bytes(np.arange(250, dtype=np.uint8)))


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Neither Debian's package nor an earlier download nor the network."""
    monkeypatch.setattr(fashion_mnist, "DEBIAN_ROOT", tmp_path / "debian")
    monkeypatch.setattr(fashion_mnist, "DOWNLOAD_ROOT", tmp_path / "downloads")
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    return tmp_path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"])
def test_fashion_mnist_is_found_below_root(nowhere: Path, zipped: bool, below: str) -> None:
    write_fashion_mnist(nowhere / "data" / below, zipped)
    train, val, test = FashionMnist(root=str(nowhere / "data")).splits()
    assert (len(train), len(val), len(test)) == (110, 10, 30)
    x, y = next(iter(DataLoader(test, 30)))
    assert x.shape == (30, 1, 28, 28)
    assert y.tolist() == [*range(10)] * 3
    assert torch.equal((x * 255).round().byte(), test.images)


def test_fashion_mnist_is_found_in_debians_folder(nowhere: Path) -> None:
    write_fashion_mnist(nowhere / "debian", zipped=True)
    assert len(FashionMnist().splits().test) == 30


def test_missing_fashion_mnist_says_where_it_looked_and_how_to_get_it(nowhere: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        FashionMnist(root=str(nowhere / "mine"), download=False).splits()
    for hint in (
        str(nowhere / "mine"),
        str(nowhere / "debian"),
        "`make data`",
        "the task's root=",
        "the task's download=true",
    ):
        assert hint in str(caught.value)


def test_failed_download_of_fashion_mnist_is_a_config_error(nowhere: Path) -> None:
    with pytest.raises(ConfigError, match=r"downloading it failed.*`make data`") as caught:
        FashionMnist().splits()
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"PK\3\4 something", "not an idx file"),
        (idx_bytes(np.zeros((2, 3, 3), np.uint8))[:-1], r"states the shape \(2, 3, 3\) but holds 17 bytes"),
        (b"\0\0\x08\x03\0\0", "header is cut short"),
    ],
)
def test_damaged_idx_file_is_a_config_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "images").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_idx(tmp_path / "images")


@pytest.mark.parametrize("content", [b"no gzip", ZIPPED[:-9], ZIPPED[:20] + b"\xff" * 20 + ZIPPED[40:]])
def test_damaged_gzip_is_a_config_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "images.gz").write_bytes(content)
    with pytest.raises(ConfigError, match="not a whole gzip file"):
        read_idx(tmp_path / "images.gz")


@pytest.mark.slow
def test_real_fashion_mnist_has_its_published_size() -> None:
    if not fashion_mnist.DEBIAN_ROOT.exists():
        pytest.skip("`make data` installs it")
    train, val, test = FashionMnist(download=False).splits()
    assert [len(part) for part in (train, val, test)] == [55_000, 5_000, 10_000]
    assert torch.cat([train.labels, val.labels]).bincount().tolist() == [6_000] * 10
    assert test.labels.bincount().tolist() == [1_000] * 10


def write_cifar(root: Path, num_classes: int, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Official layout, 20 images a class in training; torchvision is told the MD5 sums of these files."""
    source = {10: torchvision.datasets.CIFAR10, 100: torchvision.datasets.CIFAR100}[num_classes]
    label_key = "labels" if num_classes == 10 else "fine_labels"
    folder = root / source.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: dict) -> str:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    lists, test_pixels = {}, np.zeros(0)
    for attribute, per_class in (("train_list", 20), ("test_list", 2)):
        names = [name for name, _ in getattr(source, attribute)]
        labels = np.arange(num_classes * per_class) % num_classes
        pixels = RNG.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        parts = zip(names, np.array_split(pixels, len(names)), np.array_split(labels, len(names)), strict=True)
        lists[attribute] = [[name, write(name, {"data": x, label_key: y.tolist()})] for name, x, y in parts]
        test_pixels = pixels
    meta = dict(source.meta)
    meta["md5"] = write(meta["filename"], {meta["key"]: CLASS_NAMES[num_classes]})
    for attribute, value in {**lists, "meta": meta}.items():
        monkeypatch.setattr(source, attribute, value)
    return test_pixels


@pytest.mark.parametrize("num_classes", [10, 100])
def test_cifar_reads_the_official_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_classes: int) -> None:
    pixels = write_cifar(tmp_path, num_classes, monkeypatch)
    task = Cifar(str(tmp_path), num_classes)
    train, val, test = task.splits()
    assert [len(part) / num_classes for part in (train, val, test)] == [18, 2, 2]
    assert val.labels.bincount().tolist() == [2] * num_classes
    x = torch.stack([test[number][0] for number in range(len(test))])
    assert torch.equal(x.flatten(1), torch.from_numpy(pixels).float() / 255)
    assert task.output_shape == (num_classes,)
    assert task.input_bytes == 3072


def test_only_cifars_training_images_are_augmented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, 10, monkeypatch)
    torch.manual_seed(0)
    train, val, test = Cifar(str(tmp_path)).splits()
    for data, changes in ((train, True), (val, False), (test, False)):
        draws = torch.stack([data[0][0] for _ in range(20)])
        assert (draws != draws[0]).any().item() is changes
    plain = Cifar(str(tmp_path), augment=False).splits().train
    assert torch.equal(plain[0][0], plain[0][0])


@pytest.mark.parametrize("num_classes", [10, 100])
def test_missing_cifar_says_what_was_looked_for_and_how_to_get_it(tmp_path: Path, num_classes: int) -> None:
    with pytest.raises(ConfigError, match=r"CIFAR-\d+ \(.*cifar-.*\) was not found.*the task's root=.*download=true"):
        Cifar(str(tmp_path), num_classes).splits()


def test_damaged_cifar_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, 10, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ConfigError, match="MD5 sums are wrong"):
        Cifar(str(tmp_path)).splits()


def test_failed_download_of_cifar_is_a_config_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(ConfigError, match="could not be downloaded"):
        Cifar(str(tmp_path), download=True).splits()


def test_cifar_has_ten_or_a_hundred_classes() -> None:
    assert {count: len(set(names)) for count, names in CLASS_NAMES.items()} == {10: 10, 100: 100}
    assert CLASS_NAMES[100] == sorted(CLASS_NAMES[100])
    with pytest.raises(ValueError, match="num_classes must be 10 or 100, got 20"):
        Cifar("anywhere", num_classes=20)


def write_pictures(root: Path, counts: dict[str, int], names: tuple[str, ...] = ("cat", "dog")) -> Path:
    for split, count in counts.items():
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = RNG.integers(0, 256, (40, 56, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def test_imagefolder_uses_all_three_folders_when_they_are_there(tmp_path: Path) -> None:
    task = ImageFolderTask(str(write_pictures(tmp_path, {"train": 4, "val": 3, "test": 2})), image_size=32)
    assert [len(part) for part in task.splits()] == [8, 6, 4]
    assert task.class_names == ("cat", "dog")
    assert (task.input_shape, task.output_shape, task.input_bytes) == ((3, 32, 32), (2,), 3072)


def test_imagefolder_without_test_tests_on_val_and_validates_on_held_out_training_images(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, {"train": 5, "val": 3})
    train, val, test = ImageFolderTask(str(root), image_size=32, val_fraction=0.2).splits()
    assert [len(part) for part in (train, val, test)] == [8, 2, 6]
    assert not set(train.indices) & set(val.indices)
    assert {Path(path).parents[1].name for path, _ in test.samples} == {"val"}


def test_imagefolders_pictures_are_exact_uint8_and_fixed_outside_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    root = write_pictures(tmp_path, {"train": 5, "val": 3})
    train, val, test = ImageFolderTask(str(root), image_size=32).splits()
    for data, changes in ((train, True), (val, False), (test, False)):
        first, second = data[0][0], data[0][0]
        assert first.shape == (3, 32, 32)
        assert torch.equal(first, (first * 255).round().byte().float() / 255)
        assert torch.equal(first, second) is not changes


def test_imagefolder_without_augmentation_repeats_its_training_images(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, {"train": 2, "val": 2, "test": 2})
    train = ImageFolderTask(str(root), image_size=32, augment=False).splits().train
    assert torch.equal(train[0][0], train[0][0])


def test_missing_imagefolder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train was looked for.*train/<class>/\*\.jpg.*task\.root="):
        ImageFolderTask(str(tmp_path))


def test_imagefolder_needs_val(tmp_path: Path) -> None:
    task = ImageFolderTask(str(write_pictures(tmp_path, {"train": 2})))
    with pytest.raises(ConfigError, match="val was looked for"):
        task.splits()


def test_imagefolder_refuses_other_classes_in_val(tmp_path: Path) -> None:
    write_pictures(tmp_path, {"train": 2})
    write_pictures(tmp_path, {"val": 2}, names=("cat", "cow"))
    with pytest.raises(ConfigError, match=r"only in val: cow; only in train: dog"):
        ImageFolderTask(str(tmp_path)).splits()


def test_imagefolder_refuses_a_class_without_pictures(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, {"train": 2, "val": 0})
    with pytest.raises(ConfigError, match=r"val has no pictures .* of some classes: cat, dog"):
        ImageFolderTask(str(root)).splits()


def test_imagefolder_refuses_pictures_without_size() -> None:
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        ImageFolderTask("anywhere", image_size=0)


def test_imagefolder_leaves_out_what_systems_and_notebooks_leave_and_says_what_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_pictures(tmp_path, {"train": 4, "val": 2})
    for name in ("train/.ipynb_checkpoints", "train/cat/.ipynb_checkpoints", "val/__MACOSX"):
        (root / name).mkdir()
        (root / name / "0.png").write_bytes((root / "train/cat/0.png").read_bytes())
    for name in ("cat/._0.png", "cat/Thumbs.db", ".DS_Store", "cat/list.csv", "loose.png"):
        (root / "train" / name).write_bytes(b"")
    task = ImageFolderTask(str(root), image_size=16, val_fraction=0.25)
    assert [len(part) for part in task.splits()] == [6, 2, 4]
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.endswith("train: 2 files are no pictures of a class and are left out, the first: loose.png")


def test_imagefolder_refuses_a_single_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train has one class only, cat; classes to tell apart are two or more"):
        ImageFolderTask(str(write_pictures(tmp_path, {"train": 2, "val": 2}, names=("cat",))))


def test_imagefolder_needs_two_pictures_of_some_class_to_hold_one_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one picture a class, and none can be held out"):
        ImageFolderTask(str(write_pictures(tmp_path, {"train": 1, "val": 2}))).splits()


def test_imagefolder_names_a_damaged_picture(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, {"train": 2, "val": 2})
    path = root / "val/dog/1.png"
    path.write_bytes(path.read_bytes()[:900])
    test = ImageFolderTask(str(root), image_size=16).splits().test
    with pytest.raises(ConfigError, match=r"cannot read the picture .*val/dog/1\.png: .*truncated.*; mend it"):
        test[3]


def test_imagefolder_turns_pictures_and_reads_sixteen_bits(tmp_path: Path) -> None:
    root = write_pictures(tmp_path, {"train": 2, "val": 2})
    grey = np.add.outer(np.arange(0, 120, 3), np.arange(0, 112, 2)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(grey).save(root / "val/cat/0.png")
    Image.fromarray(grey).rotate(-90, expand=True).save(root / "val/cat/1.png", exif=exif)
    Image.fromarray(grey.astype(np.uint16) * 257).save(root / "val/dog/0.png")
    Image.fromarray(grey.astype(np.float32) / 300).save(root / "val/dog/1.png".replace("png", "tif"))
    (root / "val/dog/1.png").unlink()
    test = ImageFolderTask(str(root), image_size=32).splits().test
    assert torch.equal(test[0][0], test[1][0])
    assert torch.equal(test[0][0], test[2][0])
    with pytest.raises(ConfigError, match=r"1\.tif holds floating-point numbers"):
        test[3]
    bright = ImageFolderTask(str(root), image_size=32, white=1 / 1.2).splits().test
    assert (bright[3][0] - test[0][0]).abs().max() < 0.03
