"""Frames of the film, and what codes a sequence of pictures: files of one picture each, and H.265."""

import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitsem.codecs.picture import PictureCodec

Picture = NDArray[np.uint8]
GREY = 128  # beside a picture of other proportions than the network's, as darknet has it


class Coded(NamedTuple):
    """A sequence after coding.

    Attributes:
        pictures: decoded.
        num_bytes: of all of them, without any container.
        encode_s: of all of them.
        decode_s: of all of them.
    """

    pictures: list[Picture]
    num_bytes: int
    encode_s: float
    decode_s: float


def frames(film: Path, first: int, count: int, width: int) -> Iterator[Picture]:
    """Frames ``first`` … ``first + count − 1``, shrunk to a width and the nearest even height; RGB."""
    with av.open(str(film)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= first + count:
                return
            if number >= first:
                picture = frame.to_image()
                height = 2 * round(picture.height * width / picture.width / 2)
                yield np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    raise SystemExit(f"{film} ends before frame {first + count - 1}: give a smaller --first or --frames")


def as_files(pictures: Sequence[Picture], codec: PictureCodec) -> Coded:
    """Each picture as a file of its own; the file's bytes count, no header of this project."""
    start = time.perf_counter()
    files = [codec.write_file(Image.fromarray(picture)) for picture in pictures]
    middle = time.perf_counter()
    channels = 1 if pictures[0].ndim == 2 else 3
    size = (pictures[0].shape[1], pictures[0].shape[0])
    decoded = [
        np.asarray(codec.open_file(data, channels, size).convert("L" if channels == 1 else "RGB")) for data in files
    ]
    return Coded(decoded, sum(map(len, files)), middle - start, time.perf_counter() - middle)


def as_h265(crf: int, is_intra: bool) -> Callable[[Sequence[Picture]], Coded]:
    """x265, one thread, without frames of the future: every frame by itself, or each from those before it.

    Args:
        crf: constant rate factor, 0 (best) … 51.
        is_intra: every frame by itself.
    """
    parameters = (
        f"crf={crf}:keyint={1 if is_intra else 250}:scenecut=0:info=0:log-level=none:pools=none:frame-threads=1"
    )

    def code(pictures: Sequence[Picture]) -> Coded:
        encoder = av.CodecContext.create("libx265", "w")
        is_grey = pictures[0].ndim == 2
        encoder.height, encoder.width = pictures[0].shape[:2]
        encoder.pix_fmt = "gray" if is_grey else "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, 10), Fraction(10, 1)
        encoder.options = {"preset": "medium", "tune": "zerolatency", "x265-params": parameters}
        start = time.perf_counter()
        packets: list[bytes] = []
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="gray" if is_grey else "rgb24")
            frame = frame if is_grey else frame.reformat(format="yuv420p")
            frame.pts = number
            packets += [bytes(packet) for packet in encoder.encode(frame)]
        packets += [bytes(packet) for packet in encoder.encode(None)]
        middle = time.perf_counter()
        decoder = av.CodecContext.create("hevc", "r")
        made = [frame for data in packets for frame in decoder.decode(av.Packet(data))]
        made += decoder.decode(None)
        decoded = [frame.to_ndarray(format="gray" if is_grey else "rgb24") for frame in made]
        assert len(decoded) == len(pictures)
        return Coded(decoded, sum(map(len, packets)), middle - start, time.perf_counter() - middle)

    return code
