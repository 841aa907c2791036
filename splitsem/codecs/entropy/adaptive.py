"""Adaptive binary range coder, compiled by numba: side information of any size, and whole small tensors.

No tables travel: each binary decision has a probability that both ends adapt alike (integers only). A symbol takes
about 60 ns, so this coder serves where a table would cost more than it saves. Carries propagate as in LZMA's range
coder (Martin 1979; Pavlov). Reading past the end gives zeros: trailing zeros are not sent, and every decoder stops.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for speed, without the GIL; kept on disk wherever numba finds a folder that it may write to."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no such folder: package and home are read-only, as in some containers
        return numba.njit(nogil=True)(function)


# mypy: ignore-errors
# numba infers the types; all of a file's kernels stay in it, because numba's disk cache looks at one file only


_LOW, _RANGE, _CACHE, _PENDING, _POS, _FULL = range(6)  # encoder state
_CODE = 0  # decoder state shares _RANGE and _POS
_TOP = 1 << 24
# adaptation: after n observations a probability moves by 1 / (n + 1.6), at least 1 / 90
_RATE = np.array([int(65536 / (n + 1.6)) for n in range(90)], dtype=np.int64)
# trust in a context's own probability after n observations, in 32nds; the rest goes to the context-free one
_TRUST = np.array([min(30, 4 + int(26 * n / (n + 6))) if n else 0 for n in range(90)], dtype=np.int64)
_MOST_LEVELS = 16
_INT_CONTEXTS = 16
_INT_SLOTS = 64


@kernel
def _new_encoder():
    state = np.zeros(6, np.int64)
    state[_RANGE] = 0xFFFFFFFF
    state[_PENDING] = 1
    return state


@kernel
def _shift_low(state, out):
    low = state[_LOW]
    if low < 0xFF000000 or low > 0xFFFFFFFF:
        carry = low >> 32
        byte = state[_CACHE]
        while state[_PENDING] > 0:
            if state[_POS] < out.size:
                out[np.uint64(state[_POS])] = (byte + carry) & 0xFF
                state[_POS] += 1
            else:
                state[_FULL] = 1
            byte = 0xFF
            state[_PENDING] -= 1
        state[_CACHE] = (low >> 24) & 0xFF
    state[_PENDING] += 1
    state[_LOW] = (low & 0x00FFFFFF) << 8


@kernel
def _put(state, out, bit, zero):
    """Code one bit whose probability of being 0 is ``zero / 2^15``."""
    bound = (state[_RANGE] >> 15) * zero
    if bit == 0:
        state[_RANGE] = bound
    else:
        state[_LOW] += bound
        state[_RANGE] -= bound
    while state[_RANGE] < _TOP:
        state[_RANGE] <<= 8
        _shift_low(state, out)


@kernel
def _finish(state, out):
    for _ in range(5):
        _shift_low(state, out)
    if state[_FULL]:
        return -1
    end = state[_POS] - 1
    for k in range(end):  # the first byte only ever receives a carry that cannot come: it is not sent
        out[k] = out[k + 1]
    while end > 1 and out[end - 1] == 0:
        end -= 1
    return end


@kernel
def _new_decoder(data):
    state = np.zeros(6, np.int64)
    state[_RANGE] = 0xFFFFFFFF
    for k in range(4):
        state[_CODE] = (state[_CODE] << 8) | (np.int64(data[k]) if k < data.size else 0)
    state[_POS] = 4
    return state


@kernel
def _get(state, data, zero):
    bound = (state[_RANGE] >> 15) * zero
    bit = 0
    if state[_CODE] < bound:
        state[_RANGE] = bound
    else:
        state[_CODE] -= bound
        state[_RANGE] -= bound
        bit = 1
    while state[_RANGE] < _TOP:
        state[_RANGE] <<= 8
        byte = np.int64(data[np.uint64(state[_POS])]) if state[_POS] < data.size else 0
        state[_CODE] = ((state[_CODE] << 8) | byte) & 0xFFFFFFFF
        state[_POS] += 1
    return bit


@kernel
def _adapt(probs, counts, k, bit):
    """Move the probability of a 0 (16 bit) towards what was seen."""
    k = np.uint64(k)  # unsigned indices spare numba's test for negative ones
    n = np.uint64(counts[k])
    target = 65535 if bit == 0 else 0
    probs[k] += ((target - probs[k]) * _RATE[n]) >> 16
    if n < np.uint64(89):
        counts[k] += 1


@kernel
def _clamp15(p16):
    return min(max(p16 >> 1, 32), 32736)


@kernel
def _code_bit(state, data, probs, counts, k, bit, encoding):
    zero = _clamp15(probs[np.uint64(k)])
    if encoding:
        _put(state, data, bit, zero)
    else:
        bit = _get(state, data, zero)
    _adapt(probs, counts, k, bit)
    return bit


@kernel
def _code_int(state, data, probs, counts, context, value, encoding):
    """Adaptive Exp-Golomb code of an integer in [0, 2^20); the value itself when encoding, what was read otherwise."""
    base = context * _INT_SLOTS
    length = 0
    if encoding:
        while (value + 1) >> (length + 1):
            length += 1
    k = 0
    while k < 20 and _code_bit(state, data, probs, counts, base + k, 1 if k < length else 0, encoding):
        k += 1
    result = np.int64(1)
    for j in range(k - 1, -1, -1):
        bit = ((value + 1) >> j) & 1
        slot = base + 20 + 2 * k + (0 if j == k - 1 else 1)
        result = (result << 1) | _code_bit(state, data, probs, counts, slot, bit, encoding)
    return result - 1


@kernel
def _code_model(state, data, lut, classes, num_classes, most_levels, encoding):
    """Code the context model: where ``lut`` steps up, and each plane's class.

    Returns the number of levels; -1 for more than ``most_levels`` or a class that there is not.
    """
    probs = np.full(_INT_CONTEXTS * _INT_SLOTS, 32768, np.int64)
    counts = np.zeros(_INT_CONTEXTS * _INT_SLOTS, np.int64)
    num_levels = np.int64(1)
    if encoding:
        num_levels = np.int64(lut[-1]) + 1
    num_levels = 1 + _code_int(state, data, probs, counts, 0, num_levels - 1, encoding)
    if num_levels > most_levels:
        return np.int64(-1)
    k = 0
    for level in range(1, num_levels):
        gap = np.int64(0)
        if encoding:
            while lut[k + gap] < level:
                gap += 1
        gap = _code_int(state, data, probs, counts, 1, gap, encoding)
        if not encoding:
            lut[k : min(k + gap, lut.size)] = level - 1
        k = min(k + gap, lut.size)
    if not encoding:
        lut[k:] = num_levels - 1
    if num_classes > 1:
        previous = 0
        for p in range(classes.size):
            value = _code_int(state, data, probs, counts, 2 + previous, np.int64(classes[p]), encoding)
            if value >= num_classes:
                return np.int64(-1)
            classes[p] = value
            previous = classes[p]
    return num_levels


@kernel
def code_side(data, lut, classes, num_classes, logs, max_log, encoding):
    """Code the model and the log-frequency tables of a static coder, in place when decoding.

    Returns ``(size, num_levels)``: the bytes written, -1 when they did not fit (0 when decoding), and the levels, -1
    when ``logs`` has not enough rows for them. The first ``num_levels * num_classes`` rows are filled.
    """
    state = _new_encoder() if encoding else _new_decoder(data)
    num_levels = _code_model(state, data, lut, classes, num_classes, logs.shape[0] // num_classes, encoding)
    if num_levels < 0:
        return np.int64(0), num_levels
    probs = np.full(_INT_CONTEXTS * _INT_SLOTS, 32768, np.int64)
    counts = np.zeros(_INT_CONTEXTS * _INT_SLOTS, np.int64)
    for c in range(num_levels * num_classes):
        previous, last = np.int64(0), np.int64(0)
        for s in range(logs.shape[1]):
            context = min(last, 3) + (4 if previous == 0 else 0)
            delta = logs[c, s] - previous
            zigzag = 2 * delta if delta >= 0 else -2 * delta - 1
            zigzag = _code_int(state, data, probs, counts, context, zigzag, encoding)
            delta = zigzag >> 1 if zigzag & 1 == 0 else -((zigzag + 1) >> 1)
            previous = min(max(previous + delta, 0), max_log)
            logs[c, s] = previous
            last = abs(delta)
    return (_finish(state, data) if encoding else np.int64(0)), num_levels


@kernel
def code_symbols(data, symbols, planes, rows, cols, fill, bits, lut, encoding):
    """Code a whole small tensor, bit by bit down a binary tree per context.

    Returns the bytes written, -1 when they did not fit (0 when decoding) or when there are more than 16 levels.
    """
    state = _new_encoder() if encoding else _new_decoder(data)
    classes = np.zeros(1, np.uint8)
    num_levels = _code_model(state, data, lut, classes, 1, _MOST_LEVELS, encoding)
    if num_levels < 0:
        return num_levels
    size = 1 << bits
    probs = np.full((num_levels + 1) * size, 32768, np.int64)
    counts = np.zeros((num_levels + 1) * size, np.int64)
    shared = num_levels * size  # the tree of all contexts together
    i = 0
    for _ in range(planes):
        for r in range(rows):
            left = np.int64(fill)
            for _ in range(cols):
                up = np.int64(symbols[np.uint64(i - cols)]) if r > 0 else np.int64(fill)
                base = np.int64(lut[np.uint64(left + up)]) * size
                symbol = np.int64(symbols[np.uint64(i)])
                node = np.int64(1)
                for b in range(bits - 1, -1, -1):
                    k = np.uint64(base + node)
                    own, all_ = probs[k], probs[np.uint64(shared + node)]
                    zero = _clamp15(all_ + (((own - all_) * _TRUST[np.uint64(counts[k])]) >> 5))
                    bit = (symbol >> b) & 1
                    if encoding:
                        _put(state, data, bit, zero)
                    else:
                        bit = _get(state, data, zero)
                    _adapt(probs, counts, k, bit)
                    _adapt(probs, counts, shared + node, bit)
                    node = (node << 1) | bit
                left = node - size
                symbols[i] = left
                i += 1
    return _finish(state, data) if encoding else np.int64(0)
