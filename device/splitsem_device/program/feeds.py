"""Where samples come from: arrays in files or on standard input, a folder of pictures, a video or a camera.

Every feed gives one sample at a time, its inputs by name, each with the batch of one.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from splitsem_device.bundle import Bundle, Input
from splitsem_device.errors import ConfigError
from splitsem_device.peer_text import shown
from splitsem_device.picture_input import PictureInput

Array = NDArray[Any]
Sample = dict[str, Array]
PICTURES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")


class Feed(ABC):
    """A source of samples; ends, unless it is a camera or what comes on standard input."""

    @abstractmethod
    def __iter__(self) -> Iterator[Sample]:
        """One sample after the other. Raises ConfigError for what is no sample of this network."""


class Arrays(Feed):
    """The samples of a .npy file, ``(num, *shape)`` or one ``shape``, or of an .npz file with the inputs by name."""

    def __init__(self, path: Path, inputs: Sequence[Input]) -> None:
        self.path, self.inputs = path, inputs
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as exc:
            raise ConfigError(f"cannot read arrays from {path}: {shown(exc)}") from exc
        by_name = dict(found) if isinstance(found, Mapping) else {inputs[0].name: found}
        if by_name.keys() != {one.name for one in inputs}:
            names = ", ".join(one.name for one in inputs)
            raise ConfigError(f"{path} has {', '.join(by_name)}, and this network takes {names}: give an .npz of them")
        self.arrays = {one.name: stacked(by_name[one.name], one, str(path)) for one in inputs}
        if len({len(array) for array in self.arrays.values()}) != 1:
            raise ConfigError(f"{path} has another number of samples of one input than of another")

    def __iter__(self) -> Iterator[Sample]:
        """See Feed."""
        for k in range(len(next(iter(self.arrays.values())))):
            yield {name: np.asarray(array[k : k + 1]) for name, array in self.arrays.items()}


class StandardInput(Feed):
    """Arrays in the format of .npy, one after the other, each one sample or ``(num, *shape)``, until the end."""

    def __init__(self, stream: IO[bytes], inputs: Sequence[Input]) -> None:
        if len(inputs) != 1:
            raise ConfigError(f"standard input carries one input, and this network takes {len(inputs)}: give an .npz")
        self.stream, self.input = stream, inputs[0]

    def __iter__(self) -> Iterator[Sample]:
        """See Feed."""
        while first := self.stream.read(1):
            try:
                array = np.lib.format.read_array(_Again(first, self.stream), allow_pickle=False)
            except (ValueError, EOFError) as exc:
                raise ConfigError(f"standard input is no stream of .npy arrays: {shown(exc)}") from exc
            for one in stacked(array, self.input, "standard input"):
                yield {self.input.name: one[None]}


class _Again:
    """A stream whose first byte was read."""

    def __init__(self, first: bytes, stream: IO[bytes]) -> None:
        self._first, self._stream = first, stream

    def read(self, size: int = -1, /) -> bytes:
        if not size:
            return b""
        first, self._first = self._first, b""
        return first + self._stream.read(size - len(first) if size > 0 else -1)


class PictureFolder(Feed):
    """The pictures of a folder, at any depth, by name; or one picture."""

    def __init__(self, path: Path, name: str, picture: PictureInput) -> None:
        _need_pillow(f"the pictures in {path}")
        self.name, self.picture = name, picture
        self.paths = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES) if path.is_dir() else [path]
        if not self.paths:
            raise ConfigError(f"{path} has no pictures ({', '.join(PICTURES)})")

    def __iter__(self) -> Iterator[Sample]:
        """See Feed; an EXIF orientation is applied."""
        from PIL import Image, ImageOps

        for path in self.paths:
            try:
                with Image.open(path) as opened:
                    made = self.picture.make(ImageOps.exif_transpose(opened))
            except (OSError, SyntaxError, ValueError, ImportError, Image.DecompressionBombError) as exc:
                # ImportError: where ultralytics is loaded, a damaged file makes its Image.open ask for a package
                raise ConfigError(f"cannot read the picture {path}: {shown(exc)}") from exc
            yield {self.name: made}


class Video(Feed):
    """The pictures of a video file, or of a camera by its file (``/dev/video0``)."""

    def __init__(self, path: Path, name: str, picture: PictureInput) -> None:
        _need_pillow(f"the video {path}")
        try:
            import av  # noqa: F401 (a missing one is told here, before anything is connected)
        except ImportError as exc:
            raise ConfigError(f"the video {path} needs PyAV: pip install 'splitsem-device[video]'") from exc
        self.path, self.name, self.picture = path, name, picture

    def __iter__(self) -> Iterator[Sample]:
        """See Feed."""
        import av

        is_camera = self.path.is_char_device()
        try:
            with av.open(str(self.path), format="v4l2" if is_camera else None) as container:
                for frame in container.decode(video=0):
                    yield {self.name: self.picture.make(frame.to_image())}
        except (av.FFmpegError, IndexError) as exc:
            raise ConfigError(f"cannot read the video {self.path}: {shown(exc)}") from exc


def _need_pillow(what: str) -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as exc:
        raise ConfigError(f"{what} need Pillow: pip install 'splitsem-device[pictures]'") from exc


def stacked(array: Array, like: Input, source: str) -> Array:
    """One sample or several as ``(num, *shape)``. Raises ConfigError for another shape or dtype."""
    shape = tuple(like.shape[1:])
    if array.dtype != np.dtype(like.dtype):
        raise ConfigError(f"{source} holds {array.dtype}, and the network takes {like.dtype}: .astype({like.dtype!r})")
    if array.shape == shape:
        return array[None]
    if array.shape[1:] != shape:
        raise ConfigError(f"{source} has the shape {array.shape}, and the network takes {shape}, or several of them")
    return array


def feed(source: str, bundle: Bundle) -> Feed:
    """The feed that a user names: ``samples`` (the bundle's own), ``-``, a folder, or a file.

    Raises:
        ConfigError: there is no such file, what reads it is missing, or it holds something else.
    """
    facts, path = bundle.facts, Path(source)
    if source == "-":
        return StandardInput(sys.stdin.buffer, facts.inputs)
    if source == "samples":
        return BundleSamples(bundle)
    if not path.exists():
        raise ConfigError(
            f"there is no {source}; --source takes a folder of pictures, a video, .npy, .npz, - or samples"
        )
    if path.suffix.lower() in (".npy", ".npz"):
        return Arrays(path, facts.inputs)
    if facts.picture is None or len(facts.inputs) != 1:
        raise ConfigError(f"{source}: this network takes no pictures; give its arrays as .npy, .npz or -")
    is_pictures = path.is_dir() or path.suffix.lower() in PICTURES
    return (PictureFolder if is_pictures else Video)(path, facts.inputs[0].name, facts.picture)


class BundleSamples(Feed):
    """The samples that came with the bundle."""

    def __init__(self, bundle: Bundle) -> None:
        import io

        found = np.load(io.BytesIO(bundle.read(bundle.facts.samples.inputs)), allow_pickle=False)
        self.arrays = {one.name: stacked(found[one.name], one, "the bundle") for one in bundle.facts.inputs}

    def __iter__(self) -> Iterator[Sample]:
        """See Feed."""
        for k in range(len(next(iter(self.arrays.values())))):
            yield {name: array[k : k + 1] for name, array in self.arrays.items()}
