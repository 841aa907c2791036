"""Masks as annotation tools save them, read into class labels: by number where they hold numbers, else by colour."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitsem.errors import DataError
from splitsem.tasks.pictures import read_values

IGNORED = 255
"""Label of pixels that count neither in the loss nor in the score."""

LOSSLESS = ("PNG", "TIFF", "BMP", "PPM", "GIF")
_NUM_VALUES = 256
_GREY = 0x010101
_SHOWN = 3
_NUMBERS = ("L", "I", "I;16", "I;16B", "I;16L")
_COLOURS = ("RGB", "RGBA", "RGBX", "P", "PA", "L", "LA")


class MaskReader:
    """Reads masks into labels.

    Where a mask holds numbers (grey, also as a palette or as RGB), ``table`` translates them. Where it holds the
    classes' colours (RGB, or a palette in any order), the colours alone decide. What is neither is refused.

    Args:
        colours: ``(classes, 3)`` uint8 RGB, all different.
        table: ``(256,)`` uint8: the class for each number, `IGNORED`, or ``classes`` for what must not occur.
    """

    def __init__(self, colours: NDArray[np.uint8], table: NDArray[np.uint8]) -> None:
        self._table = table
        codes = _codes(colours)
        self._order = np.argsort(codes).astype(np.uint8)
        self._codes = codes[self._order]
        self._none = len(codes)  # one past the last class

    def read(self, path: Path, shape: tuple[int, int]) -> Image.Image:
        """The labels in a file, mode L, upright, resized to ``shape`` (width, height) by nearest pixels.

        Raises:
            DataError: the file is damaged or lossy, or the class of some pixels is not known; with the path.
        """
        mask = read_values(path, LOSSLESS)
        if mask.info.get("compression") in ("jpeg", "tiff_jpeg", "webp"):
            raise DataError(f"{path} is a mask compressed with loss, which blurs classes; save it as PNG")
        mask = mask.resize(shape, Image.Resampling.NEAREST)
        if mask.mode in _NUMBERS and not mask.has_transparency_data:
            labels = self._of_numbers(np.asarray(mask), path)
        elif mask.mode == "P" and not mask.has_transparency_data:
            labels = self._of_palette(mask, path)
        elif mask.mode in _COLOURS:
            labels = self._of_colours(_codes(_opaque(mask, path)), path)
        else:
            raise DataError(f"{path} is a mask of mode {mask.mode}; save it as PNG, 8-bit grey, palette or RGB")
        return Image.fromarray(labels)

    def _of_numbers(self, values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
        numbers = np.clip(values, -1, _NUM_VALUES).astype(np.int64)
        is_outside = (numbers < 0) | (numbers == _NUM_VALUES)
        labels = self._table[np.where(is_outside, 0, numbers)]
        is_wrong = is_outside | (labels == self._none)
        if is_wrong.any():
            found = np.unique(values[is_wrong]).tolist()
            raise DataError(
                f"{path} holds a value that is no class; task.label_map can translate it: {_some(found)}, in "
                f"{is_wrong.mean():.2%} of its pixels"
            )
        return labels

    def _of_palette(self, mask: Image.Image, path: Path) -> NDArray[np.uint8]:
        indices = np.asarray(mask)
        colours = np.array(mask.getpalette("RGB"), np.uint8).reshape(-1, 3)
        codes = np.full(_NUM_VALUES, -1)
        codes[: len(colours)] = _codes(colours)
        grey = np.arange(_NUM_VALUES) * _GREY
        if ((codes == grey) | (codes == -1)).all():  # such a palette says no more than the indices
            return self._of_numbers(indices, path)
        classes = self._find(codes)
        used = np.unique(indices)
        painted = used[used != IGNORED]
        if (classes[painted] == painted).all():  # the classes' own palette, which rarely has a colour for IGNORED
            classes[IGNORED] = IGNORED
        unknown = [_colour(int(codes[i])) for i in used if classes[i] == self._none]
        if unknown:
            raise DataError(self._of_no_class(path, unknown, float((classes[indices] == self._none).mean())))
        if len(set(codes[painted].tolist())) < len(painted):
            raise DataError(f"{path}: its palette shows several indices in one colour; save it as PNG in 8-bit grey")
        return classes[indices]

    def _of_colours(self, codes: NDArray[np.int64], path: Path) -> NDArray[np.uint8]:
        labels = self._find(codes)
        is_unknown = labels == self._none
        if not is_unknown.any():
            return labels
        if (codes == codes % _NUM_VALUES * _GREY).all():
            return self._of_numbers(codes % _NUM_VALUES, path)
        unknown = [_colour(int(code)) for code in np.unique(codes[is_unknown])]
        raise DataError(self._of_no_class(path, unknown, float(is_unknown.mean())))

    def _find(self, codes: NDArray[np.int64]) -> NDArray[np.uint8]:
        places = np.searchsorted(self._codes, codes).clip(max=self._none - 1)
        return np.where(self._codes[places] == codes, self._order[places], self._none).astype(np.uint8)

    def _of_no_class(self, path: Path, unknown: list[str], share: float) -> str:
        return (
            f"{path} has {len(unknown)} colours of no class, in {share:.2%} of its pixels: {_some(unknown)}; masks "
            "must hold class numbers as 8-bit grey, or the classes' colours exactly (splitsem.tasks.rescuenet.CLASSES)"
        )


def _codes(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    """One number a colour: ``(…, 3)`` to ``(…)``."""
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue


def _colour(code: int) -> str:
    return "none" if code < 0 else f"({code >> 16}, {code >> 8 & 255}, {code & 255})"


def _opaque(mask: Image.Image, path: Path) -> NDArray[np.uint8]:
    pixels = np.asarray(mask.convert("RGBA"))
    is_seen_through = pixels[..., 3] < 255
    if is_seen_through.any():
        raise DataError(f"{path} is transparent in {is_seen_through.mean():.2%} of its pixels; save it without alpha")
    return pixels[..., :3]


def _some(values: list) -> str:
    return ", ".join(map(str, values[:_SHOWN])) + (", …" if len(values) > _SHOWN else "")
