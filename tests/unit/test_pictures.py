"""The reader of pictures: one picture in any mode gives the same pixels, or the file is refused by name."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splitsem.errors import ConfigError
from splitsem.tasks.imagefolder import ImageFolderTask
from splitsem.tasks.pictures import FORMATS, checked_white, find_pictures, picture_shape, read_picture, read_values
from splitsem.training.fingerprint import modules

GREY = np.add.outer(np.arange(0, 120, 3), np.arange(0, 130, 2)).astype(np.uint8)  # (40, 65), 0…245
GREY[0, 0] = 255
SIXTEEN = GREY.astype(np.uint16) * 257
UPRIGHT = np.stack([GREY] * 3, -1)
TO_STORED = {  # how a picture is stored that each EXIF orientation shows upright
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def palette(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).quantize(256) if pixels.ndim == 3 else Image.fromarray(pixels).convert("P")


def transparent_value(path: Path) -> None:
    Image.fromarray(GREY).save(path, transparency=7)


def seen_through(mode: str) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        image = Image.fromarray(GREY).convert(mode)
        image.putalpha(Image.new("L", image.size, 128))
        image.save(path)

    return save


def pgm(maximum: int) -> Callable[[Path], None]:
    values = np.rint(GREY / 255 * maximum).astype(">u2")
    return lambda path: path.write_bytes(b"P5 65 40 %d\n" % maximum + values.tobytes()) and None


def packed_12_bits(path: Path) -> None:
    """A TIFF of 12 bits a sample, two samples in three bytes (even width)."""
    values = np.rint(GREY[:, :64] / 255 * 4095).astype(np.uint32).reshape(40, 32, 2)
    pairs = values[..., 0] << 12 | values[..., 1]
    data = np.stack([pairs >> 16, pairs >> 8 & 255, pairs & 255], -1).astype(np.uint8).tobytes()
    tags = {256: 64, 257: 40, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 40, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + bytes(4))


def rgb16(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits a colour, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


SAME: dict[str, Callable[[Path], object]] = {
    "grey.png": lambda path: Image.fromarray(GREY).save(path),
    "rgb.bmp": lambda path: Image.fromarray(UPRIGHT).save(path),
    "grey.webp": lambda path: Image.fromarray(UPRIGHT).save(path, lossless=True),
    "palette.png": lambda path: palette(GREY).save(path),
    "palette.gif": lambda path: palette(GREY).save(path),
    "la.png": lambda path: Image.fromarray(GREY).convert("LA").save(path),
    "rgba.png": lambda path: Image.fromarray(UPRIGHT).convert("RGBA").save(path),
    "cmyk.tif": lambda path: Image.fromarray(UPRIGHT).convert("CMYK").save(path),
    "cmyk.jpg": lambda path: Image.fromarray(UPRIGHT).convert("CMYK").save(path, quality=100, subsampling=0),
    "grey.jpg": lambda path: Image.fromarray(GREY).save(path, quality=100),
    "named.jpg": lambda path: Image.fromarray(GREY).save(path, "PNG"),
    "16.png": lambda path: Image.fromarray(SIXTEEN).save(path),
    "16.tif": lambda path: Image.fromarray(SIXTEEN).save(path),
    "16be.tif": lambda path: Image.fromarray(SIXTEEN.astype(">u2")).save(path),
    "16zip.tif": lambda path: Image.fromarray(SIXTEEN).save(path, compression="tiff_adobe_deflate"),
    "16inverted.tif": lambda path: Image.fromarray(65535 - SIXTEEN).save(path, tiffinfo={262: 0}),
    "16colour.png": lambda path: path.write_bytes(rgb16(UPRIGHT.astype(np.uint16) * 257)),
    "10bits.pgm": pgm(1023),
    "12bits.pgm": pgm(4095),
    "16bits.pgm": pgm(65535),
    "12packed.tif": packed_12_bits,
}


@pytest.mark.parametrize("name", SAME)
def test_one_picture_stored_in_any_mode_has_the_same_pixels(tmp_path: Path, name: str) -> None:
    SAME[name](tmp_path / name)
    image = read_picture(tmp_path / name)
    seen = np.asarray(image).astype(int)
    assert image.mode == "RGB"
    assert np.abs(seen - UPRIGHT[:, : image.width]).max() <= (3 if name.endswith(".jpg") else 1)
    assert picture_shape(tmp_path / name) == (*image.size, 1)


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(GREY > 99).save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "a.png"))[..., 1], np.where(GREY > 99, 255, 0))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_what_is_seen_through_lies_on_white(tmp_path: Path, mode: str) -> None:
    seen_through(mode)(tmp_path / "a.png")
    expected = (GREY.astype(float) + 255) / 2
    assert np.abs(np.asarray(read_picture(tmp_path / "a.png"))[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_transparent_value_or_palette_entry_is_white(tmp_path: Path, mode: str) -> None:
    Image.fromarray(GREY).convert(mode).save(tmp_path / "a.png", transparency=10)
    seen = np.asarray(read_picture(tmp_path / "a.png"))[..., 0]
    assert (GREY == 10).any()
    np.testing.assert_array_equal(seen, np.where(GREY == 10, 255, GREY))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("turn", TO_STORED)
def test_a_turned_picture_is_read_upright(tmp_path: Path, turn: int, suffix: str) -> None:
    exif, image = Image.Exif(), Image.fromarray(UPRIGHT)
    exif[0x0112] = turn
    how = TO_STORED[turn]
    stored = image if how is None else image.transpose(how)
    path = tmp_path / f"a.{suffix}"
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(suffix, {})
    stored.save(path, exif=exif, **options)
    assert np.abs(np.asarray(read_picture(path)).astype(int) - UPRIGHT).max() <= 3
    assert picture_shape(path) == (65, 40, turn)
    assert read_picture(path, at_least=(30, 18)).size in ((65, 40), (33, 20))


def test_a_turn_that_stands_behind_the_pixels_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(UPRIGHT).rotate(90, expand=True).save(file, "PNG", exif=exif)
    data = file.getvalue()
    start = data.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", data[start : start + 4])[0]
    (tmp_path / "a.png").write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    assert picture_shape(tmp_path / "a.png") == (65, 40, 6)
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "a.png")), UPRIGHT)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_fewer_bits_in_sixteen_are_refused_until_white_is_named(tmp_path: Path, bits: int, suffix: str) -> None:
    path, white = tmp_path / f"a.{suffix}", 2**bits - 1
    Image.fromarray(np.rint(GREY / 255 * white).astype(np.uint16)).save(path)
    with pytest.raises(ConfigError, match=rf"a\.{suffix} has 16 bits but no value above {white}.*white=4095"):
        read_picture(path)
    assert np.abs(np.asarray(read_picture(path, white)).astype(int) - UPRIGHT).max() <= 1
    with pytest.raises(ConfigError, match=r"outside 0…100, the task's white"):
        read_picture(path, 100)


def test_twelve_bits_a_colour_are_refused_even_with_white(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(rgb16(UPRIGHT.astype(np.uint16) * 16))
    with pytest.raises(ConfigError, match=r"a\.png has 16 bits but no value above"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"only white=65535 reads; got white=4095"):
        read_picture(tmp_path / "a.png", 4095)


def test_a_black_picture_is_black_whatever_is_white(tmp_path: Path) -> None:
    Image.fromarray(SIXTEEN * 0).save(tmp_path / "a.png")
    assert not np.asarray(read_picture(tmp_path / "a.png")).any()


@pytest.mark.parametrize(("dtype", "white"), [(np.float32, 1.0), (np.float32, 800.0), (np.int32, 70_000)])
def test_numbers_without_a_stated_white_need_one(tmp_path: Path, dtype: type, white: float) -> None:
    Image.fromarray((GREY / 255 * white).astype(dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ConfigError, match=r"a\.tif holds .* numbers.*white=1\.0"):
        read_picture(tmp_path / "a.tif")
    assert np.abs(np.asarray(read_picture(tmp_path / "a.tif", white)).astype(int) - UPRIGHT).max() <= 1


def test_what_is_not_a_number_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ConfigError, match=r"values from nan to nan, outside 0…1"):
        read_picture(tmp_path / "a.tif", 1.0)


@pytest.mark.parametrize("white", [0, -1.0, float("nan"), float("inf")])
def test_white_is_a_number_above_zero(white: float) -> None:
    with pytest.raises(ValueError, match="white must be a number above 0"):
        checked_white(white)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_several_pictures_in_a_file_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(np.roll(UPRIGHT, shift, 0)) for shift in (0, 9)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ConfigError, match=rf"a\.{suffix} holds 2 pictures or an animation"):
        read_picture(tmp_path / f"a.{suffix}")


def test_signed_bytes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(UPRIGHT[..., 0]).save(tmp_path / "a.tif", tiffinfo={339: 2})
    with pytest.raises(ConfigError, match=r"a\.tif holds signed numbers of 8 bits"):
        read_picture(tmp_path / "a.tif")


def test_a_cameras_second_picture_is_left_alone(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(UPRIGHT, shift, 0)) for shift in (0, 9)]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:], quality=100, subsampling=0)
    assert np.abs(np.asarray(read_picture(tmp_path / "a.jpg")).astype(int) - UPRIGHT).max() <= 3


def test_inks_of_unknown_sign_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(UPRIGHT).convert("CMYK").save(file, "JPEG")
    data = file.getvalue()
    start = data.index(b"\xff\xee")
    (tmp_path / "a.jpg").write_bytes(data[:start] + data[start + 16 :])
    with pytest.raises(ConfigError, match="does not say whether its inks are inverted"):
        read_picture(tmp_path / "a.jpg")


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (10_000, 2)])
def test_a_few_bytes_do_not_fill_the_memory(tmp_path: Path, width: int, height: int) -> None:
    file = io.BytesIO()
    Image.new("1", (8, 8)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ConfigError, match=r"a\.png.*(bomb|no side may be 100 times the other)"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no picture", "it is no whole PNG, JPEG"),
        (b"%!PS-Adobe-3.0 EPSF\n", "it is no whole"),
    ],
)
def test_what_is_no_picture_is_told_with_its_path(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"cannot read the picture .*a\.png: {reason}.*; mend it or take it out"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="No such file"):
        read_picture(tmp_path / "b.png")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_damaged_anywhere_is_read_or_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    rng, file, path = np.random.default_rng(0), io.BytesIO(), tmp_path / "a"
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif} if kind in ("PNG", "JPEG", "TIFF", "WEBP") else {}
    Image.fromarray(UPRIGHT[:12, :12]).save(file, kind, **options)
    data = file.getvalue()
    places = [*range(min(len(data), 120)), *rng.integers(0, len(data), 60).tolist()]
    lines: list[str] = []
    for place in places:
        for harmed in (data[:place], data[:place] + bytes([data[place] ^ rng.integers(1, 256)]) + data[place + 1 :]):
            path.write_bytes(harmed)
            for read in (read_picture, picture_shape, lambda path: read_values(path, FORMATS)):
                try:
                    read(path)
                except ConfigError as exc:
                    lines.append(str(exc))
    assert len(lines) > len(places)
    assert all(str(path) in line and "\n" not in line for line in lines)


def test_hidden_and_system_files_are_no_files_and_links_in_circles_end(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.txt", ".DS_Store", "._a.jpg", "Thumbs.db", ".ipynb_checkpoints/a.png", "in/c.tiff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "in/circle").symlink_to(tmp_path)
    pictures, others = find_pictures(tmp_path)
    assert [path.name for path in pictures] == ["a.JPG", "c.tiff"]
    assert [path.name for path in others] == ["b.txt"]
    assert [path.name for path in find_pictures(tmp_path, is_deep=False)[0]] == ["a.JPG"]
    with pytest.raises(ConfigError, match=r"cannot read the folder .*nowhere: No such file"):
        find_pictures(tmp_path / "nowhere")


def test_trained_weights_are_keyed_by_the_reader() -> None:
    assert {"splitsem.tasks.pictures"} <= {*modules([ImageFolderTask])}
    assert {"splitsem.tasks.pictures", "splitsem.tasks.masks"} <= {*modules(["splitsem.tasks.disaster"])}
