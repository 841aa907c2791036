"""MachineRates: what a machine was measured to reach, the two lines of its roofline."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import torch

from splitsem.cost.measure import timed_s
from splitsem.device import Device

_MIN_REPEATS = 3
_MATMUL_SIZE = {"cpu": 1024, "cuda": 8192}
_COPY_BYTES = {"cpu": 1 << 27, "cuda": 1 << 29}  # far more than the caches hold


@dataclass(frozen=True)
class MachineRates:
    """Peak arithmetic and memory rate (Williams, Waterman, Patterson, CACM 52(4), 2009).

    >>> MachineRates(peak_flops_per_s=100e9, memory_bytes_per_s=20e9).knee
    5.0

    Attributes:
        peak_flops_per_s: of a large matrix product, a multiply-add counting two.
        memory_bytes_per_s: of a large copy, what is read and what is written counting both.
    """

    peak_flops_per_s: float
    memory_bytes_per_s: float

    def __post_init__(self) -> None:
        for name in ("peak_flops_per_s", "memory_bytes_per_s"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, got {value}")

    @property
    def knee(self) -> float:
        """FLOP per byte above which work is bound by arithmetic."""
        return self.peak_flops_per_s / self.memory_bytes_per_s

    def roof_flops_per_s(self, flop_per_byte: float) -> float:
        """The most that work of this intensity can reach."""
        return min(self.peak_flops_per_s, flop_per_byte * self.memory_bytes_per_s)


@torch.inference_mode()
def measure_rates(device: Device, budget_s: float = 2.0) -> MachineRates:
    """Measure this machine, in the device's precision and with the threads that are set.

    Both are the best of several runs, for about half the budget each: a roof is what can be reached. What runs from
    caches, or with fewer multiplications than its FLOPs say (Winograd's convolutions), can lie above it.
    """
    where, dtype = device.torch_device, device.dtype
    size = _MATMUL_SIZE[where.type]
    a, b, c = torch.rand((3, size, size), device=where).to(dtype)
    matmul_s = _best_s(lambda: torch.matmul(a, b, out=c), where, budget_s / 2)
    num_bytes = _COPY_BYTES[where.type]
    source = torch.ones(num_bytes, dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    copy_s = _best_s(lambda: target.copy_(source), where, budget_s / 2)
    return MachineRates(2 * size**3 / matmul_s, 2 * num_bytes / copy_s)


def _best_s(call: Callable[[], object], device: torch.device, budget_s: float) -> float:
    timed_s(call, device)  # the first touches fresh memory
    end_s = time.perf_counter() + budget_s
    times_s: list[float] = []
    while len(times_s) < _MIN_REPEATS or time.perf_counter() < end_s:
        times_s.append(timed_s(call, device))
    return min(times_s)
