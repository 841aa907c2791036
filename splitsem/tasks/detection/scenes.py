"""Drawn scenes for detection: shapes of five classes on textured grounds.

A scene is a function of (seed, index). Size, proportions, angle and colour of a shape say nothing of its class, shapes
cover each other in part, and stripes on the ground are no shapes.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitsem.detections import Boxes, pack_targets
from splitsem.tasks.aerial import WORLD, Canvas, Field, box
from splitsem.tasks.detection.boxed_pictures import BoxedPictures
from splitsem.tasks.task import Splits

SHAPES = ("disc", "block", "triangle", "cross", "ring")
MOST_SHAPES = 8
_FIRST_SCENE = (0, 1_000_000, 2_000_000)  # of train, val, test: apart, so that a split's size moves no other split
_LEAST_RADIUS, _MOST_RADIUS = 2.4, 11.0  # in units of WORLD: shapes of 9 to 54 of 128 pixels
_LEAST_VISIBLE = 0.6
_TRIES = 4


class DrawnScenes:
    """A source of drawn scenes; see ``splitsem.tasks.detection.detection.BoxSource``.

    Args:
        num_train: scenes to train on.
        num_val: scenes to validate on.
        num_test: scenes to score on.
        seed: seed of the scenes, not of the training.
    """

    class_names: tuple[str, ...] = SHAPES
    used_names: frozenset[str] = frozenset(SHAPES)
    size: tuple[int, int] = (128, 128)
    is_agreement: ClassVar[bool] = False

    def __init__(self, num_train: int = 1500, num_val: int = 100, num_test: int = 200, seed: int = 0) -> None:
        self._counts = (num_train, num_val, num_test)
        for name, count in zip(Splits._fields, self._counts, strict=True):
            if not 1 <= count <= 1_000_000:
                raise ValueError(f"num_{name} must be 1…1000000, got {count}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self._seed = seed

    def splits(self, size: tuple[int, int]) -> Splits:
        """The scenes at ``size`` (height, width), which must be equal. Raises ValueError."""
        if size[0] != size[1]:
            raise ValueError(f"drawn scenes are square: task.size must be two equal numbers, got {list(size)}")
        ranges = [range(at, at + count) for at, count in zip(_FIRST_SCENE, self._counts, strict=True)]
        return Splits(*(BoxedPictures(*_painted(self._seed, indices, size[0])) for indices in ranges))

    def data_paths(self) -> Sequence[Path]:
        """None: all is drawn."""
        return ()


@lru_cache(maxsize=6)
def _painted(seed: int, indices: range, size: int) -> tuple[Tensor, Tensor]:
    """All scenes of a split, kept for the process, because a sweep makes the same task again and again."""
    made = [scene(seed, index, size) for index in indices]
    return torch.from_numpy(np.stack([picture for picture, _ in made])), pack_targets([b for _, b in made], MOST_SHAPES)


def scene(seed: int, index: int, size: int = 128) -> tuple[NDArray[np.uint8], Boxes]:
    """Paint scene number ``index`` of a seed.

    Returns:
        The picture (3, size, size) uint8, RGB, and its boxes: each around all of a shape that lies in the picture,
        whether or not another one covers a part.
    """
    canvas = Canvas(np.random.default_rng((seed, index)), size)
    _ground(canvas)
    shown: list[NDArray[np.bool_]] = []
    found: list[tuple[tuple[float, float, float, float], int]] = []
    for _ in range(canvas.rng.choice(MOST_SHAPES + 1, p=(0.04, 0.14, 0.18, 0.18, 0.16, 0.12, 0.08, 0.06, 0.04))):
        placed = _place(canvas, shown)
        if placed is not None:
            found.append(placed)
    canvas.image *= np.float32(canvas.rng.uniform(0.75, 1.15))
    canvas.image += np.float32(canvas.rng.uniform(0.01, 0.04)) * canvas.rng.standard_normal(
        canvas.image.shape, dtype=np.float32
    )
    corners = torch.tensor([where for where, _ in found]).reshape(-1, 4)
    classes = torch.tensor([number for _, number in found], dtype=torch.int64)
    picture = (np.clip(canvas.image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return picture, Boxes(corners, torch.zeros(len(found)), classes)


def _ground(canvas: Canvas) -> None:
    """Two colours in patches, grain of several sizes, and stripes across."""
    rng = canvas.rng
    first, second = rng.uniform(0.15, 0.85, (2, 3))
    canvas.image[:] = first[:, None, None]
    canvas.paint(np.clip(0.5 + 1.5 * canvas.noise(int(rng.integers(2, 9))), 0, 1), second)
    canvas.image *= 1 + 0.15 * canvas.noise(30) + 0.12 * canvas.noise(64)
    for _ in range(rng.integers(0, 3)):
        _, v = canvas.local(rng.uniform(0, WORLD), rng.uniform(0, WORLD), rng.uniform(0, np.pi))
        stripe = canvas.cover(np.abs(v) - np.float32(rng.uniform(0.4, 2.0)))
        canvas.paint(np.float32(rng.uniform(0.3, 0.9)) * stripe, rng.uniform(0.1, 0.9, 3))


def _place(canvas: Canvas, shown: list[NDArray[np.bool_]]) -> tuple[tuple[float, float, float, float], int] | None:
    """Paint one shape where it hides no earlier one; ``shown`` is what is to be seen of each. None where none fits."""
    rng = canvas.rng
    number = int(rng.integers(len(SHAPES)))
    radius = np.exp(rng.uniform(np.log(_LEAST_RADIUS), np.log(_MOST_RADIUS)))
    for _ in range(_TRIES):
        x, y = rng.uniform(radius / 2, WORLD - radius / 2, 2)
        u, v = canvas.local(x, y, rng.uniform(0, 2 * np.pi))
        alpha = canvas.cover(_DISTANCES[number](u, v, radius, rng.uniform(0.55, 1.0)))
        solid = alpha > 0.5
        left = [mask & ~solid for mask in shown]
        if solid.any() and all(now.sum() >= _LEAST_VISIBLE * was.sum() for now, was in zip(left, shown, strict=True)):
            break
    else:
        return None
    shown[:] = [*left, solid]
    shadow_u, shadow_v = canvas.local(x + 0.6, y + 0.9, 0)
    canvas.shade(canvas.cover(np.hypot(shadow_u, shadow_v) - np.float32(0.8 * radius)), 0.25)
    under = canvas.image[:, solid].mean(axis=1)
    colour = rng.uniform(0.05, 0.95, 3)
    while np.abs(colour - under).max() < 0.35:
        colour = rng.uniform(0.05, 0.95, 3)
    lit = 1 + 0.25 * np.float32(rng.uniform(-1, 1)) * u / np.float32(radius) + 0.12 * canvas.noise(40)
    canvas.paint(alpha, colour.astype(np.float32)[:, None, None] * lit)
    return _extent(alpha), number


def _extent(alpha: Field) -> tuple[float, float, float, float]:
    """The box around a shape, in pixels: the share of its outermost pixels that it covers says where its edge is."""
    ends = []
    for axis in (0, 1):
        most = alpha.max(axis=axis)
        touched = np.flatnonzero(most > 0.02)
        first, last = int(touched[0]), int(touched[-1])
        ends.append((first + 1 - float(most[first]), last + float(most[last])))
    (x1, x2), (y1, y2) = ends
    return x1, y1, x2, y2


def _disc(u: Field, v: Field, radius: float, ratio: float) -> Field:
    short = np.float32(radius * ratio)
    return (np.hypot(u / np.float32(radius), v / short) - 1) * short


def _triangle(u: Field, v: Field, radius: float, ratio: float) -> Field:
    tall = v / np.float32(0.8 + 0.2 * ratio)
    sides = [np.float32(np.cos(a)) * u + np.float32(np.sin(a)) * tall for a in np.pi * np.array((1 / 2, 7 / 6, 11 / 6))]
    return np.maximum.reduce(sides) - np.float32(radius / 2)


def _cross(u: Field, v: Field, radius: float, ratio: float) -> Field:
    arm = radius * (0.2 + 0.2 * ratio)
    return np.minimum(box(u, v, radius, arm), box(u, v, arm, radius))


def _ring(u: Field, v: Field, radius: float, ratio: float) -> Field:
    half = np.float32(radius * (0.14 + 0.12 * ratio))
    return np.abs(np.hypot(u, v) - (np.float32(radius) - half)) - half


def _block(u: Field, v: Field, radius: float, ratio: float) -> Field:
    return box(u, v, 0.9 * radius, 0.9 * radius * ratio)


_DISTANCES: tuple[Callable[[Field, Field, float, float], Field], ...] = (_disc, _block, _triangle, _cross, _ring)
