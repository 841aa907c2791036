"""Local: the machine that this process runs on, measured."""

from math import isfinite
from typing import Literal

from splitsem.cost.lut import read_lut
from splitsem.cost.machine import Machine
from splitsem.split.half import Half
from splitsem.cost.measure import measure
from splitsem.cost.roofline import check_power


class Local(Machine):
    """Median wall time of each half on this machine, batch 1, after a warm-up.

    Powers cannot be measured everywhere, so they are given; the energy computed from them stays an estimate.

    Args:
        active_w: power while computing, in watts.
        idle_w: power while waiting, in watts.
        repeats: at most this many timed runs of a half (at least 3).
        warmup: untimed runs before them.
        budget_s: stop repeating after this many seconds a half, so that a sweep stays fast.
        lut: path of a measured latency table; when given, nothing is measured and times come from it alone.
    """

    timing: Literal["roofline", "lut", "measured"]

    def __init__(
        self,
        active_w: float,
        idle_w: float,
        repeats: int = 50,
        warmup: int = 3,
        budget_s: float = 0.2,
        lut: str | None = None,
    ) -> None:
        check_power(active_w, idle_w)
        if repeats < 3:
            raise ValueError(f"repeats must be at least 3, got {repeats}")
        if warmup < 0:
            raise ValueError(f"warmup must not be negative, got {warmup}")
        if not (isfinite(budget_s) and budget_s > 0):
            raise ValueError(f"budget_s must be positive and finite, got {budget_s}")
        self.active_w = active_w
        self.idle_w = idle_w
        self.repeats = repeats
        self.warmup = warmup
        self.budget_s = budget_s
        self._lut = None if lut is None else read_lut(lut)
        self.timing = "measured" if self._lut is None else "lut"

    def time_s(self, half: Half) -> float:
        """Median seconds for one sample through ``half``, measured now, or from the LUT (ConfigError if absent)."""
        if not half.ops:
            return 0.0
        if self._lut is not None:
            return self._lut.time_s(half)
        return measure(half, self.repeats, self.warmup, self.budget_s).median_s
