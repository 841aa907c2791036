"""Letterbox: a picture of any proportions fitted into the network's input, with grey beside it, and its boxes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_GREY = 128  # the uint8 nearest to 0.5


class Letterbox(NamedTuple):
    """Where a picture lies in the network's input, in pixels of that input.

    Attributes:
        width: of the resized picture.
        height: of the resized picture.
        left: columns of grey before it.
        top: rows of grey above it.
        scale_x: pixels of the input for a pixel of the picture, across.
        scale_y: the same, down; they differ by rounding only.
    """

    width: int
    height: int
    left: int
    top: int
    scale_x: float
    scale_y: float

    def boxes(self, corners: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes ``(n, 4)`` of the picture in pixels of the input."""
        scale = (self.scale_x, self.scale_y, self.scale_x, self.scale_y)
        made: NDArray[np.float32] = (corners * scale + (self.left, self.top, self.left, self.top)).astype(np.float32)
        return made


def letterbox(width: int, height: int, size: Sequence[int]) -> Letterbox:
    """Where a picture of ``width`` × ``height`` pixels lies in an input of ``size`` (height, width): in its middle.

    >>> letterbox(200, 100, (128, 128))
    Letterbox(width=128, height=64, left=0, top=32, scale_x=0.64, scale_y=0.64)
    """
    scale = min(size[0] / height, size[1] / width)
    wide, high = max(round(width * scale), 1), max(round(height * scale), 1)
    return Letterbox(wide, high, (size[1] - wide) // 2, (size[0] - high) // 2, wide / width, high / height)


def fitted(picture: Image.Image, size: Sequence[int]) -> NDArray[np.uint8]:
    """The network's input ``(3, *size)`` uint8 of a picture in RGB of any size."""
    at = letterbox(*picture.size, size)
    made = np.full((3, *size), _GREY, np.uint8)
    resized = np.asarray(picture.resize((at.width, at.height), Image.Resampling.BILINEAR))
    made[:, at.top : at.top + at.height, at.left : at.left + at.width] = np.moveaxis(resized, -1, 0)
    return made
