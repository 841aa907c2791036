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
    with pytest.raises(ConfigError, match=r"no pictures \(\.jpg, .* in"):
        RescueNetPatches(str(root), "test", 32, 64, 32)


def test_patches_larger_than_the_photograph_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="resized photograph's 48x32 pixels, got 64"):
        RescueNetPatches(str(root), "test", size=64, image_height=32, stride=64)


def test_a_label_map_into_no_class_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="label_map must hold classes 0…11 or 255, got 12"):
        RescueNetPatches(str(root), "test", 32, 64, 32, label_map=[0, 12])


LABELS = np.array([[0, 11, 9], [5, 3, 2]], np.uint8).repeat(16, 0).repeat(16, 1)  # (32, 48)


def editors_palette(labels: np.ndarray) -> Image.Image:
    """A palette image with its indices in the order in which the classes appear."""
    order = list(dict.fromkeys(labels.ravel().tolist()))
    image = Image.fromarray(np.vectorize(order.index)(labels).astype(np.uint8)).convert("P")
    image.putpalette(PALETTE[order].ravel().tolist())
    return image


def own_palette(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels).convert("P")
    image.putpalette(PALETTE.ravel().tolist() + [0] * 732)
    return image


def black_palette(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels).convert("P")
    image.putpalette([0] * 768)
    return image


MASKS = {
    "grey": Image.fromarray,
    "16-bit grey": lambda labels: Image.fromarray(labels.astype(np.uint16)),
    "grey palette": lambda labels: Image.fromarray(labels).convert("P"),
    "grey RGB": lambda labels: Image.fromarray(np.stack([labels] * 3, -1)),
    "own palette": own_palette,
    "editor's palette": editors_palette,
    "adaptive palette": lambda labels: Image.fromarray(PALETTE[labels]).convert("P", palette=Image.Palette.ADAPTIVE),
    "RGB": lambda labels: Image.fromarray(PALETTE[labels]),
    "RGBA": lambda labels: Image.fromarray(PALETTE[labels]).convert("RGBA"),
}


def pair(root: Path, mask: Image.Image, suffix: str = ".jpg", turn: int = 1, mask_suffix: str = ".png") -> None:
    """A val split of one photograph of `LABELS`, stored so that EXIF orientation ``turn`` shows it upright."""
    exif, image = Image.Exif(), Image.fromarray(PALETTE[LABELS])
    exif[0x0112] = turn
    image = {1: image, 3: image.rotate(180), 6: image.rotate(90, expand=True)}[turn]
    for folder in ("val/val-org-img", "val/val-label-img"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    kind = {"exif": exif, "quality": 100, "subsampling": 0, "format": "PNG" if "n" in suffix.lower() else "JPEG"}
    image.save(root / f"val/val-org-img/7{suffix}", **kind)
    mask.save(root / f"val/val-label-img/7_lab{mask_suffix}", "TIFF" if "tif" in mask_suffix else "PNG")


def labels_of(root: Path, label_map: list[int] | None = None) -> np.ndarray:
    patches = RescueNetPatches(str(root), "val", 16, 32, 16, label_map)
    assert len(patches) == 6
    return np.block([[patches[3 * row + column][1].numpy() for column in range(3)] for row in range(2)])


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_all_tools_give_the_same_labels(tmp_path: Path, kind: str) -> None:
    pair(tmp_path, MASKS[kind](LABELS))
    np.testing.assert_array_equal(labels_of(tmp_path), LABELS)


def test_ignored_pixels_stay_ignored_in_grey_and_in_the_own_palette(tmp_path: Path) -> None:
    ignored = LABELS.copy()
    ignored[:4] = IGNORED
    for kind in ("grey", "16-bit grey", "grey palette", "grey RGB", "own palette"):
        pair(tmp_path, MASKS[kind](ignored))
        np.testing.assert_array_equal(labels_of(tmp_path), ignored)


def test_a_label_map_translates_numbers_and_not_colours(tmp_path: Path) -> None:
    label_map = [*range(12)][::-1]
    for kind in MASKS:
        pair(tmp_path, MASKS[kind](LABELS))
        is_number = kind in ("grey", "16-bit grey", "grey palette", "grey RGB")
        np.testing.assert_array_equal(labels_of(tmp_path, label_map), 11 - LABELS if is_number else LABELS)


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".Png", ".png"])
def test_suffixes_of_all_writings_are_found(tmp_path: Path, suffix: str) -> None:
    pair(tmp_path, MASKS["grey"](LABELS), suffix, mask_suffix=".TIFF" if suffix == ".JPG" else ".PNG")
    np.testing.assert_array_equal(labels_of(tmp_path), LABELS)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.fromarray(PALETTE[LABELS] ^ 1), r"6 colours of no class, in 100\.00% of .*\(1, 1, 1\).*, …; masks must"),
        (Image.fromarray(PALETTE[LABELS] // 2).quantize(16), r"5 colours of no class, in 83\.33%"),
        (black_palette(LABELS), "palette shows several indices in one colour"),
        (Image.fromarray(LABELS * 16), r"no class; task\.label_map can translate it: 32, 48, 80, …, in 83\.33%"),
        (Image.fromarray(LABELS.astype(np.uint16) * 257), r"no class; .*: 514, 771, 1285, …, in"),
        (Image.fromarray(LABELS > 3), "is a mask of mode 1"),
        (Image.fromarray(PALETTE[LABELS]).convert("CMYK"), "is a mask of mode CMYK"),
        (Image.fromarray(np.dstack([PALETTE[LABELS], LABELS])), r"is transparent in 100\.00% of its pixels"),
    ],
)
def test_masks_that_do_not_tell_classes_are_refused_by_name(tmp_path: Path, mask: Image.Image, message: str) -> None:
    pair(tmp_path, mask, mask_suffix=".tif" if mask.mode == "CMYK" else ".png")
    with pytest.raises(ConfigError, match=rf"7_lab\.[a-z]+.* {message}"):
        labels_of(tmp_path)


