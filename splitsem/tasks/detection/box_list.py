"""BoxList: the answer of a detector, 11 bytes a box; where there are more than 256 classes, 12."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitsem.detections import NUM_COLUMNS
from splitsem.errors import PayloadError
from splitsem.tasks.answer import AnswerCoder

_FULL = 65_535


class BoxList(AnswerCoder):
    """The boxes of a picture: corners in 65,535ths of its longer side, scores in 65,535ths, class numbers.

    Corners outside the picture are moved to its edge; what is not finite, or has no area then, is left out. Scores in
    255ths would save a byte, and tie boxes of different pictures, which moves a mean average precision.

    Args:
        size: height and width of the network's input in pixels.
        num_classes: that the network tells apart.
        most: rows of the network's output.
    """

    drawn_as = "boxes"

    def __init__(self, size: Sequence[int], num_classes: int, most: int) -> None:
        height, width = size
        if min(height, width, most) < 1 or not 1 <= num_classes <= _FULL + 1:
            raise ValueError(f"size, num_classes and most must be at least 1, got {size}, {num_classes}, {most}")
        self.size, self.num_classes, self.most = (height, width), num_classes, most
        class_dtype = "u1" if num_classes <= 256 else "<u2"
        self._dtype = np.dtype([("corners", "<u2", 4), ("score", "<u2"), ("class", class_dtype)])
        self._step = max(height, width) / _FULL

    @property
    def name(self) -> str:
        """See AnswerCoder."""
        return f"boxes({self.most} of {self.num_classes} classes, {self.size[0]}x{self.size[1]})"

    def encode(self, output: Tensor) -> bytes:
        """See AnswerCoder; detections ``(1, most, 6)`` as in ``splitsem.detections``."""
        rows = output.detach().float().cpu().reshape(-1, NUM_COLUMNS).numpy().astype(np.float64)
        rows = rows[(rows[:, 4] > 0) & np.isfinite(rows).all(1)]
        height, width = self.size
        made = np.empty(len(rows), self._dtype)
        made["corners"] = np.rint(rows[:, :4].clip(0, (width, height, width, height)) / self._step)
        made["score"] = np.rint(rows[:, 4].clip(0, 1) * _FULL).clip(1)
        made["class"] = rows[:, 5].clip(0, self.num_classes - 1)
        return made[_has_area(made["corners"])].tobytes()

    def decode(self, answer: bytes | memoryview) -> Tensor:
        """The boxes, ``(n, 6)`` float32, as rows of ``splitsem.detections``. Raises PayloadError."""
        size = self._dtype.itemsize
        if len(answer) % size or len(answer) > self.most * size:
            raise PayloadError(f"expected at most {self.most} boxes of {size} bytes each, got {len(answer)} bytes")
        rows = np.frombuffer(answer, self._dtype)
        made = np.concatenate(
            [rows["corners"] * self._step, rows["score"][:, None] / _FULL, rows["class"][:, None]], axis=1
        )
        height, width = self.size
        if len(rows) and not (
            (made[:, [0, 2]] <= width + self._step / 2).all()
            and (made[:, [1, 3]] <= height + self._step / 2).all()
            and _has_area(rows["corners"]).all()
            and rows["score"].min() > 0
            and rows["class"].max() < self.num_classes
        ):
            raise PayloadError(
                f"expected boxes with an area, within {height}x{width} pixels, of {self.num_classes} classes and scored"
            )
        return torch.from_numpy(made.astype(np.float32))

    def as_output(self, answer: Tensor) -> Tensor:
        """See AnswerCoder: the boxes in the first rows, zeros in all others."""
        output = torch.zeros(1, self.most, NUM_COLUMNS)
        output[0, : len(answer)] = answer
        return output


def _has_area(corners: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Whether each box ``(n, 4)`` ends right of and below where it begins."""
    return np.all(corners[:, 2:] > corners[:, :2], axis=1)
