"""Roofline: a modelled machine, from its peak arithmetic and memory rates."""

from math import isfinite
from typing import Literal

from splitsem.cost.lut import read_lut
from splitsem.cost.machine import Machine
from splitsem.split.half import Half


class Roofline(Machine):
    """``time = Σ over ops of max(flops / (efficiency · peak), bytes / memory rate) + overhead``.

    The roofline model (Williams, Waterman, Patterson, CACM 52(4), 2009), operation by operation: each one is bound by
    arithmetic or by memory, never overlaps with its neighbours, and costs a fixed overhead to launch. An operation
    that neither computes nor moves a byte (a view) is free.

    Args:
        peak_flops_per_s: peak FP32 rate of the whole chip, a multiply-add counting two.
        memory_bytes_per_s: sustained (not nominal) DRAM bandwidth.
        active_w: power while computing, in watts.
        idle_w: power while waiting, in watts.
        efficiency: fraction of the peak that batch-1 FP32 convolutions reach; applies to arithmetic only.
        overhead_s: launch and dispatch of one operation, in seconds.
        lut: path of a measured latency table (see splitsem.cost.lut); when given, times come from it alone.
    """

    timing: Literal["roofline", "lut", "measured"]

    def __init__(
        self,
        peak_flops_per_s: float,
        memory_bytes_per_s: float,
        active_w: float,
        idle_w: float,
        efficiency: float = 1.0,
        overhead_s: float = 0.0,
        lut: str | None = None,
    ) -> None:
        for name, value in {"peak_flops_per_s": peak_flops_per_s, "memory_bytes_per_s": memory_bytes_per_s}.items():
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if not 0 < efficiency <= 1:
            raise ValueError(f"efficiency must be above 0 and at most 1, got {efficiency}")
        if not (isfinite(overhead_s) and overhead_s >= 0):
            raise ValueError(f"overhead_s must be finite and not negative, got {overhead_s}")
        check_power(active_w, idle_w)
        self.peak_flops_per_s = peak_flops_per_s
        self.memory_bytes_per_s = memory_bytes_per_s
        self.active_w = active_w
        self.idle_w = idle_w
        self.efficiency = efficiency
        self.overhead_s = overhead_s
        self._lut = None if lut is None else read_lut(lut)
        self.timing = "roofline" if self._lut is None else "lut"

    @property
    def knee(self) -> float:
        """FLOP per byte above which an operation is bound by arithmetic: ``efficiency · peak / memory rate``."""
        return self.efficiency * self.peak_flops_per_s / self.memory_bytes_per_s

    def time_s(self, half: Half) -> float:
        """Seconds for one sample through ``half``; from the LUT if there is one (ConfigError if absent)."""
        if not half.ops:
            return 0.0
        if self._lut is not None:
            return self._lut.time_s(half)
        return sum(self._op_s(op.flops, op.bytes) for op in half.ops)

    def _op_s(self, flops: float, num_bytes: float) -> float:
        if flops == 0 and num_bytes == 0:
            return 0.0
        compute_s = flops / (self.efficiency * self.peak_flops_per_s)
        return max(compute_s, num_bytes / self.memory_bytes_per_s) + self.overhead_s


def check_power(active_w: float, idle_w: float) -> None:
    """Raise ValueError unless ``0 <= idle_w <= active_w`` and both are finite."""
    if not (isfinite(active_w) and 0 <= idle_w <= active_w):
        raise ValueError(f"need 0 <= idle_w <= active_w, both finite, got idle_w={idle_w} and active_w={active_w}")
