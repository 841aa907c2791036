"""Measured time of one half on this machine: warm-up, repeats, synchronised, median and spread."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from splitsem.split.half import Half

_MIN_REPEATS = 3  # a median of fewer says nothing, whatever the budget


@dataclass(frozen=True)
class Timing:
    """Median and spread of a measured time, in seconds.

    >>> Timing.of([3.0, 1.0, 2.0]).median_s
    2.0
    """

    median_s: float
    p10_s: float
    p90_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.p10_s <= self.median_s <= self.p90_s < float("inf"):
            raise ValueError(
                f"need 0 <= p10 <= median <= p90, all finite, got {self.p10_s}, {self.median_s}, {self.p90_s}"
            )

    @classmethod
    def of(cls, times_s: list[float]) -> "Timing":
        """Median, 10th and 90th percentile of the given times."""
        p10_s, median_s, p90_s = np.percentile(times_s, [10, 50, 90])
        return cls(median_s=float(median_s), p10_s=float(p10_s), p90_s=float(p90_s))


NOTHING = Timing(0.0, 0.0, 0.0)
"""The time of a half that computes nothing."""


@torch.inference_mode()
def measure(half: Half, repeats: int, warmup: int, budget_s: float, pause_s: float = 0.0) -> Timing:
    """Time ``half.module(*half.example)`` where its tensors are, up to ``repeats`` times or ``budget_s`` seconds.

    The module runs as it is: whoever made it has put it into evaluation mode. On a GPU each repeat is synchronised at
    both ends. At least three repeats are made, even beyond the budget; a half without operations takes no time at all.
    With ``pause_s`` of idleness before each repeat it is met as by a frame that arrives alone, not as in a hot loop.
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
