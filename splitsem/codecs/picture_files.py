"""What a JPEG, PNG or WebP file may be: the plain kinds that the picture codecs write, told from their bytes alone.

An image library reads much more than that (further scans, frames, chunks, samplings), and some of it costs seconds for
a few kilobytes. Each function raises PayloadError for a file that no encoder here makes, before a pixel is decoded.
"""

import re
import struct
from collections.abc import Iterator

from splitsem.errors import PayloadError

# number, sampling and table of each channel: chroma at half the resolution, as Pillow's encoder writes it
_JPEG_CHANNELS = {1: b"\x01\x01\x11\x00", 3: b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"}
_JPEG_MARKERS = re.compile(rb"\xe0\xdb{1,2}\xc0\xc4{1,4}\xda")
_MOST_JPEG_SEGMENTS = 9
_PNG_COLOURS = {1: 0, 3: 2}
_PNG_CHUNK_BYTES = 1 << 16  # of every chunk of pixels but the last, at least


def check_jpeg(data: bytes, channels: int, size: tuple[int, int]) -> None:
    """A baseline JPEG in one scan: a progressive one of 120 KB can take seconds."""
    segments = list(_jpeg_segments(data))
    if not _JPEG_MARKERS.fullmatch(bytes(marker for marker, _, _ in segments)):
        raise PayloadError("expected a baseline JPEG of one scan, got another kind of file")
    frame = next(data[start:end] for marker, start, end in segments if marker == 0xC0)
    if frame != b"\x08" + struct.pack(">HH", size[1], size[0]) + _JPEG_CHANNELS[channels]:
        raise PayloadError(
            f"expected a JPEG of {size[0]}×{size[1]} in {channels} channels, got frame {frame[:16].hex()}"
        )
    scan = segments[-1][2]
    num_markers = data.count(b"\xff", scan) - data.count(b"\xff\0", scan)  # a zero says that a byte of 255 is none
    if num_markers != 1 or not data.endswith(b"\xff\xd9"):
        raise PayloadError("expected a JPEG that ends with its only scan, got another one")


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to the pixels."""
    position, marker = 2, 0
    for _ in range(_MOST_JPEG_SEGMENTS):
        if marker == 0xDA or data[:2] != b"\xff\xd8" or data[position : position + 1] != b"\xff":
            return
        marker, size = struct.unpack(">BH", data[position + 1 : position + 4].ljust(3, b"\0"))
        if size < 2 or position + 2 + size > len(data):
            return
        yield marker, position + 4, position + 2 + size
        position += 2 + size


def check_png(data: bytes, channels: int, size: tuple[int, int]) -> None:
    """An 8-bit PNG, not interlaced, that holds nothing but pixels, in chunks that are not tiny."""
    header = struct.pack(">I4sIIBBBBB", 13, b"IHDR", *size, 8, _PNG_COLOURS[channels], 0, 0, 0)
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[8:29] != header:
        raise PayloadError(
            f"expected an 8-bit PNG of {size[0]}×{size[1]} in {channels} channels, got {data[:32].hex()}"
        )
    position, num_bytes = 33, _PNG_CHUNK_BYTES
    while data[position + 4 : position + 8] == b"IDAT" and num_bytes >= _PNG_CHUNK_BYTES:
        (num_bytes,) = struct.unpack_from(">I", data, position)
        position += 12 + num_bytes
    if data[position : position + 8] != b"\0\0\0\0IEND" or position + 12 != len(data):
        raise PayloadError("expected a PNG of pixels alone, got one with other chunks")


def check_webp(data: bytes, size: tuple[int, int]) -> None:
    """A plain lossy or lossless WebP, one chunk in all (RFC 9649, sections 2.5 and 2.6): no animation, no metadata."""
    if data[:4] != b"RIFF" or len(data) < 25 or struct.unpack_from("<I", data, 4)[0] + 8 != len(data):
        raise PayloadError(f"expected a plain WebP file, got one that starts with {data[:16]!r}")
    (num_bytes,) = struct.unpack_from("<I", data, 16)
    if num_bytes + num_bytes % 2 + 20 != len(data):
        raise PayloadError("expected a WebP file of one chunk, got more or less")
    if (got := _webp_size(data)) != size:
        raise PayloadError(f"expected a picture of {size[0]}×{size[1]}, got {got[0]}×{got[1]}")


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[8:16]
    if kind == b"WEBPVP8 " and len(data) >= 30 and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"WEBPVP8L" and data[20] == 0x2F:
        (packed,) = struct.unpack_from("<I", data, 21)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    raise PayloadError(f"expected a plain WebP file, got one that starts with {data[:16]!r}")
