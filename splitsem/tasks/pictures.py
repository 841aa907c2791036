"""The one reader of pictures: whatever a file's mode, its pixels come out upright, in RGB, 8 bits a channel.

What a file does not say is never guessed: it is refused by name, with the way out. The rules:

* Grey of 16 bits: 65535 is white, unless ``white`` says otherwise. A picture without a value above 16383 may just as
  well have 10, 12 or 14 bits in 16, so that without ``white`` it is refused. TIFF of 12 bits and PGM state their white.
* Floating point, and whole numbers of 32 or signed 16 bits: refused without ``white``.
* Transparent parts: laid on white.
* EXIF orientation: always applied.
* CMYK: R = 255 · (1 − C)(1 − K) and so on. Colour profiles are not applied, to no picture.
* Several pictures in a file: refused, but for MPO, a camera's JPEG whose first picture is the photograph.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from splitsem.errors import DataError

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
_SYSTEM_NAMES = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "lost+found", "$recycle.bin"}
_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")
_WHITE_16_BITS = 65535
_DARK_16_BITS = 16383  # white of 14 bits
_BITS_PER_SAMPLE, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 0x0112, 339
_LONGEST_RATIO = 100  # of the sides: resizing by the shorter side would make a strip of a few kilobytes fill the memory
# What Pillow's readers raise on damaged files, seen by flipping and cutting; DecompressionBombError is an Exception.
_FAULTS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, ImportError),
    *(MemoryError, RuntimeError, AssertionError, struct.error, zlib.error, Image.DecompressionBombError),
)


def checked_white(white: float | None) -> float | None:
    """A task's setting ``white``. Raises ValueError unless it is a finite number above 0, or None."""
    if white is not None and not 0 < white < float("inf"):
        raise ValueError(f"white must be a number above 0, the brightest value of the pictures, or null, got {white}")
    return white


def read_picture(path: Path, white: float | None = None, at_least: tuple[int, int] | None = None) -> Image.Image:
    """The picture in a file, upright, mode RGB.

    Args:
        path: a file in one of `FORMATS`, whatever its name.
        white: brightest value of pictures of more than 8 bits a pixel that do not state it, see above.
        at_least: width and height that suffice: a JPEG may come out smaller than it is stored, but not below these.

    Raises:
        DataError: the file cannot be read, is damaged, or does not say what its values mean; with the path.
    """
    with _opened(path) as image:
        _must_fit(image, path)
        if at_least is not None:
            image.draft(None, at_least[::-1] if _is_on_its_side(image) else at_least)
        is_16_bit_colour = _is_16_bits(image) and image.mode not in _DEEP
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode in _DEEP:
            return _deep_grey(image, path, white).convert("RGB")
        rgb = _on_white(image).convert("RGB")
    if is_16_bit_colour:
        _must_span_16_bits(rgb, path, white)
    return rgb


def read_values(path: Path, formats: tuple[str, ...]) -> Image.Image:
    """The picture in a file, upright, its values as they are stored. Raises DataError with the path."""
    with _opened(path, formats) as image:
        _must_fit(image, path)
        ImageOps.exif_transpose(image, in_place=True)
        return image


def picture_shape(path: Path) -> tuple[int, int, int]:
    """Width and height of the upright picture, and its EXIF orientation, 1…8; reads the header only, where that tells.

    Raises:
        DataError: no picture has this header; with the path.
    """
    with _opened(path) as image:
        if image.format == "PNG" and _has_more_behind_pixels(path):
            image.load()  # which reads what stands there
        width, height = image.size[::-1] if _is_on_its_side(image) else image.size
        return width, height, _orientation(image)


def find_pictures(folder: Path, is_deep: bool = True) -> tuple[list[Path], list[Path]]:
    """The pictures in a folder by their names, sorted, and all other files; hidden ones and systems' own count as none.

    Args:
        folder: where to look. Links are followed, but not in circles.
        is_deep: whether pictures in sub-folders count; otherwise their sub-folders are not looked into.

    Raises:
        DataError: the folder, or one in it, cannot be read.
    """
    pictures: list[Path] = []
    others: list[Path] = []
    todo = [(folder, frozenset[str]())]
    try:
        while todo:
            place, above = todo.pop()
            here = above | {os.path.realpath(place)}
            for path in place.iterdir():
                if is_hidden(path):
                    continue
                if path.is_dir():
                    if is_deep and os.path.realpath(path) not in here:
                        todo.append((path, here))
                else:
                    is_picture = path.suffix.lower() in SUFFIXES and path.is_file()
                    (pictures if is_picture else others).append(path)
    except OSError as exc:
        raise DataError(f"cannot read the folder {exc.filename or folder}: {exc.strerror or exc}") from exc
    return sorted(pictures), sorted(others)


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is one that notebooks and systems leave, and no user's own."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_NAMES


