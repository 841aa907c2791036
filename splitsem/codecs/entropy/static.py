"""Static-table rANS over context-selected integer tables, compiled by numba: fast, for large tensors.

Every kernel walks the symbols as ``planes × rows × cols``. The context of a symbol is
``classes[plane] * num_levels + lut[left + up]``, neighbours outside the plane counting as ``fill``; order 0 is the
case of one class and one level. Four interleaved 32-bit states, 16-bit words (Duda 2014, arXiv 1311.2540; interleaving:
Giesen 2014, arXiv 1402.3392). Decoding uses integers only and cannot leave its arrays, whatever the bytes say.
"""

# mypy: ignore-errors
# numba infers the types; all of a file's kernels stay in it, because numba's disk cache looks at one file only

import numpy as np

from splitsem.codecs.entropy.adaptive import kernel

LOWEST_STATE = 1 << 16  # states live in [2^16, 2^32)
NUM_STATES = 4
# 1024 · 2^(k/8): frequencies travel as logarithms in eighths of an octave
_MANTISSA = np.array([1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878], dtype=np.int64)
MAX_LOG = 8 * 30
_N_LOG_N = np.arange(1024) * np.log2(np.maximum(np.arange(1024), 1))


@kernel
def sum_histogram(symbols, planes, rows, cols, fill, num_symbols, stride):
    """Every ``stride``-th row: how often each left + up occurs, and each plane's Σ|symbol − fill|.

    Returns int64 ``(2 * num_symbols - 1,)`` and ``(planes,)``.
    """
    hist = np.zeros(2 * num_symbols - 1, np.int64)
    activity = np.zeros(planes, np.int64)
    for p in range(planes):
        distance = np.int64(0)
        for r in range(0, rows, stride):
            i = (p * rows + r) * cols
            left = fill
            for _ in range(cols):
                up = np.int64(symbols[np.uint64(i - cols)]) if r > 0 else fill
                hist[np.uint64(left + up)] += 1
                left = np.int64(symbols[np.uint64(i)])
                distance += abs(left - fill)
                i += 1
        activity[p] = distance
    return hist, activity


@kernel
def context_histogram(symbols, planes, rows, cols, fill, lut, num_levels, classes, num_classes, num_symbols):
    """How often each symbol follows each context: int64 ``(num_classes * num_levels, num_symbols)``."""
    hist = np.zeros(num_classes * num_levels * num_symbols, np.int64)
    i = 0
    for p in range(planes):
        base = classes[p] * num_levels
        for r in range(rows):
            left = fill
            for _ in range(cols):
                up = np.int64(symbols[np.uint64(i - cols)]) if r > 0 else fill
                left_now = np.int64(symbols[np.uint64(i)])
                hist[np.uint64((base + lut[np.uint64(left + up)]) * num_symbols + left_now)] += 1
                left = left_now
                i += 1
    return hist.reshape(num_classes * num_levels, num_symbols)


@kernel
def _n_log_n(count):
    return _N_LOG_N[count] if count < _N_LOG_N.size else count * np.log2(count)


@kernel
def _model_bits(hist, num_classes, num_levels, bits_per_entry):
    cost = 0.0
    for c in range(num_classes):
        for level in range(num_levels):
            total = np.int64(0)
            for s in range(hist.shape[2]):
                count = hist[c, level, s]
                if count > 0:
                    cost += bits_per_entry - _n_log_n(count)
                    total += count
            cost += _n_log_n(total)
    return cost


@kernel
def _add_rows(hist, to_class, from_class, num_levels):
    for level in range(num_levels):
        for s in range(hist.shape[2]):
            hist[to_class, level, s] += hist[from_class, level, s]


