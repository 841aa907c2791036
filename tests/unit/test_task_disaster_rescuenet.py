"""RescueNetPatches on small folders in the official layout: patches, resizing, laziness, errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from splitsem.errors import ConfigError
from splitsem.tasks.disaster import Disaster
from splitsem.tasks.rescuenet import IGNORED, PALETTE, RELEASE_1, RescueNetPatches

ARCHIVES = {"train": "segmentation-trainset", "val": "segmentation-validationset", "test": "segmentation-testset"}


def write_split(root: Path, split: str, folder: str, count: int = 2, width: int = 96, height: int = 64) -> None:
    """Photographs of flat 8-pixel tiles in the classes' colours, and their masks."""
    rng = np.random.default_rng(list(split.encode()))
    images, labels = root / folder / f"{split}-org-img", root / folder / f"{split}-label-img"
    images.mkdir(parents=True)
    labels.mkdir()
    for k in range(count):
        mask = rng.integers(0, 11, (height // 8, width // 8), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(PALETTE[mask]).save(images / f"{10778 + k}.jpg", quality=100, subsampling=0)
        Image.fromarray(mask).save(labels / f"{10778 + k}_lab.png")


@pytest.fixture(params=["short names", "archive names"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for split, archive in ARCHIVES.items():
        write_split(tmp_path, split, split if request.param == "short names" else archive)
    return tmp_path


def test_both_layouts_are_read_into_three_splits(root: Path) -> None:
    task = Disaster(root=str(root), size=32, image_height=64)
    for split in task.splits():
        assert len(split) == 2 * 2 * 3  # photographs x rows x columns
        x, y = split[5]
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((3, 32, 32), torch.float32, (32, 32), torch.int64)
        assert 0 <= x.min() <= x.max() <= 1


def test_picture_and_mask_stay_aligned(root: Path) -> None:
    patches = RescueNetPatches(str(root), "test", size=32, image_height=64, stride=32)
    for i in range(len(patches)):
        x, y = patches[i]
        drawn = torch.from_numpy(PALETTE[y.numpy()]).permute(2, 0, 1) / 255
        centres = np.ix_(range(3), range(4, 32, 8), range(4, 32, 8))  # away from where JPEG blurs edges
        assert np.abs(x.numpy()[centres] - drawn.numpy()[centres]).max() < 0.05


def test_patches_cover_every_pixel_even_when_the_stride_does_not_divide(tmp_path: Path) -> None:
    write_split(tmp_path, "val", "val", count=1, width=104, height=72)
    patches = RescueNetPatches(str(tmp_path), "val", size=32, image_height=72, stride=24)
    whole = np.array(Image.open(tmp_path / "val/val-label-img/10778_lab.png"))
    seen = np.zeros_like(whole, bool)
    for i, (_, top, left) in enumerate(patches._patches):
        np.testing.assert_array_equal(patches[i][1].numpy(), whole[top : top + 32, left : left + 32])
        seen[top : top + 32, left : left + 32] = True
    assert seen.all()


def test_photographs_are_resized_and_masks_keep_to_classes(root: Path) -> None:
    patches = RescueNetPatches(str(root), "train", size=32, image_height=32, stride=16)
    assert len(patches) == 2 * 2  # 48 x 32 pixels: columns at 0 and 16
    mask = np.array(Image.open(next(root.glob("*train*/train-label-img/10778_lab.png"))))
    np.testing.assert_array_equal(patches[0][1].numpy(), mask[1::2, 1::2][:32, :32])


def test_photographs_are_opened_only_when_a_patch_is_asked_for(root: Path) -> None:
    task = Disaster(root=str(root), size=32, image_height=64)
    splits = task.splits()
    photograph = next(root.glob("*test*/test-org-img/10779.jpg"))
    photograph.write_bytes(photograph.read_bytes()[:300])
    splits.test[0]
    with pytest.raises(ConfigError, match=r"cannot read .*10779\.jpg"):
        splits.test[6]


def test_a_label_map_translates_the_first_release(root: Path) -> None:
    plain = RescueNetPatches(str(root), "test", 32, 64, 32)[0][1]
    mapped = RescueNetPatches(str(root), "test", 32, 64, 32, label_map=RELEASE_1)[0][1]
    assert torch.equal(mapped, torch.tensor(RELEASE_1)[plain])
    assert (mapped == IGNORED).any()


def test_values_that_are_no_class_are_refused(root: Path) -> None:
    for path in root.glob("*val*/val-label-img/*.png"):
        Image.fromarray(np.full((64, 96), 77, np.uint8)).save(path)
    patches = RescueNetPatches(str(root), "val", 32, 64, 32)
    with pytest.raises(ConfigError, match=r"no class; task.label_map"):
        patches[0]


def test_coloured_masks_are_refused(root: Path) -> None:
    for path in root.glob("*val*/val-label-img/*.png"):
        Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(path)
    with pytest.raises(ConfigError, match="one class number a pixel, got mode RGB"):
        RescueNetPatches(str(root), "val", 32, 64, 32)[0]


def test_a_missing_folder_says_what_was_looked_for_and_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        Disaster(root=str(tmp_path / "nothing")).splits()
    with pytest.raises(ConfigError, match=r"train-org-img or .*segmentation-trainset.*figshare.*task\.root"):
        Disaster(root=str(tmp_path)).splits()


def test_a_missing_mask_and_an_empty_folder_are_named(root: Path) -> None:
    next(root.glob("*test*/test-label-img/10779_lab.png")).unlink()
    with pytest.raises(ConfigError, match=r"1 RescueNet masks are missing, the first: .*10779_lab\.png"):
        RescueNetPatches(str(root), "test", 32, 64, 32)
    for path in root.glob("*test*/test-org-img/*.jpg"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"no \*\.jpg in"):
        RescueNetPatches(str(root), "test", 32, 64, 32)


def test_patches_larger_than_the_photograph_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="resized photograph's 48x32 pixels, got 64"):
        RescueNetPatches(str(root), "test", size=64, image_height=32, stride=64)


def test_a_label_map_into_no_class_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="label_map must hold classes 0…11 or 255, got 12"):
        RescueNetPatches(str(root), "test", 32, 64, 32, label_map=[0, 12])
