"""Whether entropy coding pays: the bytes that it saves on the link, against the time that it takes on this machine."""

import functools
import math
import statistics
import time

import numpy as np

from splitsem_device.entropy import maps
from splitsem_device.entropy.bits import packed_size
from splitsem_device.entropy.maps import Octets

_SIZES = 256, 8192  # symbols that the coder is timed on; it is faster on more
_ROUNDS = 7


def pays(symbols: Octets, bit_width: int, rate_bps: float) -> bool:
    """Whether coding, the link and decoding take less time with ``context`` than with ``none``.

    The coder is timed once a process, the other end taken to be as fast; how many bytes it makes is not tried: no more
    than the order-0 entropy says. Near the point where both take alike the answer may differ from process to process.

    Args:
        symbols: uint8, 1-d, below ``2^bit_width``.
        bit_width: 1…8.
        rate_bps: bits a second of the link.
    """
    call_s, symbol_s = _times_s(bit_width)
    coding_s, packed_bytes = call_s + symbol_s * symbols.size, packed_size(symbols.size, bit_width)
    if 8 * packed_bytes <= coding_s * rate_bps:
        return False
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    bits = float(counts @ (math.log2(symbols.size) - np.log2(counts)))
    return 8 * packed_bytes - bits > coding_s * rate_bps


@functools.cache
def _times_s(bit_width: int) -> tuple[float, float]:
    """Seconds for encoding and decoding: a call's own, and for each symbol."""
    few_s, many_s = (_time_s(num, bit_width) for num in _SIZES)
    symbol_s = max((many_s - few_s) / (_SIZES[1] - _SIZES[0]), 0.0)
    return max(few_s - _SIZES[0] * symbol_s, 0.0), symbol_s


def _time_s(num: int, bit_width: int) -> float:
    shape, most = (num // 64, 8, 8), (1 << bit_width) - 1
    spread = np.random.default_rng(0).exponential(most / 8, num)  # features after a ReLU
    symbols = np.minimum(spread, most).astype(np.uint8)
    spent = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        if body := maps.encode(symbols, shape, bit_width, 0):
            maps.decode(memoryview(body), shape, bit_width, 0)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)
