/* Adaptive binary range coder: side information of any size, and whole small tensors.

   No tables travel: each binary decision has a probability that both ends adapt alike (integers only). A symbol takes
   some tens of nanoseconds, so this coder serves where a table would cost more than it saves. Carries propagate as in
   LZMA's range coder (Martin 1979; Pavlov). Reading past the end gives zeros: trailing zeros are not sent, and every
   decoder stops.

   Encoder and decoder are the same functions with `encoding` 1 or 0, so that they cannot drift apart; the compiler makes
   two of each. The caller (kernels.py) has checked that each array has the size that is passed beside it, that symbols
   and `fill` are below 2^bits and that bits is 1...8. What a decoder reads is checked here before it is an index. */

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { MOST_LEVELS = 16, INT_CONTEXTS = 16, INT_SLOTS = 64, INT_BITS = 20, MOST_NODES = 256, LAST_COUNT = 89 };
static const uint32_t TOP = (uint32_t)1 << 24;

#define TEN(of, n) of(n), of(n + 1), of(n + 2), of(n + 3), of(n + 4), of(n + 5), of(n + 6), of(n + 7), of(n + 8), of(n + 9)
#define NINETY(of) TEN(of, 0), TEN(of, 10), TEN(of, 20), TEN(of, 30), TEN(of, 40), TEN(of, 50), TEN(of, 60), TEN(of, 70), TEN(of, 80)
/* adaptation: after n observations a probability moves by 1 / (n + 1.6), at least 1 / 90; in 65536ths */
#define RATE(n) 655360 / (10 * (n) + 16)
static const uint16_t RATES[LAST_COUNT + 1] = {NINETY(RATE)};
/* trust in a context's own probability after n observations, in 32nds; the rest goes to the context-free one */
#define TRUST(n) ((n) == 0 ? 0 : 26 * (n) / ((n) + 6) > 26 ? 30 : 4 + 26 * (n) / ((n) + 6))
static const uint8_t TRUSTS[LAST_COUNT + 1] = {NINETY(TRUST)};

typedef struct {
    uint64_t low;     /* encoder: the interval's lower end; bit 32 is a carry */
    uint32_t code;    /* decoder: what was received, less the interval's lower end */
    uint32_t range;   /* the interval's size */
    uint8_t cache;    /* encoder: the byte that a carry may still change */
    int64_t pending;  /* encoder: that byte, and the bytes 255 after it */
    uint8_t *out;
    const uint8_t *in;
    int64_t size, pos;
    int is_full;
} Coder;

/* What is known of one binary decision. */
typedef struct {
    uint16_t zero;  /* probability of a 0, in 65536ths */
    uint16_t count; /* of what it was learned from, up to LAST_COUNT */
} Chance;

static void forget(Chance *chances, int64_t size) {
    for (int64_t k = 0; k < size; k++) chances[k] = (Chance){32768, 0};
}

static Coder new_encoder(uint8_t *data, int64_t size) {
    return (Coder){.range = 0xFFFFFFFF, .pending = 1, .out = data, .size = size};
}

static Coder new_decoder(const uint8_t *data, int64_t size) {
    Coder coder = {.range = 0xFFFFFFFF, .in = data, .size = size, .pos = 4};
    for (int k = 0; k < 4; k++) coder.code = coder.code << 8 | (k < size ? data[k] : 0);
    return coder;
}

static void shift_low(Coder *coder) {
    uint64_t low = coder->low;
    if (low < 0xFF000000 || low > 0xFFFFFFFF) {
        uint8_t carry = (uint8_t)(low >> 32), byte = coder->cache;
        for (; coder->pending > 0; coder->pending--) {
            if (coder->pos < coder->size)
                coder->out[coder->pos++] = (uint8_t)(byte + carry);
            else
                coder->is_full = 1;
            byte = 0xFF;
        }
        coder->cache = (uint8_t)(low >> 24);
    }
    coder->pending++;
    coder->low = (low & 0x00FFFFFF) << 8;
}

/* Code one bit whose probability of being 0 is `zero` / 2^15; returns it. Masks stand for the branches that a processor
   could not foretell. */
INLINE int code_at(Coder *coder, int zero, int bit, int encoding) {
    uint32_t bound = (coder->range >> 15) * (uint32_t)zero;
    if (encoding) {
        uint32_t is_one = -(uint32_t)bit;
        coder->low += bound & is_one;
        coder->range = bound + ((coder->range - 2 * bound) & is_one);
    } else if (__builtin_expect(coder->code < bound, 1)) {
        coder->range = bound;
        bit = 0;
    } else {
        coder->code -= bound;
        coder->range -= bound;
        bit = 1;
    }
    while (coder->range < TOP) {
        coder->range <<= 8;
        if (encoding) {
            shift_low(coder);
        } else {
            uint32_t byte = coder->pos < coder->size ? coder->in[coder->pos] : 0;
            coder->code = coder->code << 8 | byte;
            coder->pos++;
        }
    }
    return bit;
}

