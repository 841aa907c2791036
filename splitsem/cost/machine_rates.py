"""MachineRates: what a machine was measured to reach, the two lines of its roofline."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import torch

from splitsem.cost.measure import timed_s
from splitsem.device import Device

_MIN_REPEATS = 3
_FEW_THREADS = 4
_COPY_BYTES = {"cpu": 1 << 27, "cuda": 1 << 29}  # far more than the caches hold
_COPY_PARTS = {"cpu": 8, "cuda": 1}


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

    Both are the best of several short runs, for about half the budget each: a roof is what can be reached, also where
    other programs disturb. What runs from caches, or with fewer multiplications than its FLOPs say (Winograd's
    convolutions), can lie above it.
    """
    where, dtype = device.torch_device, device.dtype
    size = 8192 if where.type == "cuda" else 512 if torch.get_num_threads() <= _FEW_THREADS else 2048
    a, b, c = torch.rand((3, size, size), device=where).to(dtype)
    matmul_s = _best_s([lambda: torch.matmul(a, b, out=c)], where, budget_s / 2)
    num_bytes = _COPY_BYTES[where.type]
    source = torch.ones(num_bytes, dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    num_parts = _COPY_PARTS[where.type]
    parts = zip(target.chunk(num_parts), source.chunk(num_parts), strict=True)
    copies = [functools.partial(to.copy_, part) for to, part in parts]  # in turns, so that none finds itself in a cache
    copy_s = _best_s(copies, where, budget_s / 2)
    return MachineRates(2 * size**3 / matmul_s, 2 * num_bytes / num_parts / copy_s)


def _best_s(calls: Sequence[Callable[[], object]], device: torch.device, budget_s: float) -> float:
    """The shortest time of any of the calls, which take turns."""
    for call in calls:
        call()  # the first touches fresh memory
    end_s = time.perf_counter() + budget_s
    times_s: list[float] = []
    while len(times_s) < _MIN_REPEATS or time.perf_counter() < end_s:
        times_s.append(timed_s(calls[len(times_s) % len(calls)], device))
    return min(times_s)
