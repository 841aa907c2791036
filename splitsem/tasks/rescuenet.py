"""RescueNet: its classes, its published colours, and its official folders read as patches, lazily.

Classes and colours are those of the authors' loader for release 2.0 (github.com/BinaLab/RescueNet-A-High-Resolution-
Post-Disaster-UAV-Dataset-for-Semantic-Segmentation, Segmentation-Experiments/data/rescuenet.py). Masks of release 2.0
hold 0 to 10; `sand` is number 11, in the colour that issue 4 there quotes from the loader. Masks of release 1.0 have
`sand`, too, but `debris` in place of blocked roads, and another order (see RELEASE_1).
Paper: Rahnemoonfar, Chowdhury, Murphy, "RescueNet", Scientific Data 10, 913 (2023), arXiv 2202.12361.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from splitsem.errors import DataError
from splitsem.tasks.masks import IGNORED, MaskReader
from splitsem.tasks.pictures import SUFFIXES, find_pictures, picture_shape, read_picture

log = logging.getLogger(__name__)

CLASSES: dict[str, tuple[int, int, int]] = {
    "background": (0, 0, 0),
    "water": (61, 230, 250),
    "building_no_damage": (180, 120, 120),
    "building_minor_damage": (235, 255, 7),
    "building_major_damage": (255, 184, 6),
    "building_total_destruction": (255, 0, 0),
    "vehicle": (255, 0, 245),
    "road_clear": (140, 140, 140),
    "road_blocked": (160, 150, 20),
    "tree": (4, 250, 7),
    "pool": (255, 235, 0),
    "sand": (255, 120, 0),
}
CLASS_NAMES = tuple(CLASSES)
PALETTE: NDArray[np.uint8] = np.array(list(CLASSES.values()), np.uint8)
"""(12, 3) RGB: ``PALETTE[labels]`` draws a label map."""

RELEASE_1 = (0, IGNORED, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11)
"""``label_map`` for release 1.0's masks: background, debris, water, four buildings, vehicle, road, tree, pool, sand."""

_SPLIT_FOLDERS = {
    "train": ("train", "segmentation-trainset"),
    "val": ("val", "segmentation-validationset"),
    "test": ("test", "segmentation-testset"),
}


def data_folders(root: Path) -> list[Path]:
    """The folders of photographs and masks of all splits, where they are or where they are looked for first."""
    folders = [(split, _split_folder(root, split) or root / names[0]) for split, names in _SPLIT_FOLDERS.items()]
    return [folder / f"{split}-{kind}" for split, folder in folders for kind in ("org-img", "label-img")]


def find_pairs(root: Path, split: str) -> list[tuple[Path, Path]]:
    """The (photograph, mask) files of one split, by file name.

    Args:
        root: the folder that holds ``train/train-org-img/*.jpg`` and ``train/train-label-img/*_lab.png`` and so on, or
            the same below ``segmentation-trainset``, as the archives on figshare unpack. Suffixes may be those of
            `pictures.SUFFIXES`, in small or capital letters.
        split: ``train``, ``val`` or ``test``.

    Raises:
        DataError: no such folder, no photograph in the folder, a photograph without its mask, or two of one name.
    """
    folder = _split_folder(root, split)
    if folder is None:
        looked = " or ".join(str(root / name / f"{split}-org-img") for name in _SPLIT_FOLDERS[split])
        raise DataError(
            f"no RescueNet {split} images: looked for {looked}. Get the data set from "
            "https://doi.org/10.6084/m9.figshare.c.6647354 and set task.root to the unpacked folder, "
            "or leave task.root out for procedural scenes"
        )
    photographs, masks = _by_stem(folder / f"{split}-org-img"), _by_stem(folder / f"{split}-label-img")
    if not photographs:
        raise DataError(f"no pictures ({', '.join(SUFFIXES)}) in {folder / f'{split}-org-img'}")
    missing = [f"{stem}_lab.png" for stem in photographs if f"{stem}_lab" not in masks]
    if missing:
        where = folder / f"{split}-label-img"
        raise DataError(
            f"{len(missing)} RescueNet masks are missing, the first: {where / missing[0]}; there are "
            f"{len(photographs)} photographs"
        )
    if left_out := len(masks) - len(photographs):
        log.warning("%s: %d masks without a photograph are left out", folder / f"{split}-label-img", left_out)
    return [(photograph, masks[f"{stem}_lab"]) for stem, photograph in photographs.items()]


def _by_stem(folder: Path) -> dict[str, Path]:
    """A folder's pictures by their names without suffixes. Raises DataError when two share one."""
    if not folder.is_dir():
        return {}
    pictures, others = find_pictures(folder, is_deep=False)
    if others:
        log.warning("%s: %d files are no pictures and are left out, the first: %s", folder, len(others), others[0].name)
    found: dict[str, Path] = {}
    for path in pictures:
        if path.stem in found:
            raise DataError(f"{found[path.stem]} and {path} share one name; keep the one that counts")
        found[path.stem] = path
    return found


def _split_folder(root: Path, split: str) -> Path | None:
    return next((root / n for n in _SPLIT_FOLDERS[split] if (root / n / f"{split}-org-img").is_dir()), None)