/* End an encoder's data. Returns their size, or -1 when they did not fit. */
static int64_t finish(Coder *coder) {
    for (int k = 0; k < 5; k++) shift_low(coder);
    if (coder->is_full) return -1;
    int64_t end = coder->pos - 1;
    memmove(coder->out, coder->out + 1, (size_t)end); /* the first byte would receive a carry that cannot come */
    while (end > 1 && coder->out[end - 1] == 0) end--;
    return end;
}

INLINE int in_15_bits(int zero) {
    int p15 = zero >> 1;
    return p15 < 32 ? 32 : p15 > 32736 ? 32736 : p15;
}

/* Move the probability of a 0 towards what was seen. */
INLINE void adapt(Chance *chance, int bit) {
    int64_t target = 65535 & (bit - 1);
    chance->zero = (uint16_t)(chance->zero + (((target - chance->zero) * RATES[chance->count]) >> 16));
    chance->count += chance->count < LAST_COUNT;
}

INLINE int code_bit(Coder *coder, Chance *chance, int bit, int encoding) {
    bit = code_at(coder, in_15_bits(chance->zero), bit, encoding);
    adapt(chance, bit);
    return bit;
}

/* Adaptive Exp-Golomb code of an integer in [0, 2^20); the value itself when encoding, else what was read: below 2^21. */
INLINE int64_t code_int(Coder *coder, Chance *model, int context, int64_t value, int encoding) {
    int length = 0, k = 0;
    model += context * INT_SLOTS;
    if (encoding)
        while ((value + 1) >> (length + 1)) length++;
    while (k < INT_BITS && code_bit(coder, &model[k], k < length, encoding)) k++;
    int64_t result = 1;
    for (int j = k - 1; j >= 0; j--) {
        Chance *chance = &model[INT_BITS + 2 * k + (j != k - 1)];
        result = result << 1 | code_bit(coder, chance, (int)((value + 1) >> j & 1), encoding);
    }
    return result - 1;
}

/* Code the context model: where `lut` steps up, and each plane's class.
   Returns the number of levels; -1 for more than `most_levels` or a class that there is not. */
INLINE int64_t code_model(Coder *coder, uint8_t *lut, int64_t lut_size, uint8_t *classes, int64_t planes,
                          int64_t num_classes, int64_t most_levels, int encoding) {
    Chance model[INT_CONTEXTS * INT_SLOTS];
    forget(model, INT_CONTEXTS * INT_SLOTS);
    int64_t num_levels = 1 + code_int(coder, model, 0, encoding ? lut[lut_size - 1] : 0, encoding);
    if (num_levels > most_levels) return -1;
    int64_t k = 0;
    for (int64_t level = 1; level < num_levels; level++) {
        int64_t gap = 0;
        if (encoding)
            while (k + gap < lut_size && lut[k + gap] < level) gap++;
        gap = code_int(coder, model, 1, gap, encoding);
        int64_t end = gap < lut_size - k ? k + gap : lut_size;
        for (; k < end; k++)
            if (!encoding) lut[k] = (uint8_t)(level - 1);
    }
    for (; !encoding && k < lut_size; k++) lut[k] = (uint8_t)(num_levels - 1);
    for (int64_t p = 0, previous = 0; num_classes > 1 && p < planes; p++) {
        int64_t value = code_int(coder, model, 2 + (int)previous, classes[p], encoding);
        if (value >= num_classes) return -1;
        previous = value;
        if (!encoding) classes[p] = (uint8_t)value;
    }
    return num_levels;
}