def test_masks_that_blur_are_refused(tmp_path: Path) -> None:
    pair(tmp_path, MASKS["grey"](LABELS))
    Image.fromarray(LABELS).save(tmp_path / "val/val-label-img/7_lab.png", "JPEG")
    with pytest.raises(ConfigError, match=r"7_lab\.png: it is no whole PNG, TIFF, BMP, PPM, GIF file"):
        labels_of(tmp_path)
    (tmp_path / "val/val-label-img/7_lab.png").unlink()
    Image.fromarray(PALETTE[LABELS]).save(tmp_path / "val/val-label-img/7_lab.tif", compression="jpeg")
    with pytest.raises(ConfigError, match=r"7_lab\.tif is a mask compressed with loss"):
        labels_of(tmp_path)


@pytest.mark.parametrize("size", [(24, 16), (32, 48), (48, 33)])
def test_a_mask_of_another_size_is_refused_before_any_pixel_is_read(tmp_path: Path, size: tuple[int, int]) -> None:
    pair(tmp_path, Image.fromarray(LABELS).resize(size))
    with pytest.raises(ConfigError, match=rf"7\.jpg has 48x32 pixels, its mask .*7_lab\.png has {size[0]}x{size[1]}"):
        RescueNetPatches(str(tmp_path), "val", 16, 32, 16)


def test_a_turned_photograph_and_its_upright_mask_fit(tmp_path: Path) -> None:
    pair(tmp_path, MASKS["grey"](LABELS), turn=6)
    np.testing.assert_array_equal(labels_of(tmp_path), LABELS)
    patches = RescueNetPatches(str(tmp_path), "val", 16, 32, 16)
    assert (patches[1][0][:, 8, 8] * 255 - torch.from_numpy(PALETTE[11])).abs().max() < 8


@pytest.mark.parametrize("turn", [3, 6])
def test_a_turned_mask_is_turned_as_its_photograph(tmp_path: Path, turn: int) -> None:
    exif, mask = Image.Exif(), Image.fromarray(LABELS)
    exif[0x0112] = turn
    pair(tmp_path, mask, turn=turn)
    mask = mask.rotate(180 if turn == 3 else 90, expand=True)
    mask.save(tmp_path / "val/val-label-img/7_lab.png", exif=exif)
    np.testing.assert_array_equal(labels_of(tmp_path), LABELS)


def test_a_mask_that_may_or_may_not_be_turned_is_refused(tmp_path: Path) -> None:
    pair(tmp_path, MASKS["grey"](LABELS), turn=3)
    with pytest.raises(
        ConfigError, match=r"7\.jpg is to be turned \(EXIF orientation 3\), and .*7_lab\.png does not say"
    ):
        labels_of(tmp_path)
    pair(tmp_path, Image.fromarray(LABELS).rotate(90, expand=True), turn=6)
    with pytest.raises(ConfigError, match=r"has 48x32 pixels, .* has 32x48, both turned upright"):
        labels_of(tmp_path)


def test_two_photographs_of_one_name_are_refused(tmp_path: Path) -> None:
    pair(tmp_path, MASKS["grey"](LABELS))
    pair(tmp_path, MASKS["grey"](LABELS), ".PNG")
    with pytest.raises(ConfigError, match=r"7\.PNG and .*7\.jpg share one name"):
        labels_of(tmp_path)


def test_what_is_left_out_is_counted_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pair(tmp_path, MASKS["grey"](LABELS))
    for name in ("val-org-img/._7.jpg", "val-org-img/Thumbs.db", "val-org-img/notes.txt", "val-label-img/8_lab.png"):
        (tmp_path / "val" / name).write_bytes(b"")
    labels_of(tmp_path)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "val-org-img: 1 files are no pictures and are left out, the first: notes.txt" in said[0]
    assert "val-label-img: 1 masks without a photograph are left out" in said[1]


def test_a_damaged_mask_is_named(tmp_path: Path) -> None:
    pair(tmp_path, MASKS["RGB"](LABELS))
    path = tmp_path / "val/val-label-img/7_lab.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError, match=r"cannot read the picture .*7_lab\.png"):
        labels_of(tmp_path)