@kernel
def _halve_rows(hist, c, num_levels):
    for level in range((num_levels + 1) // 2):
        for s in range(hist.shape[2]):
            other = hist[c, 2 * level + 1, s] if 2 * level + 1 < num_levels else 0
            hist[c, level, s] = hist[c, 2 * level, s] + other


@kernel
def merge_costs(hist, bits_per_entry):
    """Bits for symbols and tables when contexts are merged: float64 ``(2, 8)``, infinite where not offered.

    Entry ``[0, k]`` keeps the classes, ``[1, k]`` merges them; every ``2^k`` neighbouring levels share one table.
    ``bits_per_entry`` is what one entry of a table is taken to cost.
    """
    costs = np.full((2, 8), np.inf)
    num_classes = hist.shape[0]
    for merged in range(2):
        work = hist.copy()
        num_kept = 1 if merged == 1 else num_classes
        if merged == 1:
            for c in range(1, num_classes):
                _add_rows(work, 0, c, hist.shape[1])
        levels = hist.shape[1]
        for k in range(8):
            costs[merged, k] = _model_bits(work, num_kept, levels, bits_per_entry)
            if levels == 1:
                break
            for c in range(num_kept):
                _halve_rows(work, c, levels)
            levels = (levels + 1) // 2
    return costs


@kernel
def choose_logs(hist, step):
    """Log-frequencies that cost least in all: coded symbols plus the table's own bits (greedy along the alphabet).

    0 means absent; otherwise the weight is ``2^((log - 1) * step / 8)``.
    """
    num_contexts, num_symbols = hist.shape
    logs = np.zeros((num_contexts, num_symbols), np.int64)
    max_log = MAX_LOG // step
    weights = np.zeros(max_log + 1, np.float64)
    log2 = np.zeros(max_log + 1, np.float64)
    for log in range(1, max_log + 1):
        log2[log] = np.log2(log)
        weights[log] = 2.0 ** ((log - 1) * step / 8.0)
    for c in range(num_contexts):
        previous = 0
        for s in range(num_symbols):
            count = hist[c, s]
            log_count = np.log2(count) if count > 0 else 0.0
            target = 0 if count == 0 else 1 + int(8.0 / step * log_count + 0.5)
            target = min(target, max_log)
            low, high = min(previous, target), max(previous, target)
            low, high = max(low, target - 12), min(high, target + 12)
            if count > 0:
                low, high = max(low, 1), max(high, 1)
            best, best_cost = target, np.inf
            for log in range(low, high + 1):
                cost = 1.4427 * (weights[log] - count)  # Poisson deviance in bits, up to a constant
                if count > 0:
                    cost += count * (log_count - (log - 1) * step / 8.0)
                delta = abs(log - previous)
                cost += 0.5 if delta == 0 else 1.5 + 2.0 * log2[delta]  # what the Exp-Golomb code takes, about
                if cost < best_cost:
                    best, best_cost = log, cost
            logs[c, s] = best
            previous = best
    return logs


@kernel
def frequencies(logs, step, bits):
    """Integer frequencies of each context, summing to ``2^bits``: int64, the shape of ``logs``. Integers only."""
    num_contexts, num_symbols = logs.shape
    total = np.int64(1) << bits
    freq = np.zeros((num_contexts, num_symbols), np.int64)
    for c in range(num_contexts):
        weight_sum = np.int64(0)
        for s in range(num_symbols):
            if logs[c, s] > 0:
                e = min((logs[c, s] - 1) * step, MAX_LOG)
                freq[c, s] = _MANTISSA[e & 7] << (e >> 3)
                weight_sum += freq[c, s]
        if weight_sum == 0:  # a context that never occurs still needs a table
            freq[c, 0] = total
            continue
        left = total
        largest = 0
        for s in range(num_symbols):
            if freq[c, s] > 0:
                freq[c, s] = max(np.int64(1), (freq[c, s] * total + weight_sum // 2) // weight_sum)
                left -= freq[c, s]
                if freq[c, s] > freq[c, largest]:
                    largest = s
        freq[c, largest] += left
        while freq[c, largest] < 1:  # rounding up took more than the largest had: take it from the next
            short = 1 - freq[c, largest]
            freq[c, largest] = 1
            largest = np.argmax(freq[c])
            freq[c, largest] -= short
    return freq


@kernel
def encode(symbols, planes, rows, cols, fill, lut, num_levels, classes, freq, bits, words):
    """Write words backwards into ``words``; return the index of the first, or -1 when they do not fit."""
    num_contexts, num_symbols = freq.shape
    packed = np.zeros(num_contexts * num_symbols, np.uint64)
    inverse = np.zeros(num_contexts * num_symbols, np.uint64)
    for c in range(num_contexts):
        start = np.int64(0)
        for s in range(num_symbols):
            f, shift = freq[c, s], 32
            while 1 << (shift - 32) < f:
                shift += 1
            # exact: state < min(2^32, f · 2^(32 - bits)) keeps the error of state · ⌈2^shift / f⌉ below 2^shift / f
            inverse[c * num_symbols + s] = ((1 << shift) + f - 1) // max(f, 1)
            packed[c * num_symbols + s] = np.uint64((shift << 32) | (f << 16) | start)
            start += f
    x = np.full(NUM_STATES, LOWEST_STATE, np.uint64)
    pos = words.size
    sixteen, limit_shift, scale = np.uint64(16), np.uint64(32 - bits), np.uint64(bits)
    low16 = np.uint64(0xFFFF)
    i = symbols.size - 1
    for p in range(planes - 1, -1, -1):
        base = classes[p] * num_levels
        for r in range(rows - 1, -1, -1):
            left = np.int64(symbols[np.uint64(i)])  # unsigned indices spare numba's test for negative ones
            for k in range(cols - 1, -1, -1):
                symbol = left
                left = np.int64(symbols[np.uint64(i - 1)]) if k > 0 else fill
                up = np.int64(symbols[np.uint64(i - cols)]) if r > 0 else fill
                index = np.uint64((base + lut[np.uint64(left + up)]) * num_symbols + symbol)
                entry = packed[index]
                f, start = (entry >> sixteen) & low16, entry & low16
                state = x[i & 3]
                if pos == 2 * NUM_STATES:
                    return -1
                words[np.uint64(pos - 1)] = np.uint16(state & low16)  # kept only when the state must shrink: no branch
                shrink = np.int64(state >= f << limit_shift)
                pos -= shrink
                state >>= np.uint64(shrink << 4)
                quotient = (state * inverse[index]) >> (entry >> np.uint64(32))
                x[i & 3] = (quotient << scale) + (state - quotient * f) + start
                i -= 1
    for k in range(NUM_STATES - 1, -1, -1):
        pos -= 2
        words[pos] = np.uint16(x[k] & low16)
        words[pos + 1] = np.uint16(x[k] >> sixteen)
    return pos


@kernel
def decode(words, planes, rows, cols, fill, lut, num_levels, classes, freq, bits, symbols):
    """Fill ``symbols``; return whether the stream was whole (all words used, all states back at their start).

    ``words`` carries one zero more than what was received, so that reading ahead stays inside.
    """
    num_contexts, num_symbols = freq.shape
    size = 1 << bits
    packed = np.zeros(num_contexts * num_symbols, np.uint32)
    slots = np.zeros(num_contexts * size, np.uint8)
    for c in range(num_contexts):
        start = 0
        for s in range(num_symbols):
            f = freq[c, s]
            packed[c * num_symbols + s] = np.uint32((f << 16) | start)
            slots[c * size + start : c * size + start + f] = s
            start += f
    last = words.size - 1
    if last < 2 * NUM_STATES:
        return False
    x = np.zeros(NUM_STATES, np.uint64)
    for k in range(NUM_STATES):
        x[k] = np.uint64(words[2 * k]) | (np.uint64(words[2 * k + 1]) << np.uint64(16))
        if x[k] < LOWEST_STATE:
            return False
    pos = 2 * NUM_STATES
    sixteen, scale = np.uint64(16), np.uint64(bits)
    low16, mask, lowest = np.uint64(0xFFFF), np.uint64(size - 1), np.uint64(LOWEST_STATE)
    i = 0
    for p in range(planes):
        base = classes[p] * num_levels
        for r in range(rows):
            left = np.int64(fill)
            for _ in range(cols):
                up = np.int64(symbols[np.uint64(i - cols)]) if r > 0 else np.int64(fill)
                context = np.int64(base + lut[np.uint64(left + up)])
                state = x[i & 3]
                slot = state & mask
                symbol = np.int64(slots[np.uint64(context * size) + slot])
                entry = np.uint64(packed[np.uint64(context * num_symbols + symbol)])
                state = (entry >> sixteen) * (state >> scale) + slot - (entry & low16)
                if pos > last:
                    return False
                grow = np.int64(state < lowest)
                both = (state << sixteen) | np.uint64(words[np.uint64(pos)])  # kept when the state must grow: no branch
                state = both if grow else state
                pos += grow
                x[i & 3] = state
                symbols[np.uint64(i)] = symbol
                left = symbol
                i += 1
    return pos == last and bool(np.all(x == lowest))