INLINE int64_t code_side(Coder *coder, uint8_t *lut, int64_t lut_size, uint8_t *classes, int64_t planes,
                         int64_t num_classes, int64_t *logs, int64_t num_rows, int64_t num_symbols, int64_t max_log,
                         int encoding) {
    int64_t most_levels = num_rows / num_classes;
    int64_t num_levels = code_model(coder, lut, lut_size, classes, planes, num_classes, most_levels, encoding);
    Chance model[INT_CONTEXTS * INT_SLOTS];
    forget(model, INT_CONTEXTS * INT_SLOTS);
    for (int64_t c = 0; c < num_levels * num_classes; c++) { /* none where the model was refused */
        int64_t previous = 0, last = 0;
        for (int64_t s = 0; s < num_symbols; s++) {
            int context = (int)(last < 3 ? last : 3) + (previous == 0 ? 4 : 0);
            int64_t delta = encoding ? logs[c * num_symbols + s] - previous : 0;
            int64_t zigzag = code_int(coder, model, context, delta >= 0 ? 2 * delta : -2 * delta - 1, encoding);
            delta = zigzag & 1 ? -((zigzag + 1) >> 1) : zigzag >> 1;
            previous += delta;
            previous = previous < 0 ? 0 : previous > max_log ? max_log : previous;
            if (!encoding) logs[c * num_symbols + s] = previous;
            last = delta < 0 ? -delta : delta;
        }
    }
    return num_levels;
}

/* Code the context model and the log-frequency tables of a static coder, `logs[num_rows][num_symbols]`: a row for each
   class and level, all of them in use. Returns the bytes written, or -1 when they did not fit. */
int64_t encode_side(uint8_t *data, int64_t size, uint8_t *lut, int64_t lut_size, uint8_t *classes, int64_t planes,
                    int64_t num_classes, int64_t *logs, int64_t num_rows, int64_t num_symbols, int64_t max_log) {
    Coder coder = new_encoder(data, size);
    if (code_side(&coder, lut, lut_size, classes, planes, num_classes, logs, num_rows, num_symbols, max_log, 1) < 0)
        return -1;
    return finish(&coder);
}

/* Undo encode_side: fills `lut`, `classes` and the first rows of `logs`, with values in 0...max_log.
   Returns the number of levels, or -1 when `logs` has not enough rows for them or a class is none. */
int64_t decode_side(const uint8_t *data, int64_t size, uint8_t *lut, int64_t lut_size, uint8_t *classes, int64_t planes,
                    int64_t num_classes, int64_t *logs, int64_t num_rows, int64_t num_symbols, int64_t max_log) {
    Coder coder = new_decoder(data, size);
    return code_side(&coder, lut, lut_size, classes, planes, num_classes, logs, num_rows, num_symbols, max_log, 0);
}

/* Code a whole small tensor, bit by bit down a binary tree per context. */
INLINE int64_t code_symbols(Coder *coder, uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols, int fill,
                            int bits, uint8_t *lut, int encoding) {
    int size = 1 << bits;
    int64_t num_levels = code_model(coder, lut, 2 * size - 1, NULL, 0, 1, MOST_LEVELS, encoding);
    if (num_levels < 0) return -1;
    Chance chances[(MOST_LEVELS + 1) * MOST_NODES];
    forget(chances, (num_levels + 1) * size);
    Chance *shared = chances + num_levels * size; /* the tree of all contexts together */
    for (int64_t p = 0; p < planes; p++) {
        for (int64_t r = 0; r < rows; r++) {
            int left = fill;
            for (int64_t c = 0; c < cols; c++, symbols++) {
                int up = r > 0 ? symbols[-cols] : fill, symbol = encoding ? *symbols : 0, node = 1;
                Chance *tree = chances + lut[left + up] * size;
                for (int b = bits - 1; b >= 0; b--) {
                    Chance *own = &tree[node], *all = &shared[node];
                    int zero = all->zero + (((own->zero - all->zero) * TRUSTS[own->count]) >> 5);
                    int bit = code_at(coder, in_15_bits(zero), symbol >> b & 1, encoding);
                    adapt(own, bit);
                    adapt(all, bit);
                    node = node << 1 | bit;
                }
                left = node - size;
                if (!encoding) *symbols = (uint8_t)left;
            }
        }
    }
    return 0;
}

/* Code `planes * rows * cols` symbols below 2^bits. Returns the bytes written, or -1 when they did not fit. */
int64_t encode_symbols(uint8_t *data, int64_t size, uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols,
                       int64_t fill, int64_t bits, uint8_t *lut) {
    Coder coder = new_encoder(data, size);
    if (code_symbols(&coder, symbols, planes, rows, cols, (int)fill, (int)bits, lut, 1) < 0) return -1;
    return finish(&coder);
}

/* Undo encode_symbols; fills `lut` and `symbols`. Returns 0, or -1 for more levels than an encoder uses. */
int64_t decode_symbols(const uint8_t *data, int64_t size, uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols,
                       int64_t fill, int64_t bits, uint8_t *lut) {
    Coder coder = new_decoder(data, size);
    return code_symbols(&coder, symbols, planes, rows, cols, (int)fill, (int)bits, lut, 0);
}
