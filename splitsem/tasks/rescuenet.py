"""RescueNet: its classes, its published colours, and its official folders read as patches, lazily.

Classes and colours are those of the authors' loader for release 2.0 (github.com/BinaLab/RescueNet-A-High-Resolution-
Post-Disaster-UAV-Dataset-for-Semantic-Segmentation, Segmentation-Experiments/data/rescuenet.py). Masks of release 2.0
hold 0 to 10; `sand` is number 11, in the colour that issue 4 there quotes from the loader. Masks of release 1.0 have
`sand`, too, but `debris` in place of blocked roads, and another order (see RELEASE_1).
Paper: Rahnemoonfar, Chowdhury, Murphy, "RescueNet", Scientific Data 10, 913 (2023), arXiv 2202.12361.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from splitsem.errors import ConfigError

IGNORED = 255
"""Label of pixels that count neither in the loss nor in the score."""

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
            the same below ``segmentation-trainset``, as the archives on figshare unpack.
        split: ``train``, ``val`` or ``test``.

    Raises:
        ConfigError: no such folder, no photograph in the folder, or a photograph without its mask.
    """
    folder = _split_folder(root, split)
    if folder is None:
        looked = " or ".join(str(root / name / f"{split}-org-img") for name in _SPLIT_FOLDERS[split])
        raise ConfigError(
            f"no RescueNet {split} images: looked for {looked}. Get the data set from "
            "https://doi.org/10.6084/m9.figshare.c.6647354 and set task.root to the unpacked folder, "
            "or leave task.root out for procedural scenes"
        )
    photographs = sorted((folder / f"{split}-org-img").glob("*.jpg"))
    if not photographs:
        raise ConfigError(f"no *.jpg in {folder / f'{split}-org-img'}")
    pairs = [(p, folder / f"{split}-label-img" / f"{p.stem}_lab.png") for p in photographs]
    missing = [mask for _, mask in pairs if not mask.is_file()]
    if missing:
        raise ConfigError(f"{len(missing)} RescueNet masks are missing, the first: {missing[0]}")
    return pairs


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
        label_map: class for each value of a mask, `IGNORED` to leave it out; None takes the values as they are.

    Raises:
        ConfigError: see `find_pairs`.
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
    ) -> None:
        self._pairs = find_pairs(Path(root), split)
        self._size = size
        self._height = image_height
        self._lut = _lookup_table(label_map)
        self._patches: list[tuple[int, int, int]] = []
        for i, (photograph, _) in enumerate(self._pairs):
            with Image.open(photograph) as image:  # reads the header only
                width = self._width(image.size)
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
        labels = self._lut[np.array(mask.crop(area))]
        if (labels == len(CLASS_NAMES)).any():
            raise ConfigError(f"{self._pairs[i][1]} holds a value that is no class; task.label_map can translate it")
        return torch.from_numpy(pixels).permute(2, 0, 1) / 255, torch.from_numpy(labels).long()

    def _width(self, image_size: tuple[int, int]) -> int:
        return round(image_size[0] * self._height / image_size[1])

    def _pair(self, i: int) -> tuple[Image.Image, Image.Image]:
        """Photograph and mask number ``i``, resized; the latest pair is kept for its next patches."""
        if self._cached is None or self._cached[0] != i:
            try:
                self._cached = (i, *self._read(*self._pairs[i]))
            except OSError as exc:
                raise ConfigError(f"cannot read {self._pairs[i][0]} or its mask: {exc}") from exc
        return self._cached[1:]

    def _read(self, photograph_path: Path, mask_path: Path) -> tuple[Image.Image, Image.Image]:
        with Image.open(photograph_path) as photograph, Image.open(mask_path) as mask:
            if mask.mode not in ("L", "P"):
                raise ConfigError(f"{mask_path} must hold one class number a pixel, got mode {mask.mode}")
            shape = (self._width(photograph.size), self._height)
            photograph.draft("RGB", shape)  # lets the JPEG decoder skip detail that resizing would drop
            return (
                photograph.convert("RGB").resize(shape, Image.Resampling.BOX),
                mask.resize(shape, Image.Resampling.NEAREST),
            )


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