class RescueNetPatches(Dataset):
    """Patches of one split, cut from photographs that are opened when a patch is asked for.

    Args:
        root: RescueNet's folder, see `find_pairs`.
        split: ``train``, ``val`` or ``test``.
        size: side of a patch in pixels.
        image_height: height in pixels to which a photograph is resized first; its width follows the aspect ratio.
        stride: pixels from one patch to the next; below ``size`` they overlap. The last patch of a row or column is
            moved back to end at the border, so that every pixel is in one.
        label_map: class for each number in a mask, `IGNORED` to leave it out; None takes the numbers as they are. Where
            a mask holds the classes' colours instead, these alone decide.
        white: see `pictures.read_picture`.

    Raises:
        DataError: see `find_pairs`; a photograph and its mask do not fit each other.
        ValueError: a patch does not fit into the resized photograph.
    """

    def __init__(
        self,
        root: str,
        split: str,
        size: int,
        image_height: int,
        stride: int,
        label_map: Sequence[int] | None = None,
        white: float | None = None,
    ) -> None:
        self._pairs = find_pairs(Path(root), split)
        self._size = size
        self._height = image_height
        self._masks = MaskReader(PALETTE, _lookup_table(label_map))
        self._white = white
        self._shapes: list[tuple[int, int]] = []  # of the upright photographs, before they are resized
        self._patches: list[tuple[int, int, int]] = []
        for i, pair in enumerate(self._pairs):
            self._shapes.append(_common_shape(*pair))
            width = self._width(self._shapes[i])
            if min(width, image_height) < size:
                raise ValueError(
                    f"size must be at most the resized photograph's {width}x{image_height} pixels, got {size}"
                )
            tops, lefts = _starts(image_height, size, stride), _starts(width, size, stride)
            self._patches += [(i, top, left) for top in tops for left in lefts]
        self._cached: tuple[int, Image.Image, Image.Image] | None = None

    def __len__(self) -> int:
        """How many patches there are."""
        return len(self._patches)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Patch number ``index``: image (3, size, size) float32 in [0, 1] and labels (size, size) int64."""
        i, top, left = self._patches[index]
        photograph, mask = self._pair(i)
        area = (left, top, left + self._size, top + self._size)
        pixels = np.array(photograph.crop(area))
        labels = np.array(mask.crop(area))
        return torch.from_numpy(pixels).permute(2, 0, 1) / 255, torch.from_numpy(labels).long()

    def _width(self, image_size: tuple[int, int]) -> int:
        return round(image_size[0] * self._height / image_size[1])

    def _pair(self, i: int) -> tuple[Image.Image, Image.Image]:
        """Photograph and mask number ``i``, resized; the latest pair is kept for its next patches."""
        if self._cached is None or self._cached[0] != i:
            photograph_path, mask_path = self._pairs[i]
            shape = (self._width(self._shapes[i]), self._height)
            # JPEG decoders skip detail that resizing would drop.
            photograph = read_picture(photograph_path, self._white, at_least=shape)
            self._cached = i, photograph.resize(shape, Image.Resampling.BOX), self._masks.read(mask_path, shape)
        return self._cached[1:]


def _common_shape(photograph: Path, mask: Path) -> tuple[int, int]:
    """Width and height of an upright photograph and its mask; reads their headers only.

    Raises:
        DataError: they differ, or it cannot be known whether the mask was drawn on the photograph as it is stored or
            as it is shown.
    """
    (*shape, turn), (*mask_shape, mask_turn) = picture_shape(photograph), picture_shape(mask)
    if shape != mask_shape:
        sizes = f"{shape[0]}x{shape[1]} pixels, its mask {mask} has {mask_shape[0]}x{mask_shape[1]}"
        upright = "" if turn == mask_turn == 1 else ", both turned upright by their EXIF orientation"
        raise DataError(f"{photograph} has {sizes}{upright}; a mask must have the size of its photograph")
    if turn != 1 and mask_turn == 1 and (turn < 5 or shape[0] == shape[1]):
        raise DataError(
            f"{photograph} is to be turned (EXIF orientation {turn}), and {mask} does not say whether it is turned "
            "already; save the photograph upright, as the mask shows it"
        )
    return shape[0], shape[1]


def _lookup_table(label_map: Sequence[int] | None) -> NDArray[np.uint8]:
    """Class for each of the 256 values of a mask; 12, one past the last class, marks values that must not occur."""
    mapped = list(range(len(CLASS_NAMES))) if label_map is None else list(label_map)
    wrong = [c for c in mapped if c != IGNORED and not 0 <= c < len(CLASS_NAMES)]
    if wrong:
        raise ValueError(f"label_map must hold classes 0…{len(CLASS_NAMES) - 1} or {IGNORED}, got {wrong[0]}")
    table = np.full(256, len(CLASS_NAMES), np.uint8)
    table[: len(mapped)] = mapped
    table[IGNORED] = IGNORED
    return table


def _starts(length: int, size: int, stride: int) -> list[int]:
    starts = list(range(0, length - size + 1, stride))
    if starts[-1] + size < length:
        starts.append(length - size)
    return starts
