/* Static-table rANS over context-selected integer tables: fast, for large tensors.

   Every function walks the symbols as `planes * rows * cols`. The context of a symbol is
   `classes[plane] * num_levels + lut[left + up]`, neighbours outside the plane counting as `fill`; order 0 is the case of
   one class and one level. Four interleaved 32-bit states, 16-bit words (Duda 2014, arXiv 1311.2540; interleaving:
   Giesen 2014, arXiv 1402.3392). Decoding uses integers only and cannot leave its arrays, whatever the bytes say.
   Floating-point costs decide only how an encoder codes; they use additions, multiplications and divisions in a fixed
   order (no library's logarithm, no fused operations), so that all machines make the same bytes.

   The caller (kernels.py) has checked that each array has the size that the numbers beside it say, that symbols and `fill`
   are below num_symbols, at most 256, and that there is a `lut` of 2 * num_symbols - 1 levels and a class for each plane. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { NUM_STATES = 4, MOST_SYMBOLS = 256, MAX_LOG = 240, NUM_N_LOG_N = 1024, INVERSE_BITS = 40, NO_MEMORY = -2, NO_SUCH_TABLE = -3 };
static const uint64_t INVERSE_MASK = ((uint64_t)1 << INVERSE_BITS) - 1;
static const uint32_t LOWEST_STATE = (uint32_t)1 << 16; /* states live in [2^16, 2^32) */
/* 1024 * 2^(k/8): frequencies travel as logarithms in eighths of an octave */
static const int64_t MANTISSAS[8] = {1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878};
static const double OCTAVE[8] = {1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096,
                                 1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Base-2 logarithm of a whole number above 0, by the series of artanh: the same on every machine. */
static double log2_of(int64_t count) {
    int exponent = 63 - __builtin_clzll((unsigned long long)count);
    double mantissa = (double)count / (double)((int64_t)1 << exponent);
    if (mantissa > 1.4142135623730951) {
        mantissa *= 0.5;
        exponent++;
    }
    double s = (mantissa - 1) / (mantissa + 1), square = s * s, sum = 0;
    for (int k = 23; k > 0; k -= 2) sum = sum * square + 1.0 / k;
    return exponent + sum * s * 2.8853900817779268; /* 2 / ln 2 */
}

/* n * log2(n) of the first 1024 numbers, for merge_costs. */
int64_t fill_n_log_n(double *n_log_n) {
    n_log_n[0] = 0;
    for (int n = 1; n < NUM_N_LOG_N; n++) n_log_n[n] = n * log2_of(n);
    return 0;
}

/* The symbol above column `c` of a row. */
INLINE int above(const uint8_t *row, int64_t c, int64_t cols, int fill, int is_first) {
    return is_first ? fill : row[c - cols];
}

static int are_below(const uint8_t *values, int64_t size, int64_t bound) {
    uint8_t largest = 0;
    for (int64_t k = 0; k < size; k++) largest = values[k] > largest ? values[k] : largest;
    return largest < bound;
}

/* Whether each context that there can be has one of `num_tables` tables. */
static int is_every_context_there(const uint8_t *lut, int64_t num_levels, const uint8_t *classes, int64_t planes,
                                  int64_t num_tables, int64_t num_symbols) {
    return are_below(lut, 2 * num_symbols - 1, num_levels) && are_below(classes, planes, num_tables / num_levels);
}

/* Count a row's left + up. Returns the sum of |symbol - fill|. */
INLINE int64_t count_sums(const uint8_t *row, int64_t cols, int fill, int64_t *hist, int is_first) {
    int64_t distance = 0;
    int left = fill;
    for (int64_t c = 0; c < cols; c++) {
        hist[left + above(row, c, cols, fill, is_first)]++;
        left = row[c];
        distance += abs(left - fill);
    }
    return distance;
}

/* Map left + up to at most `most_levels` levels that are used about equally often, numbered without gaps, judged on every
   `stride`-th row: `lut`. Also each plane's sum of |symbol - fill| in these rows: `activity[planes]`. */
int64_t choose_levels(const uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols, int64_t fill,
                      int64_t num_symbols, int64_t stride, int64_t most_levels, uint8_t *lut, int64_t *activity) {
    int64_t hist[2 * MOST_SYMBOLS] = {0}, total = 0;
    for (int64_t p = 0; p < planes; p++) {
        activity[p] = 0;
        for (int64_t r = 0; r < rows; r += stride) {
            const uint8_t *row = symbols + (p * rows + r) * cols;
            activity[p] += r ? count_sums(row, cols, (int)fill, hist, 0) : count_sums(row, cols, (int)fill, hist, 1);
            total += cols;
        }
    }
    double levels_per_symbol = (double)most_levels / (double)most(total, 1);
    int64_t before = 0, previous = 0, level = 0;
    for (int64_t sum = 0; sum < 2 * num_symbols - 1; sum++) {
        before += hist[sum];
        double middle = (double)before - (double)hist[sum] / 2;
        int64_t share = least((int64_t)(middle * levels_per_symbol), most_levels - 1);
        level += sum > 0 && share > previous;
        previous = share;
        lut[sum] = (uint8_t)level;
    }
    return 0;
}

INLINE void count_row(const uint8_t *row, int64_t cols, int fill, const uint8_t *lut, int64_t num_symbols, int64_t *hist,
                      int is_first, int is_one_level) {
    int left = fill;
    for (int64_t c = 0; c < cols; c++) {
        int64_t level = is_one_level ? 0 : lut[left + above(row, c, cols, fill, is_first)];
        left = row[c];
        hist[level * num_symbols + left]++;
    }
}

/* How often each symbol follows each context: adds to `hist[num_tables][num_symbols]`. */
int64_t context_histogram(const uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols, int64_t fill,
                          const uint8_t *lut, int64_t num_levels, const uint8_t *classes, int64_t *hist,
                          int64_t num_tables, int64_t num_symbols) {
    if (!is_every_context_there(lut, num_levels, classes, planes, num_tables, num_symbols)) return NO_SUCH_TABLE;
    for (int64_t p = 0; p < planes; p++) {
        int64_t *tables = hist + classes[p] * num_levels * num_symbols;
        for (int64_t r = 0; r < rows; r++, symbols += cols) {
            if (num_levels == 1)
                count_row(symbols, cols, (int)fill, lut, num_symbols, tables, 1, 1);
            else if (r == 0)
                count_row(symbols, cols, (int)fill, lut, num_symbols, tables, 1, 0);
            else
                count_row(symbols, cols, (int)fill, lut, num_symbols, tables, 0, 0);
        }
    }
    return 0;
}

static double n_log_n_of(int64_t n, const double *n_log_n) {
    return n < NUM_N_LOG_N ? n_log_n[n] : (double)n * log2_of(n);
}

/* Bits of all symbols and tables. Class c has its rows at hist + c * stride, `num_levels` of them. */
static double model_bits(const int64_t *hist, int64_t num_classes, int64_t stride, int64_t num_levels,
                         int64_t num_symbols, double bits_per_entry, const double *n_log_n) {
    double cost = 0;
    for (int64_t c = 0; c < num_classes; c++) {
        for (int64_t level = 0; level < num_levels; level++) {
            const int64_t *row = hist + c * stride + level * num_symbols;
            int64_t total = 0;
            for (int64_t s = 0; s < num_symbols; s++) {
                if (row[s] > 0) {
                    cost += bits_per_entry - n_log_n_of(row[s], n_log_n);
                    total += row[s];
                }
            }
            cost += n_log_n_of(total, n_log_n);
        }
    }
    return cost;
}

/* Bits for symbols and tables when contexts are merged: `costs[2][8]`, left alone where nothing is offered.

   Entry [0][k] keeps the classes, [1][k] merges them; every 2^k neighbouring levels share one table. `bits_per_entry` is
   what one entry of a table is taken to cost. `hist[num_classes][num_levels][num_symbols]` stays as it is. */
int64_t merge_costs(const int64_t *hist, int64_t num_classes, int64_t num_levels, int64_t num_symbols,
                    double bits_per_entry, const double *n_log_n, double *costs) {
    int64_t stride = num_levels * num_symbols;
    size_t bytes = (size_t)(num_classes * stride) * sizeof(int64_t);
    int64_t *work = malloc(bytes);
    if (!work) return NO_MEMORY;
    for (int merged = 0; merged < 2; merged++) {
        memcpy(work, hist, bytes);
        for (int64_t c = 1; merged && c < num_classes; c++)
            for (int64_t k = 0; k < stride; k++) work[k] += work[c * stride + k];
        int64_t num_kept = merged ? 1 : num_classes, levels = num_levels;
        for (int k = 0; k < 8; k++) {
            costs[8 * merged + k] = model_bits(work, num_kept, stride, levels, num_symbols, bits_per_entry, n_log_n);
            if (levels == 1) break;
            for (int64_t c = 0; c < num_kept; c++) {
                for (int64_t level = 0; level < (levels + 1) / 2; level++) {
                    int64_t *to = work + c * stride + level * num_symbols;
                    const int64_t *from = work + c * stride + 2 * level * num_symbols;
                    int has_other = 2 * level + 1 < levels;
                    for (int64_t s = 0; s < num_symbols; s++) to[s] = from[s] + (has_other ? from[num_symbols + s] : 0);
                }
            }
            levels = (levels + 1) / 2;
        }
    }
    free(work);
    return 0;
}

/* Log-frequencies that cost least in all: coded symbols plus the table's own bits (greedy along the alphabet).
   `hist` and `logs` are [num_tables][num_symbols]; 0 means absent, otherwise the weight is 2^((log - 1) * step / 8). */
int64_t choose_logs(const int64_t *hist, int64_t num_tables, int64_t num_symbols, int64_t step, int64_t *logs) {
    int64_t max_log = MAX_LOG / step;
    double weights[MAX_LOG + 1] = {0}, log2s[MAX_LOG + 1] = {0};
    for (int64_t log = 1; log <= max_log; log++) {
        int64_t eighths = (log - 1) * step;
        log2s[log] = log2_of(log);
        weights[log] = OCTAVE[eighths & 7] * (double)((int64_t)1 << (eighths >> 3));
    }
    for (int64_t c = 0; c < num_tables; c++) {
        int64_t previous = 0;
        for (int64_t s = 0; s < num_symbols; s++) {
            int64_t count = hist[c * num_symbols + s];
            double log_count = count > 0 ? log2_of(count) : 0;
            int64_t target = count == 0 ? 0 : 1 + (int64_t)(8.0 / (double)step * log_count + 0.5);
            target = least(target, max_log);
            int64_t low = most(least(previous, target), target - 12), high = least(most(previous, target), target + 12);
            if (count > 0) {
                low = most(low, 1);
                high = most(high, 1);
            }
            int64_t best = target;
            double best_cost = 0;
            for (int64_t log = low; log <= high; log++) {
                double cost = 1.4427 * (weights[log] - (double)count); /* Poisson deviance in bits, up to a constant */
                if (count > 0) cost += (double)count * (log_count - (double)((log - 1) * step) / 8.0);
                int64_t delta = log < previous ? previous - log : log - previous;
                cost += delta == 0 ? 0.5 : 1.5 + 2.0 * log2s[delta]; /* what the Exp-Golomb code takes, about */
                if (log == low || cost < best_cost) {
                    best = log;
                    best_cost = cost;
                }
            }
            logs[c * num_symbols + s] = previous = best;
        }
    }
    return 0;
}

/* Integer frequencies of each context, summing to 2^bits: `freq`, the shape of `logs`, whose values are in 0...MAX_LOG.
   Integers only. */
int64_t frequencies(const int64_t *logs, int64_t num_tables, int64_t num_symbols, int64_t step, int64_t bits,
                    int64_t *freq) {
    int64_t total = (int64_t)1 << bits;
    for (int64_t c = 0; c < num_tables; c++, logs += num_symbols, freq += num_symbols) {
        int64_t weight_sum = 0, left = total, largest = 0;
        for (int64_t s = 0; s < num_symbols; s++) {
            int64_t eighths = least((logs[s] - 1) * step, MAX_LOG);
            freq[s] = logs[s] > 0 ? MANTISSAS[eighths & 7] << (eighths >> 3) : 0;
            weight_sum += freq[s];
        }
        if (weight_sum == 0) { /* a context that never occurs still needs a table */
            freq[0] = total;
            continue;
        }
        for (int64_t s = 0; s < num_symbols; s++) {
            if (freq[s] == 0) continue;
            freq[s] = most(1, (freq[s] * total + weight_sum / 2) / weight_sum);
            left -= freq[s];
            if (freq[s] > freq[largest]) largest = s;
        }
        freq[largest] += left;
        while (freq[largest] < 1) { /* rounding up took more than the largest had: take it from the next */
            int64_t missing = 1 - freq[largest];
            freq[largest] = 1;
            for (int64_t s = largest = 0; s < num_symbols; s++)
                if (freq[s] > freq[largest]) largest = s;
            freq[largest] -= missing;
        }
    }
    return 0;
}

/* An encoder's table entry for a symbol of frequency f that starts at slot `start`.

   quotient = state / f is exact: state < min(2^32, f * 2^(32 - bits)) keeps the error of state * inverse below
   2^shift / f. The state of rANS becomes quotient * 2^bits + state % f + start = state + start + quotient * gap. */
typedef struct {
    uint64_t inverse; /* 2^shift / f, rounded up: below 2^34; and shift, from bit INVERSE_BITS on */
    uint32_t most;    /* largest state that need not shrink: f * 2^(32 - bits) - 1 */
    uint16_t start;
    uint16_t gap;     /* 2^bits - f */
} Entry;

static Entry entry_of(int64_t f, int64_t start, int bits) {
    uint64_t shift = 32;
    while ((int64_t)1 << (shift - 32) < f) shift++;
    uint64_t inverse = (((uint64_t)1 << shift) + (uint64_t)f - 1) / (uint64_t)most(f, 1);
    uint32_t most_state = (uint32_t)(((uint64_t)f << (32 - bits)) - 1);
    return (Entry){inverse | shift << INVERSE_BITS, most_state, (uint16_t)start, (uint16_t)(((int64_t)1 << bits) - f)};
}

/* Push the symbols of a row, last one first, onto the states. Returns the new `pos`, or -1 when it would fall below. */
INLINE int64_t push_row(const uint8_t *row, int64_t cols, int fill, const uint8_t *lut, int64_t num_symbols,
                        const Entry *tables, uint32_t *x, int64_t i, uint16_t *words, int64_t pos, int is_first,
                        int is_one_level) {
    int left = cols > 0 ? row[cols - 1] : fill;
    for (int64_t c = cols - 1; c >= 0; c--) {
        int symbol = left;
        left = c > 0 ? row[c - 1] : fill;
        int64_t level = is_one_level ? 0 : lut[left + above(row, c, cols, fill, is_first)];
        const Entry *entry = tables + level * num_symbols + symbol;
        uint32_t state = x[(i + c) & 3];
        if (pos == 2 * NUM_STATES) return -1;
        words[pos - 1] = (uint16_t)state; /* kept only when the state must shrink: no branch */
        uint32_t shrinks = -(uint32_t)(state > entry->most);
        pos += (int32_t)shrinks;
        state ^= (state ^ state >> 16) & shrinks;
        uint64_t quotient = (state * (entry->inverse & INVERSE_MASK)) >> (entry->inverse >> INVERSE_BITS);
        x[(i + c) & 3] = state + entry->start + (uint32_t)quotient * entry->gap;
    }
    return pos;
}

/* Write words backwards into `words`. `freq[num_tables][num_symbols]` as frequencies() makes it.
   Returns the index of the first word, -1 when they did not fit, NO_SUCH_TABLE or NO_MEMORY. */
int64_t encode_static(const uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols, int64_t fill,
                      const uint8_t *lut, int64_t num_levels, const uint8_t *classes, const int64_t *freq,
                      int64_t num_tables, int64_t num_symbols, int64_t bits, uint16_t *words, int64_t num_words) {
    if (!is_every_context_there(lut, num_levels, classes, planes, num_tables, num_symbols)) return NO_SUCH_TABLE;
    Entry *entries = malloc((size_t)(num_tables * num_symbols) * sizeof(Entry));
    if (!entries) return NO_MEMORY;
    for (int64_t c = 0, k = 0; c < num_tables; c++) {
        int64_t start = 0;
        for (int64_t s = 0; s < num_symbols; s++, k++) {
            entries[k] = entry_of(freq[k], start, (int)bits);
            start += freq[k];
        }
    }
    uint32_t x[NUM_STATES] = {LOWEST_STATE, LOWEST_STATE, LOWEST_STATE, LOWEST_STATE};
    int64_t pos = num_words;
    for (int64_t p = planes - 1; pos >= 0 && p >= 0; p--) {
        const Entry *tables = entries + classes[p] * num_levels * num_symbols;
        for (int64_t r = rows - 1; pos >= 0 && r >= 0; r--) {
            int64_t i = (p * rows + r) * cols;
            const uint8_t *row = symbols + i;
            if (num_levels == 1)
                pos = push_row(row, cols, (int)fill, lut, num_symbols, tables, x, i, words, pos, 1, 1);
            else if (r == 0)
                pos = push_row(row, cols, (int)fill, lut, num_symbols, tables, x, i, words, pos, 1, 0);
            else
                pos = push_row(row, cols, (int)fill, lut, num_symbols, tables, x, i, words, pos, 0, 0);
        }
    }
    free(entries);
    for (int k = NUM_STATES - 1; pos >= 0 && k >= 0; k--) {
        pos -= 2;
        words[pos] = (uint16_t)x[k];
        words[pos + 1] = (uint16_t)(x[k] >> 16);
    }
    return pos;
}

/* Pop the symbols of a row off the states. Returns the new `pos`, above `last` when there were too few words. */
INLINE int64_t pop_row(uint8_t *row, int64_t cols, int fill, const uint32_t *offsets, int bits, const uint32_t *entries,
                       const uint8_t *slots, uint32_t *x, int64_t i, const uint16_t *words, int64_t pos, int64_t last,
                       int is_first, int is_one_level) {
    uint32_t mask = ((uint32_t)1 << bits) - 1;
    int left = fill;
    for (int64_t c = 0; c < cols && pos <= last; c++) {
        uint32_t offset = offsets[is_one_level ? 0 : left + above(row, c, cols, fill, is_first)];
        uint32_t state = x[(i + c) & 3], slot = state & mask;
        left = slots[offset + slot];
        uint32_t entry = entries[(offset >> bits) * MOST_SYMBOLS + (uint32_t)left];
        state = (entry >> 16) * (state >> bits) + slot - (entry & 0xFFFF);
        uint32_t grows = -(uint32_t)(state < LOWEST_STATE); /* arithmetic: nobody could foretell a branch */
        x[(i + c) & 3] = state << (grows & 16) | (words[pos] & grows);
        pos -= (int32_t)grows;
        row[c] = (uint8_t)left;
    }
    return pos;
}

/* Fill `symbols`. `words` carries one zero more than what was received, so that reading ahead stays inside.
   Returns 1, 0 when the stream was not whole (all words used, all states back at their start), NO_SUCH_TABLE or NO_MEMORY. */
int64_t decode_static(uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols, int64_t fill, const uint8_t *lut,
                      int64_t num_levels, const uint8_t *classes, const int64_t *freq, int64_t num_tables,
                      int64_t num_symbols, int64_t bits, const uint16_t *words, int64_t num_words) {
    if (!is_every_context_there(lut, num_levels, classes, planes, num_tables, num_symbols)) return NO_SUCH_TABLE;
    size_t entry_bytes = (size_t)num_tables * MOST_SYMBOLS * sizeof(uint32_t), slot_bytes = (size_t)num_tables << bits;
    uint32_t x[NUM_STATES], offsets[2 * MOST_SYMBOLS], *entries;
    int64_t last = num_words - 1, pos = 2 * NUM_STATES;
    if (last < pos) return 0;
    for (int k = 0; k < NUM_STATES; k++) {
        x[k] = words[2 * k] | (uint32_t)words[2 * k + 1] << 16;
        if (x[k] < LOWEST_STATE) return 0;
    }
    entries = malloc(entry_bytes + slot_bytes); /* frequency and start of each symbol of each context */
    if (!entries) return NO_MEMORY;
    uint8_t *slots = (uint8_t *)entries + entry_bytes; /* the symbol of each slot of each context */
    for (int64_t c = 0; c < num_tables; c++) {
        int64_t start = 0;
        for (int64_t s = 0; s < num_symbols; s++, freq++) {
            entries[c * MOST_SYMBOLS + s] = (uint32_t)(*freq << 16 | start);
            memset(slots + (c << bits) + start, (int)s, (size_t)*freq); /* frequencies sum to 2^bits: inside */
            start += *freq;
        }
    }
    for (int64_t p = 0; p < planes && pos <= last; p++) {
        for (int64_t k = 0; k < 2 * num_symbols - 1 && (p == 0 || classes[p] != classes[p - 1]); k++)
            offsets[k] = (uint32_t)(classes[p] * num_levels + lut[k]) << bits;
        for (int64_t r = 0; r < rows && pos <= last; r++) {
            int64_t i = (p * rows + r) * cols;
            uint8_t *row = symbols + i;
            if (num_levels == 1)
                pos = pop_row(row, cols, (int)fill, offsets, (int)bits, entries, slots, x, i, words, pos, last, 1, 1);
            else if (r == 0)
                pos = pop_row(row, cols, (int)fill, offsets, (int)bits, entries, slots, x, i, words, pos, last, 1, 0);
            else
                pos = pop_row(row, cols, (int)fill, offsets, (int)bits, entries, slots, x, i, words, pos, last, 0, 0);
        }
    }
    free(entries);
    return pos == last && x[0] == LOWEST_STATE && x[1] == LOWEST_STATE && x[2] == LOWEST_STATE && x[3] == LOWEST_STATE;
}
