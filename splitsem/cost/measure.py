"""Measurements on this machine: the time of a half, peak arithmetic and memory rates, and what calibrates tables."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, prod

import msgspec
import numpy as np
import torch
from torch import Tensor

from splitsem.json_files import Amount, Count
from splitsem.placement import Placement
from splitsem.splitting.half import Half

_MIN_REPEATS = 3  # a median of fewer runs says nothing, whatever the budget


class Timing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Median and spread of a measured time, in seconds; in a file ``{"median": …, "p10": …, "p90": …}``.

    ``p95_s`` and the ends of the median's 95 % interval are None where a file does not have them.

    >>> Timing.of([3.0, 1.0, 2.0]).median_s
    2.0
    """

    median_s: float = msgspec.field(name="median")
    p10_s: float = msgspec.field(name="p10")
    p90_s: float = msgspec.field(name="p90")
    p95_s: float | None = msgspec.field(name="p95", default=None)
    low_s: float | None = msgspec.field(name="low", default=None)
    high_s: float | None = msgspec.field(name="high", default=None)

    def __post_init__(self) -> None:
        if not 0 <= self.p10_s <= self.median_s <= self.p90_s < float("inf"):
            raise ValueError(
                f"need 0 <= p10 <= median <= p90, all finite, got {self.p10_s}, {self.median_s}, {self.p90_s}"
            )

    @classmethod
    def of(cls, times_s: list[float]) -> "Timing":
        """Median, 10th, 90th and 95th percentile of the given times; the interval is by order statistics.

        >>> Timing.of([4.0, 1.0, 2.0, 3.0, 5.0])
        Timing(median_s=3.0, p10_s=1.4, p90_s=4.6, p95_s=4.8, low_s=1.0, high_s=5.0)
        """
        ranked = np.sort(np.asarray(times_s, dtype=float))
        reach = 0.98 * len(ranked) ** 0.5  # 1.96 standard deviations of the rank of the median
        low, high = int(np.floor(len(ranked) / 2 - reach)), int(np.ceil(len(ranked) / 2 + reach))
        ends = ranked[max(low, 0)], ranked[min(high, len(ranked) - 1)]
        p10_s, median_s, p90_s, p95_s = np.percentile(ranked, [10, 50, 90, 95])
        return cls(*map(float, (median_s, p10_s, p90_s, p95_s, *ends)))


NOTHING = Timing(0.0, 0.0, 0.0)
"""The time of a half that computes nothing."""


@torch.inference_mode()
def measure(half: Half, repeats: int, warmup: int, budget_s: float, pause_s: float = 0.0) -> Timing:
    """Time ``half.module(*half.example)`` where its tensors are, up to ``repeats`` times or ``budget_s`` seconds.

    The caller puts the module into evaluation mode. On a GPU each repeat is synchronised at its start and end. At least
    three repeats are made, even beyond the budget; a half without operations takes no time. ``pause_s`` of idleness
    before each repeat gives the time of a frame that arrives alone, not that of a hot loop.
    """
    if not half.ops:
        return NOTHING
    deadline_s = time.perf_counter() + budget_s
    for _ in range(warmup):
        half.module(*half.example)
        _synchronise(half.example)
        if time.perf_counter() > deadline_s:  # so slow a half is warm by now
            break
    times_s: list[float] = []
    deadline_s = time.perf_counter() + budget_s
    while len(times_s) < repeats and (len(times_s) < _MIN_REPEATS or time.perf_counter() < deadline_s):
        if pause_s:
            time.sleep(pause_s)
        _synchronise(half.example)
        start_s = time.perf_counter()
        half.module(*half.example)
        _synchronise(half.example)
        times_s.append(time.perf_counter() - start_s)
    return Timing.of(times_s)


def timed_s(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call whose work is on ``device``, synchronised at both ends."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start_s = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start_s


def _synchronise(tensors: tuple[Tensor, ...]) -> None:
    """Wait until the GPU that holds the tensors, if one does, has nothing left to do."""
    for device in {tensor.device for tensor in tensors if tensor.is_cuda}:
        torch.cuda.synchronize(device)


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
        memory_bytes_per_s: of a large copy, the bytes read plus the bytes written.
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


@torch.inference_mode()
def measure_rates(placement: Placement, budget_s: float = 2.0) -> MachineRates:
    """Measure this machine, in the placement's precision and with the threads that are set.

    Each rate is the best of several short runs, for about half the budget: a roof is what can be reached, also where
    other programs disturb. Work from caches, or with fewer multiplications than its FLOPs say (Winograd's
    convolutions), can lie above the roof.
    """
    where, dtype = placement.torch_device, placement.dtype
    size = 8192 if where.type == "cuda" else 512 if torch.get_num_threads() <= _FEW_THREADS else 2048
    a, b, c = torch.rand((3, size, size), device=where).to(dtype)
    matmul_s = _best_s([lambda: torch.matmul(a, b, out=c)], where, budget_s / 2)
    num_bytes = _COPY_BYTES[where.type]
    source = torch.ones(num_bytes, dtype=torch.uint8, device=where)
    target = torch.empty_like(source)
    num_parts = _COPY_PARTS[where.type]
    parts = zip(target.chunk(num_parts), source.chunk(num_parts), strict=True)
    copies = [functools.partial(to.copy_, part) for to, part in parts]  # in turns, so that no part is in a cache
    copy_s = _best_s(copies, where, budget_s / 2)
    return MachineRates(2 * size**3 / matmul_s, 2 * num_bytes / num_parts / copy_s)


def _best_s(calls: Sequence[Callable[[], object]], device: torch.device, budget_s: float) -> float:
    """The shortest time of any of the calls, which take turns."""
    for call in calls:
        call()  # a first call touches fresh memory
    end_s = time.perf_counter() + budget_s
    times_s: list[float] = []
    while len(times_s) < _MIN_REPEATS or time.perf_counter() < end_s:
        times_s.append(timed_s(calls[len(times_s) % len(calls)], device))
    return min(times_s)


class ChainTime(msgspec.Struct, frozen=True):
    """One deployed network, timed end to end.

    Attributes:
        gammas: γ of each unit.
        time: of the whole network in one go, one sample.
        sum_s: the sum of the isolated times of the network's units.
    """

    gammas: tuple[Count, ...]
    time: Timing = msgspec.field(name="time_s")
    sum_s: Amount

    def __post_init__(self) -> None:
        if not (isfinite(self.sum_s) and self.sum_s > 0 and self.time.median_s > 0):
            raise ValueError(f"both times must be positive and finite, got {self.time.median_s} and {self.sum_s}")

    @property
    def ratio(self) -> float:
        """Time of the whole network ÷ sum of its units."""
        return self.time.median_s / self.sum_s


@dataclass(frozen=True)
class Calibration:
    """What several deployed networks say about a table of isolated units.

    Attributes:
        chains: the networks, at least one.
    """

    chains: Sequence[ChainTime]

    def __post_init__(self) -> None:
        if not self.chains:
            raise ValueError("chains must hold at least one network, got none")

    @property
    def factor(self) -> float:
        """Geometric mean of the networks' ratios: the factor on isolated times."""
        return prod(chain.ratio for chain in self.chains) ** (1 / len(self.chains))

    @property
    def worst_error(self) -> float:
        """Largest relative error of the networks' times after the factor."""
        return max(abs(self.factor / chain.ratio - 1) for chain in self.chains)
