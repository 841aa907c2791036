"""Frames of a real video without labels: the targets are what the unsplit network finds in them."""

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from splitsem import extras
from splitsem.detections import within
from splitsem.errors import DataError
from splitsem.tasks.agreement import OwnResults
from splitsem.tasks.detection.class_names import COCO80
from splitsem.tasks.detection.letterbox import fitted
from splitsem.tasks.task import Splits

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

log = logging.getLogger(__name__)

_ENTRY, _FILE = "pedestrians", "vtest.avi"


class VideoFrames:
    """A source of a video's frames; see ``splitsem.tasks.detection.detection.BoxSource``.

    Train, val and test are the beginning, the middle and the end, so that no frame of test has a neighbour in train.

    Args:
        path: a video file that ffmpeg reads; None for the pedestrians of ``python -m splitsem.data``.
        every: of so many frames, one is taken.
        num_frames: at most so many are taken; None for all.
        val_fraction: share of the taken frames that become val.
        test_fraction: share of the taken frames that become test.
        gap: taken frames that are left out between two parts.
        score_threshold: detections of the unsplit network above this score are targets.

    Raises:
        ValueError: an argument out of range.
    """

    class_names: tuple[str, ...] = COCO80
    used_names: frozenset[str] = frozenset(COCO80)
    size: tuple[int, int] = (416, 416)
    is_agreement: ClassVar[bool] = True

    def __init__(
        self,
        path: str | None = None,
        every: int = 5,
        num_frames: int | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.4,
        gap: int = 5,
        score_threshold: float = 0.25,
    ) -> None:
        if every < 1 or (num_frames is not None and num_frames < 1):
            raise ValueError(f"every and num_frames must be at least 1, got {every} and {num_frames}")
        if not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
            raise ValueError(
                "val_fraction and test_fraction must be above 0, and below 1 together, got "
                f"{val_fraction} and {test_fraction}"
            )
        if gap < 0:
            raise ValueError(f"gap must be at least 0, got {gap}")
        if not 0 <= score_threshold < 1:
            raise ValueError(f"score_threshold must be from 0 to below 1, got {score_threshold}")
        self._given, self._every, self._num_frames = path, every, num_frames
        self._fractions, self._gap, self._score_threshold = (val_fraction, test_fraction), gap, score_threshold

    @property
    def path(self) -> Path:
        """The video. Raises DataError where none is given and the default one is not there."""
        if self._given is not None:
            return Path(self._given).expanduser()
        return Path(import_module("splitsem.data").path(_ENTRY)) / _FILE

    def data_paths(self) -> Sequence[Path]:
        """The video."""
        return (self.path,)

    def splits(self, size: tuple[int, int]) -> Splits:
        """The frames at ``size`` (height, width). Raises DataError."""
        path = self.path
        try:
            stamp = path.stat().st_mtime_ns
        except OSError as exc:
            raise DataError(f"cannot read the video {path}: {exc.strerror}; name one by task.source.path") from exc
        frames = _taken(path, stamp, self._every, self._num_frames, size)
        num = len(frames) - 2 * self._gap
        num_val, num_test = (max(round(share * num), 1) for share in self._fractions)
        num_train = num - num_val - num_test
        if num_train < 1:
            raise DataError(
                f"{path} gives {len(frames)} frames, of which {2 * self._gap} are left out between the parts: "
                "too few for train, val and test; lower task.source.every or task.source.gap"
            )
        at, parts = 0, []
        for count in (num_train, num_val, num_test):
            parts.append(Frames(frames[at : at + count]))
            at += count + self._gap
        target_of = partial(found_as_targets, score_threshold=self._score_threshold, size=size)
        return Splits(*(OwnResults(part, target_of) for part in parts))


class Frames(Dataset[Tensor]):
    """Pictures alone, without targets.

    Args:
        pictures: uint8 ``(n, 3, height, width)``.
    """

    def __init__(self, pictures: Tensor) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        """Picture ``(3, height, width)`` float32 in [0, 1], exactly uint8/255."""
        return self.pictures[index] / 255


def found_as_targets(detections: Tensor, score_threshold: float, size: tuple[int, int]) -> Tensor:
    """Targets ``(batch, most, 6)`` of the detections ``(batch, most, 6)`` with a score above the threshold.

    They are cut as the answer is, so that a network's answer agrees with what it found, see ``detections.within``.
    """
    found = within(detections, size)
    is_sure = found[..., 4:5] > score_threshold
    targets = torch.where(is_sure, found, 0.0)
    targets[..., 4] = 0
    targets[..., 5] = torch.where(is_sure[..., 0], found[..., 5], -1)
    return targets


@lru_cache(maxsize=2)
def _taken(path: Path, stamp: int, every: int, num_frames: int | None, size: tuple[int, int]) -> Tensor:
    """Every n-th frame as uint8 ``(n, 3, *size)``; kept, because a sweep makes the same task again and again."""
    taken = []
    for number, frame in enumerate(decoded_frames(path)):
        if number % every == 0:
            taken.append(fitted(frame.to_image(), size))
        if num_frames is not None and len(taken) == num_frames:
            break
    return torch.from_numpy(np.stack(taken))


def decoded_frames(path: Path) -> Iterator["VideoFrame"]:
    """All frames of a video that can be decoded; at its end, a warning says how many where not all could.

    Raises:
        DataError: there is no such frame, or PyAV is not installed.
    """
    with extras.needed("detection", "reading a video"):
        import av
    num, num_broken, declared = 0, 0, 0
    fault: str | None = None
    try:
        with av.open(str(path)) as container:
            declared = _declared(container)
            for packet in container.demux(video=0) if container.streams.video else ():
                try:
                    frames = packet.decode()
                except av.error.FFmpegError as exc:
                    num_broken, fault = num_broken + 1, exc.strerror
                    continue
                for frame in frames:
                    num += 1
                    yield frame
    except av.error.FFmpegError as exc:
        fault = exc.strerror
    if not num:
        why = fault or "it holds no frame"
        raise DataError(f"cannot read the video {path}: {why}; name one that ffmpeg plays by task.source.path")
    if fault or num < declared:
        said = f"it declares {declared} or more" if num < declared else f"{num_broken or 'some'} are broken"
        log.warning("%s: %d frames decode and are used; %s%s", path, num, said, f" ({fault})" if fault else "")


def _declared(container: "InputContainer") -> int:
    """How many frames a video should have: as it says, or nearly as many as its length tells, since rates are rough."""
    if not container.streams.video:
        return 0
    stream = container.streams.video[0]
    return stream.frames or int(0.95 * float(stream.average_rate or 0) * (container.duration or 0) / 1e6)
