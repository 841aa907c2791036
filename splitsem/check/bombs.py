"""Bombs: what a codec has packed by zlib, gzip, bz2 or lzma, packed again so that few bytes unpack to very many."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from splitsem.check.forgery import bodies

UNPACKED_BYTES = 64 << 20
"""What a bomb unpacks to, at least."""

_MOST_BEFORE = 64  # bytes of a header of the codec's own
_MOST_AFTER = 16  # bytes of a checksum of the codec's own
_LEAST = 8  # unpacked bytes of what is no accident


class _Stream(NamedTuple):
    """A packed stream in a body.

    Attributes:
        format: its name.
        start: where it begins.
        content: what it unpacks to.
        after: what follows it.
    """

    format: str
    start: int
    content: bytes
    after: bytes


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


_FORMATS: dict[str, tuple[Callable[[], Any], Callable[[bytes], bytes]]] = {
    "zlib": (zlib.decompressobj, lambda data: zlib.compress(data, 9)),
    "gzip": (lambda: zlib.decompressobj(16 + zlib.MAX_WBITS), gzip.compress),
    "deflate": (lambda: zlib.decompressobj(-zlib.MAX_WBITS), _raw_deflate),
    "bz2": (bz2.BZ2Decompressor, bz2.compress),
    "xz": (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ), lambda data: lzma.compress(data, preset=0)),
    "lzma": (
        lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE),
        lambda data: lzma.compress(data, lzma.FORMAT_ALONE, preset=0),
    ),
}


def bombs(payload: bytes) -> dict[str, bytes]:
    """Payloads with right checksums that unpack to ``UNPACKED_BYTES`` and more, by words that say what is in them.

    Args:
        payload: an honest payload of a codec, which packs its content by one of these formats, or by none.
    """
    found = {}
    zeros = bytes(UNPACKED_BYTES)
    for body, with_body in bodies(payload):
        for stream in list(_streams(body))[:1]:
            pack = _FORMATS[stream.format][1]
            for what, content in (("zeros after the content", stream.content + zeros), ("zeros", zeros)):
                packed = body[: stream.start] + pack(content) + stream.after
                words = f"{stream.format} of {UNPACKED_BYTES >> 20} MB of {what} in {len(packed)} bytes"
                found[words] = with_body(packed)
    return found


def _streams(body: bytes) -> Iterator[_Stream]:
    for start in range(min(len(body), _MOST_BEFORE)):
        for name, (unpacker, _) in _FORMATS.items():
            one = unpacker()
            try:
                content = one.decompress(body[start:])
            except (zlib.error, OSError, lzma.LZMAError, EOFError):
                continue
            if one.eof and len(content) >= _LEAST and len(one.unused_data) <= _MOST_AFTER:
                yield _Stream(name, start, content, one.unused_data)
