"""Which configurations are worth having, as far as the scores' intervals can tell."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splitsem.intervals import ci95, half_width

TOLERANCE = 0.02
"""Throughputs without an interval of their own that differ by less than this share are taken as equal."""


class Draws(NamedTuple):
    """What a score's uncertainty is told from.

    Attributes:
        values: the score on bootstrap draws of the samples, or of several trainings, ``(B,)``.
        seeds: of the trainings, in the order of ``values``; empty for bootstrap draws.
    """

    values: NDArray[np.floating]
    seeds: tuple[object, ...] = ()

    @property
    def half_width(self) -> float:
        """Half the 95 % interval: Student's t over seeds, or the central 95 % of the bootstrap draws."""
        return (ci95(self.values.tolist()) or 0.0) if self.seeds else half_width(self.values)

    def is_pair(self, other: "Draws") -> bool:
        """Whether the two were drawn alike, so that their difference, draw by draw, has a meaning."""
        return self.seeds == other.seeds and self.values.shape == other.values.shape


def gaps(
    scores: ArrayLike, draws: Sequence[Draws | None], half_widths: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far each score is above each other score, and half the 95 % interval of that difference, both ``(n, n)``.

    The interval is that of the paired differences where both have draws that pair; else ``√(hᵢ² + hⱼ²)`` of the
    scores' own half widths, as for independent scores.

    Args:
        scores: ``(n,)``.
        draws: of each score; None where there are none.
        half_widths: of each score's own 95 % interval, ``(n,)``; NaN where it has none, which counts as 0.
    """
    score = np.asarray(scores, float)
    own = np.nan_to_num(np.asarray(half_widths, float))
    half = np.hypot(own[:, None], own[None, :])
    np.fill_diagonal(half, 0.0)
    for i, mine in enumerate(draws):
        for j, other in enumerate(draws[:i]):
            if mine is not None and other is not None and mine.is_pair(other):
                half[i, j] = half[j, i] = Draws(mine.values - other.values, mine.seeds).half_width
    return score[:, None] - score[None, :], half


class Front(NamedTuple):
    """What ``front`` finds.

    Attributes:
        kind: ``best``, ``tie`` or nothing for each configuration, ``(n,)``.
        group: number of the group of a best one and its ties, rising with falling throughput; else NaN, ``(n,)``.
    """

    kind: NDArray[np.str_]
    group: NDArray[np.float64]


def front(
    throughput_hz: ArrayLike, gap: NDArray[np.float64], half: NDArray[np.float64], ci95_hz: ArrayLike | None = None
) -> Front:
    """The front of throughput and score with ties, after which no configuration is told apart by noise alone.

    ``i`` is *better* than ``j`` where its score is higher by more than the half width of the difference. The two are
    *equally fast* where their throughputs differ by no more than ``√(cᵢ² + cⱼ²)`` of their intervals, or by 2 % of the
    higher one where either has none.

    1. ``i`` **dominates** ``j`` if it is at least as fast and better; or if it is faster, not equally fast, and their
       scores are equal in every draw. What nobody dominates is on the front.
    2. The front is walked in falling throughput, of equal ones the higher score first. A configuration that is better
       than every leader so far becomes a **leader** (``best``), the first one always. It opens a group; but where
       the last group's fastest member is equally fast, it takes that group's lead over.
    3. Each other one that is equally fast as a leader, and neither better nor worse, is a **tie** in its group: of
       several, the last one. What is slower than all of them is not surely better than any, and has no sign.

    Without intervals and with throughputs further apart than 2 %, the leaders are the Pareto front, and nothing ties.

    Args:
        throughput_hz: ``(n,)``; a configuration whose throughput or score is NaN is not on the front.
        gap: differences of the scores, ``(n, n)``, see ``gaps``.
        half: half widths of their 95 % intervals, ``(n, n)``.
        ci95_hz: half widths of the throughputs' own 95 % intervals, ``(n,)``; NaN where not known.
    """
    hz = np.asarray(throughput_hz, float)
    own_hz = np.full(len(hz), np.nan) if ci95_hz is None else np.asarray(ci95_hz, float)
    better = gap > half
    as_fast = hz[:, None] >= hz[None, :]
    near = equally_fast(hz, own_hz)
    alike = (gap == 0) & (half == 0)
    dominated = (as_fast & (better | alike & ~near)).any(axis=0)
    known = np.isfinite(np.diagonal(gap)) & ~np.isnan(hz)
    kind, group = np.full(len(hz), "", dtype="<U4"), np.full(len(hz), np.nan)
    above = np.nansum(gap, axis=1)  # rises with the score
    leaders: list[int] = []
    fastest: list[int] = []  # of each group
    on_front = np.flatnonzero(known & ~dominated).tolist()
    for i in sorted(on_front, key=lambda i: (-hz[i], -above[i])):
        if better[i, leaders].all():
            if leaders and near[fastest[-1], i]:
                leaders[-1] = i
            else:
                leaders.append(i)
                fastest.append(i)
    for number, leader in enumerate(leaders):
        alike_ones = [i for i in on_front if near[leader, i] and not better[i, leader] and not better[leader, i]]
        kind[alike_ones], group[alike_ones] = "tie", number
    kind[leaders], group[leaders] = "best", np.arange(len(leaders))
    return Front(kind, group)


def equally_fast(hz: NDArray[np.float64], ci95_hz: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which throughputs cannot be told apart, ``(n, n)``; see ``front``."""
    room = np.hypot(ci95_hz[:, None], ci95_hz[None, :])
    room = np.where(np.isnan(room), TOLERANCE * np.maximum(hz[:, None], hz[None, :]), room)
    with np.errstate(invalid="ignore"):
        return (hz[:, None] == hz[None, :]) | (np.abs(hz[:, None] - hz[None, :]) <= room) & np.isfinite(room)
