"""Canvas: a picture and its label map painted together — smooth noise, distance fields, anti-aliased paint.

The world is always WORLD units wide (about a metre each); ``size`` only sets how finely it is sampled, so the same
scene can be painted at any resolution. Arrays are float32 and channel first: image (3, S, S), fields (S, S).
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

WORLD = 52.0

Field = NDArray[np.floating[Any]]


@lru_cache(maxsize=64)
def _interpolation(size: int, cells: int) -> Field:
    """Smoothstep weights (size, cells + 1) that stretch ``cells`` grid cells over ``size`` pixels."""
    position = (np.arange(size) + 0.5) * cells / size
    left = position.astype(int)
    fraction = position - left
    fraction = fraction**2 * (3 - 2 * fraction)
    weights = np.zeros((size, cells + 1), np.float32)
    weights[np.arange(size), left] = 1 - fraction
    weights[np.arange(size), left + 1] = fraction
    return weights


class Canvas:
    """A square picture in the making.

    Args:
        rng: source of all randomness.
        size: width and height in pixels.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.size = size
        self.pitch = WORLD / size
        centres = ((np.arange(size) + 0.5) * self.pitch).astype(np.float32)
        self.x, self.y = centres[None, :], centres[:, None]
        self.image = np.zeros((3, size, size), np.float32)
        self.label = np.zeros((size, size), np.uint8)

    def noise(self, cells: int) -> Field:
        """Value noise in [-1, 1] with ``cells`` bumps across the picture."""
        weights = _interpolation(self.size, cells)
        grid = self.rng.random((cells + 1, cells + 1), dtype=np.float32) * 2 - 1
        return weights @ grid @ weights.T

    def local(self, x: float, y: float, angle: float) -> tuple[Field, Field]:
        """Coordinates (u, v) of every pixel in the frame at (x, y) turned by ``angle`` radians."""
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        dx, dy = self.x - np.float32(x), self.y - np.float32(y)
        return cos * dx + sin * dy, cos * dy - sin * dx

    def cover(self, distance: Field) -> Field:
        """Share of each pixel inside a shape, from the signed distance (negative inside) to its edge."""
        return np.clip(0.5 - distance / np.float32(self.pitch), 0, 1)

    def paint(self, alpha: Field, colour: ArrayLike, label: int | None = None) -> None:
        """Blend ``colour`` (one RGB or (3, S, S)) in by ``alpha``; pixels more than half covered get ``label``."""
        rgb = np.asarray(colour, np.float32)
        self.image += alpha * ((rgb[:, None, None] if rgb.ndim == 1 else rgb) - self.image)
        if label is not None:
            self.label[alpha > 0.5] = label

    def shade(self, alpha: Field, strength: float) -> None:
        """Darken by ``strength`` in [0, 1] where ``alpha`` covers."""
        self.image *= 1 - np.float32(strength) * alpha

    def label_at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.uint8]:
        """Labels at world positions; those outside the picture are left out."""
        column = np.floor(np.asarray(x) / self.pitch).astype(int).ravel()
        row = np.floor(np.asarray(y) / self.pitch).astype(int).ravel()
        inside = (column >= 0) & (column < self.size) & (row >= 0) & (row < self.size)
        return self.label[row[inside], column[inside]]


def box(u: Field, v: Field, half_u: float, half_v: float) -> Field:
    """Signed distance (exact outside the corners' diagonals) to a rectangle centred at the origin."""
    return np.maximum(np.abs(u) - np.float32(half_u), np.abs(v) - np.float32(half_v))