@contextmanager
def _opened(path: Path, formats: tuple[str, ...] = FORMATS) -> Iterator[ImageFile.ImageFile]:
    """An opened picture, its pixels not read yet; whatever Pillow raises while it is open names the file."""
    try:
        # Pillow warns of odd metadata, which half of all photographs hold, and of sizes that `_FAULTS` catches.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=formats) as image:
            yield image
    except _FAULTS as exc:
        raise DataError(f"cannot read the picture {path}: {_reason(path, formats, exc)}") from exc


def _reason(path: Path, formats: tuple[str, ...], exc: BaseException) -> str:
    if isinstance(exc, UnidentifiedImageError | ImportError):  # ultralytics' Image.open asks for a package there
        what = "the file is empty" if path.stat().st_size == 0 else f"it is no whole {', '.join(formats)} file"
    else:
        what = getattr(exc, "strerror", None) or " ".join(str(exc).split()) or type(exc).__name__
    return f"{what}; mend it or take it out of the folder"


def _must_fit(image: Image.Image, path: Path) -> None:
    """Refuses what has no single meaning, before its pixels are read."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise DataError(f"{path} holds {frames} pictures or an animation; save the one that counts in its own file")
    if max(image.size) > _LONGEST_RATIO * min(image.size):
        width, height = image.size
        raise DataError(f"{path} is {width}x{height} pixels; no side may be {_LONGEST_RATIO} times the other")
    if 2 in _numbers(getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT)) and image.mode not in _DEEP:
        raise DataError(f"{path} holds signed numbers of 8 bits, whose black is not stated; save it unsigned")
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        raise DataError(f"{path} is a CMYK JPEG that does not say whether its inks are inverted; save it in RGB")


def _numbers(value: object) -> tuple[object, ...]:
    """A TIFF tag's values, of which Pillow gives one alone as itself."""
    return value if isinstance(value, tuple) else (value,)


def _orientation(image: Image.Image) -> int:
    # PngImageFile's own getexif decodes all pixels first, in search of EXIF data that stand behind them.
    turn = Image.Image.getexif(image).get(_ORIENTATION)
    return turn if isinstance(turn, int) and turn in range(2, 9) else 1


def _has_more_behind_pixels(path: Path) -> bool:
    """Whether a PNG goes on after its pixels, as when a tool has added EXIF data later."""
    kinds = [b""]
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8 and kinds[-1] != b"IEND":
            length, kind = struct.unpack(">I4s", head)
            file.seek(length + 4, os.SEEK_CUR)
            kinds.append(kind)
    return b"IDAT" in kinds and kinds[-2] != b"IDAT"


def _is_on_its_side(image: Image.Image) -> bool:
    """Whether the stored size has width and height swapped; Pillow swaps those of a TIFF itself."""
    return image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8)


def _is_16_bits(image: ImageFile.ImageFile) -> bool:
    args: object = image.tile[0].args if image.tile else ""
    rawmode = next(iter(args), "") if isinstance(args, tuple) else args
    return isinstance(rawmode, str) and ";16" in rawmode


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _deep_grey(image: Image.Image, path: Path, white: float | None) -> Image.Image:
    """Grey of more than 8 bits, or floating point, as mode L."""
    if "transparency" in image.info:
        raise DataError(f"{path} is 16-bit grey with a transparent value; save it without transparency")
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.format == "PPM" and image.mode == "I":
        white = _WHITE_16_BITS  # Pillow scales by the stated maximum
    elif tags.get(_BITS_PER_SAMPLE) == (12,):
        white = 4095
    elif white is None and image.mode in ("I", "F"):
        kind = "floating-point numbers" if image.mode == "F" else "whole numbers of 32 or signed 16 bits"
        raise DataError(
            f"{path} holds {kind}, whose white is not stated; give it by the task's white=1.0, say, or 4095"
        )
    elif white is None:
        _must_not_be_dark(int(values.max()), _DARK_16_BITS, path)
        white = _WHITE_16_BITS
    if not (values.min() >= 0 and values.max() <= white):  # false for NaN
        raise DataError(
            f"{path} has values from {values.min()} to {values.max()}, outside 0…{white:g}, the task's white"
        )
    levels = np.rint(values.astype(np.float32) * (255 / white)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds up to 8 bits only
        levels = 255 - levels
    return Image.fromarray(levels)


def _must_span_16_bits(rgb: Image.Image, path: Path, white: float | None) -> None:
    """Pillow keeps the upper 8 of 16 bits of a colour, so that there is no other white than 65535."""
    if white not in (None, _WHITE_16_BITS):
        raise DataError(f"{path} has 16 bits a colour, which only white=65535 reads; got white={white:g}")
    if white is None:
        brightest = int(np.asarray(rgb).max())
        _must_not_be_dark(brightest * 256, _DARK_16_BITS, path)


def _must_not_be_dark(brightest: int, limit: int, path: Path) -> None:
    if 0 < brightest <= limit:
        raise DataError(
            f"{path} has 16 bits but no value above {brightest}, as if 10, 12 or 14 were used: say which is white by "
            "the task's white=4095 (12 bits), or white=65535 for pictures that are dark"
        )
