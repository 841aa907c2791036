/* rANS of integer pictures with a 32-bit state and 16-bit words; integers coded already choose each integer's table.

   The caller (neighbours.py) has checked that the arrays have the sizes that are passed beside them, that there are
   NUM_CONTEXTS tables, and that each table's frequencies are at least 1 and sum to 2^SCALE_BITS. Any words may come. */

#include <stdint.h>
#include <stdlib.h>

enum { SCALE_BITS = 14, MOST = 15, UNIT = 64, MEMORY = 2, OWN = 6, PAST = 15, NO_MEMORY = -2 };
static const int64_t LOWEST = 1 << 16;        /* states live in [2^16, 2^32) */
static const int OWN_EDGES[OWN] = {1, 2, 3, 5, 8, 13}; /* least weighted sum of the own channel for the next level */
static const int PAST_EDGES[PAST] = {1, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536};

typedef struct {
    const int32_t *plane;
    int64_t *past; /* running mean over the channels before, of what is around each position, in UNITs */
    int64_t rows, cols;
} Around;

static inline int64_t size_at(const Around *around, int64_t row, int64_t col) {
    if (row < 0 || col < 0 || row >= around->rows || col >= around->cols) return 0;
    int64_t value = around->plane[row * around->cols + col];
    value = value < 0 ? -value : value;
    return value < MOST ? value : MOST;
}

static inline int64_t context_at(const Around *around, int64_t row, int64_t col) {
    int64_t own = 2 * (size_at(around, row, col - 1) + size_at(around, row - 1, col))
                  + size_at(around, row - 1, col - 1) + size_at(around, row - 1, col + 1);
    int64_t past = around->past[row * around->cols + col];
    int own_level = 0, past_level = 0;
    while (own_level < OWN && own >= OWN_EDGES[own_level]) own_level++;
    while (past_level < PAST && past >= PAST_EDGES[past_level]) past_level++;
    return own_level * (PAST + 1) + past_level;
}

/* Move the mean towards this channel's 3 x 3 sums, the middle counted twice. */
static void remember(const Around *around) {
    for (int64_t row = 0; row < around->rows; row++)
        for (int64_t col = 0; col < around->cols; col++) {
            int64_t near = size_at(around, row, col);
            for (int down = -1; down < 2; down++)
                for (int right = -1; right < 2; right++) near += size_at(around, row + down, col + right);
            int64_t *past = &around->past[row * around->cols + col];
            int64_t step = UNIT * near - *past; /* rounded down, as a shift of a negative number need not be */
            *past += step >= 0 ? step >> MEMORY : -((-step + (1 << MEMORY) - 1) >> MEMORY);
        }
}

/* The table of each integer, 0 ... NUM_CONTEXTS - 1. */
int64_t neighbour_contexts(const int32_t *integers, int64_t planes, int64_t rows, int64_t cols, uint8_t *contexts) {
    Around around = {integers, calloc((size_t)(rows * cols), sizeof(int64_t)), rows, cols};
    if (around.past == NULL) return NO_MEMORY;
    for (int64_t k = 0; k < planes; k++, around.plane += rows * cols) {
        for (int64_t row = 0; row < rows; row++)
            for (int64_t col = 0; col < cols; col++) *contexts++ = (uint8_t)context_at(&around, row, col);
        remember(&around);
    }
    free(around.past);
    return 0;
}

/* Write words backwards, two at most for each integer and two for the state; the index of the first. */
int64_t encode_neighbours(const int32_t *integers, int64_t size, const uint8_t *contexts, const int64_t *tables,
                          const int64_t *starts, int64_t entries, uint16_t *words, int64_t pos) {
    int64_t state = LOWEST, escape = entries - 1;
    for (int64_t i = size - 1; i >= 0; i--) {
        int64_t entry = integers[i] + escape / 2;
        if (entry < 0 || entry >= escape) {
            words[--pos] = (uint16_t)state;
            state = (state >> 16 << 16) | (integers[i] + 0x8000);
            entry = escape;
        }
        int64_t at = contexts[i] * entries + entry, frequency = tables[at];
        if (state >= frequency << (32 - SCALE_BITS)) {
            words[--pos] = (uint16_t)state;
            state >>= 16;
        }
        state = (state / frequency << SCALE_BITS) + state % frequency + starts[at];
    }
    words[--pos] = (uint16_t)state;
    words[--pos] = (uint16_t)(state >> 16);
    return pos;
}

/* Fill the integers; 1 where the stream was whole: all words used, the state back at its start. */
int64_t decode_neighbours(const uint16_t *words, int64_t num_words, const int64_t *tables, int64_t entries,
                          int32_t *integers, int64_t planes, int64_t rows, int64_t cols) {
    if (num_words < 2) return 0;
    Around around = {integers, calloc((size_t)(rows * cols), sizeof(int64_t)), rows, cols};
    if (around.past == NULL) return NO_MEMORY;
    int64_t state = (int64_t)words[0] << 16 | words[1], pos = 2, escape = entries - 1, is_whole = 0;
    for (int64_t k = 0; k < planes; k++, around.plane += rows * cols) {
        for (int64_t row = 0; row < rows; row++)
            for (int64_t col = 0; col < cols; col++) {
                const int64_t *table = tables + context_at(&around, row, col) * entries;
                int64_t slot = state & ((1 << SCALE_BITS) - 1), start = 0, entry = 0;
                while (entry < escape && start + table[entry] <= slot) start += table[entry++];
                state = table[entry] * (state >> SCALE_BITS) + slot - start;
                if (state < LOWEST) {
                    if (pos == num_words) goto end;
                    state = state << 16 | words[pos++];
                }
                int64_t value = entry - escape / 2;
                if (entry == escape) {
                    value = (state & 0xFFFF) - 0x8000;
                    if (pos == num_words) goto end;
                    state = (state >> 16 << 16) | words[pos++];
                }
                *integers++ = (int32_t)value;
            }
        remember(&around);
    }
    is_whole = pos == num_words && state == LOWEST;
end:
    free(around.past);
    return is_whole;
}
