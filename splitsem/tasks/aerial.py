"""Aerial scenes after a hurricane, painted by rules: what stands in for RescueNet's photographs.

A scene is a function of (seed, index): ground, coast, roads, buildings in four grades of damage, trees, vehicles and
pools under a sun of its own, in RescueNet's classes and as unevenly spread. Colours do not give a class away on their
own: blue tarpaulins look like pools, loose rubble lies on the ground as on blocked roads, and light varies by scene.

The world is always WORLD units wide (about a metre each); ``size`` only sets how finely it is sampled, so the same
scene can be painted at any resolution. Arrays are float32 and channel first: image (3, S, S), fields (S, S).
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitsem.tasks.rescuenet import CLASS_NAMES

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
        """Labels at world positions; positions outside the picture are left out."""
        column = np.floor(np.asarray(x) / self.pitch).astype(int).ravel()
        row = np.floor(np.asarray(y) / self.pitch).astype(int).ravel()
        inside = (column >= 0) & (column < self.size) & (row >= 0) & (row < self.size)
        return self.label[row[inside], column[inside]]


def box(u: Field, v: Field, half_u: float, half_v: float) -> Field:
    """Signed distance (exact outside the corners' diagonals) to a rectangle centred at the origin."""
    return np.maximum(np.abs(u) - np.float32(half_u), np.abs(v) - np.float32(half_v))


(BACKGROUND, WATER, INTACT, MINOR, MAJOR, DESTROYED, VEHICLE, CLEAR, BLOCKED, TREE, POOL, SAND) = range(
    len(CLASS_NAMES)
)

_ROOFS = ((0.55, 0.53, 0.52), (0.42, 0.33, 0.28), (0.62, 0.34, 0.26), (0.78, 0.77, 0.74), (0.36, 0.40, 0.45))
_CARS = ((0.92, 0.92, 0.92), (0.10, 0.10, 0.12), (0.72, 0.12, 0.10), (0.14, 0.26, 0.60), (0.62, 0.63, 0.66))
_CHIPS = np.array(
    ((0.66, 0.56, 0.43), (0.80, 0.77, 0.72), (0.28, 0.24, 0.21), (0.45, 0.40, 0.36), (0.56, 0.33, 0.25)), np.float32
)
_ROOTED = np.isin(range(len(CLASS_NAMES)), (BACKGROUND, MAJOR, DESTROYED, BLOCKED, SAND))  # where a tree can stand
_DRIVABLE = np.isin(range(len(CLASS_NAMES)), (BACKGROUND, CLEAR, BLOCKED))
_TARPAULIN = (0.16, 0.38, 0.78)
_WOOD, _DARK = (0.64, 0.52, 0.38), (0.15, 0.13, 0.12)


class _Road(NamedTuple):
    """A road: the frame of its middle and its half width."""

    x: float
    y: float
    angle: float
    half_width: float


def scene(seed: int, index: int, size: int = 64) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Paint scene number ``index``.

    Args:
        seed: seed of the whole data set.
        index: number of the scene, at least 0.
        size: width and height in pixels; the world shown stays the same.

    Returns:
        Picture (3, size, size), RGB, and labels (size, size), 0…11, both uint8.
    """
    rng = np.random.default_rng((seed, index))
    canvas = Canvas(rng, size)
    rubble = _rubble(canvas)
    sun = rng.uniform(0, 2 * np.pi)
    shadow = rng.uniform(1.2, 3.2) * np.array((np.cos(sun), np.sin(sun)))
    _ground(canvas, rubble)
    _coast(canvas)
    roads = _roads(canvas, rubble)
    _buildings(canvas, rubble, roads[0].angle, shadow)
    _trees(canvas, shadow)
    _vehicles(canvas, roads, shadow)
    return _photograph(canvas), canvas.label


def _rubble(canvas: Canvas) -> Field:
    """Broken wood, plaster and brick over the whole picture (3, S, S), to be painted where rubble lies."""
    u, v = canvas.local(WORLD / 2, WORLD / 2, canvas.rng.uniform(0, np.pi))
    chips = canvas.rng.integers(len(_CHIPS), size=(80, 40))
    picked = chips[(u * 0.9).astype(int) % 80, (v * 0.6).astype(int) % 40]
    return np.moveaxis(_CHIPS[picked], -1, 0) * (1 + 0.25 * canvas.noise(40))


def _ground(canvas: Canvas, rubble: Field) -> None:
    rng = canvas.rng
    dryness, soil = rng.uniform(-0.6, 0.8), rng.uniform(-0.5, 0.6)
    canvas.image[:] = np.array((0.27, 0.38, 0.17), np.float32)[:, None, None]
    canvas.paint(np.clip(0.5 + canvas.noise(4) + dryness, 0, 1), (0.53, 0.50, 0.31))
    canvas.paint(np.clip(1.6 * (canvas.noise(7) + canvas.noise(18) / 2 - 0.3 + soil / 2), 0, 0.9), (0.50, 0.40, 0.30))
    canvas.image *= 1 + 0.12 * canvas.noise(32) + 0.10 * canvas.noise(60)
    if rng.random() < 0.5:
        canvas.paint(np.clip(4 * (canvas.noise(6) + canvas.noise(36) - 1.0), 0, 0.9), rubble)


def _coast(canvas: Canvas) -> None:
    """Water behind a beach: the sea from one side, or ponds."""
    rng = canvas.rng
    if rng.random() > 0.45:
        return
    level = 7 * canvas.noise(4) + 1.2 * canvas.noise(14)
    if rng.random() < 0.7:
        u, _ = canvas.local(WORLD / 2, WORLD / 2, rng.uniform(0, 2 * np.pi))
        level += u + np.float32(rng.uniform(2, 22))
    else:
        level = 2 * level + np.float32(rng.uniform(4, 8))
    if rng.random() < 0.65:
        beach = canvas.cover(level - np.float32(rng.uniform(3, 9)))
        canvas.paint(beach, np.array((0.80, 0.72, 0.55))[:, None, None] * (1 + 0.07 * canvas.noise(50)), SAND)
    murk = rng.random()
    deep = (1 - murk) * np.array((0.10, 0.27, 0.36)) + murk * np.array((0.36, 0.33, 0.24))
    ripples = 1 + 0.10 * canvas.noise(26) + 0.10 * canvas.noise(8)
    canvas.paint(canvas.cover(level), deep[:, None, None] * ripples, WATER)
    canvas.paint(0.5 * canvas.cover(np.abs(level + 0.5) - 0.6), (0.85, 0.87, 0.84))  # surf, or a muddy rim's glint


def _roads(canvas: Canvas, rubble: Field) -> list[_Road]:
    rng = canvas.rng
    x, y = rng.uniform(WORLD / 4, 3 * WORLD / 4, 2)
    first = _Road(x, y, rng.uniform(0, np.pi), rng.uniform(2.6, 4.2))
    roads = [first]
    if rng.random() < 0.45:
        roads.append(first._replace(angle=first.angle + np.pi / 2, half_width=rng.uniform(2.2, 3.4)))
    grey = rng.uniform(0.36, 0.58)
    for road in roads:
        u, v = canvas.local(road.x, road.y, road.angle)
        edge = np.abs(v) - np.float32(road.half_width)
        canvas.paint(0.6 * canvas.cover(edge - 0.8), (0.62, 0.60, 0.55))
        asphalt = grey * (1 + 0.08 * canvas.noise(44) + 0.06 * canvas.noise(9))
        canvas.paint(canvas.cover(edge), np.stack((asphalt, asphalt, asphalt * 0.98)), CLEAR)
        dashes = canvas.cover(box(u % 7 - 3.5, v, 1.7, 0.2))
        canvas.paint(0.7 * dashes, (0.86, 0.82, 0.62))
        if rng.random() < 0.6:
            middle, half_length = rng.uniform(-18, 18), rng.uniform(5, 11)
            blocked = np.maximum(edge, np.abs(u - np.float32(middle)) - np.float32(half_length))
            canvas.label[(blocked < 0) & (canvas.label == CLEAR)] = BLOCKED
            lying = np.clip(1.1 + 2.5 * (canvas.noise(20) + canvas.noise(45) / 2), 0, 1)
            canvas.paint(canvas.cover(blocked - 0.8) * lying, rubble)
    return roads


def _buildings(canvas: Canvas, rubble: Field, angle: float, shadow: NDArray[np.float64]) -> None:
    """Houses along the first road's direction, each with a grade of damage, some with a pool behind."""
    rng = canvas.rng
    storm = rng.dirichlet((2.4, 1.6, 1.5, 1.4))  # a neighbourhood shares its fate, roughly
    for _ in range(rng.integers(3, 8)):
        half_u, half_v = rng.uniform(4.5, 9.5), rng.uniform(3.8, 7)
        turn = angle + rng.choice((0, np.pi / 2)) + rng.normal(0, 0.08)
        place = _free_place(canvas, half_u + 1.2, half_v + 1.2, turn, tries=5)
        if place is None:
            continue
        grade = int(rng.choice((INTACT, MINOR, MAJOR, DESTROYED), p=storm))
        if grade != DESTROYED:
            u, v = canvas.local(place[0] + shadow[0], place[1] + shadow[1], turn)
            canvas.shade(canvas.cover(box(u, v, half_u, half_v)), 0.5)
        u, v = canvas.local(*place, turn)
        edge = box(u, v, half_u, half_v)
        if grade == DESTROYED:
            canvas.paint(canvas.cover(edge + 2.2 * canvas.noise(14) + canvas.noise(40)), rubble, DESTROYED)
            slab = canvas.cover(edge + 3.5 + 3 * canvas.noise(9))
            canvas.paint(0.55 * slab * (canvas.noise(20) > 0), (0.62, 0.60, 0.57), DESTROYED)
        else:
            _roof(canvas, rubble, edge, u, v, grade, shadow, turn)
        if grade < MAJOR and rng.random() < 0.5:
            _pool(canvas, place, turn, half_v)


def _free_place(canvas: Canvas, half_u: float, half_v: float, turn: float, tries: int) -> tuple[float, float] | None:
    """A centre where a rectangle covers nothing but ground, or None."""
    grid = np.linspace(-1, 1, 5)
    du, dv = np.meshgrid(grid * half_u, grid * half_v)
    dx, dy = np.cos(turn) * du - np.sin(turn) * dv, np.sin(turn) * du + np.cos(turn) * dv
    for x, y in canvas.rng.uniform(2, WORLD - 2, (tries, 2)):
        if not canvas.label_at(x + dx, y + dy).any():
            return float(x), float(y)
    return None


def _roof(
    canvas: Canvas, rubble: Field, edge: Field, u: Field, v: Field, grade: int, shadow: NDArray[np.float64], turn: float
) -> None:
    """A gable roof; where the storm tore it open, rafters, darkness or a tarpaulin show."""
    rng = canvas.rng
    colour = np.array(_ROOFS[rng.integers(len(_ROOFS))]) * rng.uniform(0.85, 1.1)
    sunny = -np.sign(-np.sin(turn) * shadow[0] + np.cos(turn) * shadow[1])  # which side of the ridge faces the sun
    tiles = 1 + 0.14 * np.sign(v) * sunny + 0.05 * np.sin(u * 3.1) + 0.05 * canvas.noise(40)
    ragged = 1.6 * canvas.noise(22) if grade == MAJOR else 0
    canvas.paint(canvas.cover(edge + ragged), colour[:, None, None] * tiles, grade)
    canvas.paint(0.35 * canvas.cover(np.abs(v) - 0.3) * canvas.cover(edge), colour * 1.3)
    if grade == INTACT:
        if rng.random() < 0.4:  # an air conditioner or a skylight, so that a spot on a roof is not damage as such
            spot = canvas.cover(box(u - np.float32(rng.uniform(-3, 3)), v - np.float32(rng.uniform(-2, 2)), 0.8, 0.8))
            canvas.paint(spot * canvas.cover(edge), (0.85, 0.85, 0.83))
        return
    share = 0.18 if grade == MINOR else 0.58
    torn = canvas.noise(13) + 0.5 * canvas.noise(26)
    inside = edge < -0.3
    if not inside.any():
        return
    hole = torn > np.quantile(torn[inside], 1 - share)
    rafters = np.where(np.sin(u * 2.4) > 0.1, np.float32(1), np.float32(0.15))
    attic = np.multiply.outer(np.array(_WOOD, np.float32), rafters) + np.multiply.outer(np.array(_DARK), 1 - rafters)
    if grade == MAJOR:
        attic = np.where(canvas.noise(18) > 0.15, rubble, attic)
    canvas.paint(canvas.cover(edge) * hole, attic)
    if grade == MINOR and rng.random() < 0.35:
        patch = box(u - np.float32(rng.uniform(-4, 4)), v - np.float32(rng.uniform(-2, 2)), *rng.uniform(1.3, 2.6, 2))
        canvas.paint(canvas.cover(np.maximum(patch, edge)), _TARPAULIN)


def _pool(canvas: Canvas, house: tuple[float, float], turn: float, half_v: float) -> None:
    rng = canvas.rng
    away = (half_v + rng.uniform(4, 6)) * rng.choice((-1, 1))
    x, y = house[0] - np.sin(turn) * away, house[1] + np.cos(turn) * away
    if canvas.label_at(x + np.array((-2, 2, 0, 0, 0)), y + np.array((0, 0, -2, 2, 0))).any():
        return
    u, v = canvas.local(x, y, turn)
    half_u, half_w = rng.uniform(2.2, 4), rng.uniform(1.6, 2.4)
    edge = (
        (np.sqrt((u / half_u) ** 2 + (v / half_w) ** 2) - 1) * half_w
        if rng.random() < 0.4
        else box(u, v, half_u, half_w)
    )
    free = canvas.label == BACKGROUND
    canvas.paint(canvas.cover(edge - 0.9) * free, (0.80, 0.78, 0.73))
    clean = rng.random()
    water = clean * np.array((0.20, 0.62, 0.74)) + (1 - clean) * np.array((0.22, 0.42, 0.38))
    canvas.paint(canvas.cover(edge) * free, water[:, None, None] * (1 + 0.08 * canvas.noise(30)), POOL)


def _trees(canvas: Canvas, shadow: NDArray[np.float64]) -> None:
    """Crowns of all sizes, some stripped brown by the wind, on whatever ground is free."""
    rng = canvas.rng
    count = int(rng.choice((4, 9, 16, 26), p=(0.25, 0.35, 0.25, 0.15)))
    at = rng.uniform(0, WORLD, (count, 2))
    radius = rng.uniform(1.8, 5, count).astype(np.float32)
    keep = _ROOTED[canvas.label_at(at[:, 0], at[:, 1])]
    at, radius = at[keep].astype(np.float32), radius[keep]
    if not len(at):
        return
    ragged = 0.8 * canvas.noise(30) + 0.5 * canvas.noise(50)

    def crowns(offset: NDArray[np.float64]) -> tuple[Field, NDArray[np.intp]]:
        dx = canvas.x - (at[:, 0] + np.float32(offset[0]))[:, None, None]
        dy = canvas.y - (at[:, 1] + np.float32(offset[1]))[:, None, None]
        distance = np.sqrt(dx**2 + dy**2) - radius[:, None, None]
        nearest = distance.argmin(axis=0)
        return np.take_along_axis(distance, nearest[None], axis=0)[0] + ragged, nearest

    canvas.shade(canvas.cover(crowns(shadow)[0]), 0.45)
    edge, nearest = crowns(np.zeros(2))
    stripped = rng.beta(0.8, 2, len(at)).astype(np.float32)
    green, brown = np.array((0.13, 0.27, 0.10), np.float32), np.array((0.36, 0.30, 0.22), np.float32)
    tones = green[:, None] * (1 - stripped) + brown[:, None] * stripped
    sunward = -(shadow / np.hypot(*shadow)).astype(np.float32)
    lit = ((canvas.x - at[nearest, 0]) * sunward[0] + (canvas.y - at[nearest, 1]) * sunward[1]) / radius[nearest]
    leaves = 1 + 0.35 * lit + 0.35 * canvas.noise(45)
    canvas.paint(canvas.cover(edge), tones[:, nearest] * leaves, TREE)


def _vehicles(canvas: Canvas, roads: list[_Road], shadow: NDArray[np.float64]) -> None:
    rng = canvas.rng
    for _ in range(rng.poisson(3)):
        road = roads[rng.integers(len(roads))]
        along, across = rng.uniform(-26, 26), rng.choice((-1, 1)) * road.half_width * rng.uniform(0.35, 2.2)
        x = road.x + np.cos(road.angle) * along - np.sin(road.angle) * across
        y = road.y + np.sin(road.angle) * along + np.cos(road.angle) * across
        under = canvas.label_at(x, y)
        if not under.size or not _DRIVABLE[under].all():
            continue
        turn = road.angle + rng.normal(0, 0.12)
        u, v = canvas.local(x + 0.25 * shadow[0], y + 0.25 * shadow[1], turn)
        canvas.shade(canvas.cover(box(u, v, 2.4, 1.2)), 0.5)
        u, v = canvas.local(x, y, turn)
        paint = np.array(_CARS[rng.integers(len(_CARS))])
        canvas.paint(canvas.cover(box(u, v, 2.4, 1.2)), paint, VEHICLE)
        canvas.paint(0.8 * canvas.cover(box(np.abs(u) - 1.1, v, 0.4, 0.9)), (0.12, 0.14, 0.17))  # windscreens


def _photograph(canvas: Canvas) -> NDArray[np.uint8]:
    """What the camera makes of the scene: clouds, haze, colour of the light, exposure, sensor noise."""
    rng, image = canvas.rng, canvas.image
    if rng.random() < 0.4:
        image *= 1 - np.float32(rng.uniform(0.2, 0.45)) * np.clip(0.5 + 2 * canvas.noise(3), 0, 1)
    warmth = rng.normal(0, 0.04)
    image *= np.array((1 + warmth, 1, 1 - warmth), np.float32)[:, None, None] * np.float32(rng.uniform(0.7, 1.2))
    haze = np.float32(rng.uniform(0, 0.22) ** 1.2)
    image += haze * (0.75 - image)
    image += np.float32(rng.uniform(0.008, 0.03)) * rng.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
