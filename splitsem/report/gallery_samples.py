"""What a gallery shows of its samples; ``gallery_figures`` draws it. Needs no matplotlib."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
NOTHING = "nothing arrived"
"""The name in place of a class, where the link lost the answer."""


class Shown(NamedTuple, Generic[T]):
    """One sample.

    Attributes:
        number: of the sample in its split.
        picture: ``(height, width, 3)`` or ``(height, width)`` in [0, 1]; None where the input is no picture.
        unsplit: what the unsplit network finds.
        split: what the split one finds.
        truth: what is there; None where nobody knows.
        text: the input in words, where it is text.
    """

    number: int
    picture: NDArray[np.floating] | None
    unsplit: T
    split: T
    truth: T | None = None
    text: str = ""


class Label(NamedTuple):
    """A class, and how sure the network is of it in [0, 1]; None where the answer does not say."""

    name: str
    confidence: float | None = None


class Found(NamedTuple):
    """Boxes in a picture.

    Attributes:
        corners: ``(n, 4)``: x1, y1, x2, y2 in pixels.
        names: of the classes, with their scores as the figure is to show them.
        is_matched: ``(n,)``: whether the other network finds the same.
    """

    corners: NDArray[np.floating]
    names: Sequence[str]
    is_matched: NDArray[np.bool_]


class Forecast(NamedTuple):
    """A series and how it goes on: ``(steps,)`` and ``(horizon,)``."""

    past: NDArray[np.floating]
    future: NDArray[np.floating]
