"""The coding rate of a machine, for its file in conf/hardware/machine: python -m splitsem.cost.coding_rate

Head and tail are arithmetic on arrays, which a machine's peak describes. Coding is integer work of one thread, which it
does not: a GPU board codes no faster than its CPU. This module times a fixed piece of such work, so that a time of
coding that was measured on one machine can be scaled to another. It needs no other package.
"""

import bz2
import functools
import random
import sys
import time

_NUM_BYTES = 1 << 16
_BUDGET_S = 0.3
_MIN_REPEATS = 5


def _kernel() -> bytes:
    """Skewed bytes, as quantised features are: many zeros, few large values; the same on every machine."""
    draw = random.Random(0)
    return bytes(min(255, int(draw.expovariate(0.15))) for _ in range(_NUM_BYTES))


def measure_coding_rate(budget_s: float = _BUDGET_S) -> float:
    """Bytes a second of the reference kernel: bz2, level 9, of the same 65,536 bytes on every machine.

    The library libbz2 1.0.8 (2019) is the same everywhere and has no vector instructions; there are several zlibs.
    The best of several runs counts, in seconds of the processor: other programs, which keep it from a run or slow the
    run down, do not make the machine slower.
    """
    content = _kernel()
    times_s: list[float] = []
    end_s = time.perf_counter() + budget_s
    while len(times_s) < _MIN_REPEATS or time.perf_counter() < end_s:
        began_s = time.thread_time()
        bz2.compress(content, 9)
        times_s.append(time.thread_time() - began_s)
    return len(content) / min(times_s)


@functools.cache
def coding_rate_here() -> float:
    """The rate of this machine, measured on the first call of a process."""
    return measure_coding_rate()


if __name__ == "__main__":
    sys.stdout.write(f"coding_bytes_per_s: {measure_coding_rate(budget_s=3.0):.3g}\n")
