/* rANS with 16-bit words (Duda 2014, arXiv 1311.2540), of up to four streams that are coded in turns, so that a processor
   works at four symbols at once. States begin at 2^16. A record is a frequency in 2^15ths << 17 | stream << 15 | where its
   slots start. */

#ifndef SPLITSEM_MAPS_RANS_H
#define SPLITSEM_MAPS_RANS_H

#include "maps.h"

#include <string.h>

enum { STREAMS = 4, BITS = 15, TOTAL = 1 << BITS, AHEAD = 12 * STREAMS }; /* of each stream, bytes read or written ahead at most */
static const uint32_t LOWEST = (uint32_t)1 << 16;

/* What is coded; apart from the tables, so that a processor keeps it in registers. */
typedef struct {
    uint32_t *records;         /* encoder: in the order of coding, behind one that is of the last stream */
    uint16_t *raws;            /* encoder, where digits have raw bits: how many << 8 | what, behind each record */
    int64_t num_records;
    uint32_t x[STREAMS];       /* decoder: states */
    const uint8_t *next, *last; /* words: the next one, and where they end */
} Line;

/* Slots, in 2^15ths. */
typedef struct {
    uint32_t start, freq;
} Span;

INLINE uint32_t record_of(int k, Span span) { return span.freq << (32 - BITS) | (uint32_t)k << BITS | span.start; }
INLINE int stream_of(uint32_t record) { return (int)(record >> BITS & (STREAMS - 1)); }

INLINE uint32_t load_word(const uint8_t *word) { return word[0] | (uint32_t)word[1] << 8; }
INLINE void store_word(uint8_t *word, uint32_t x) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(word, &(uint16_t){(uint16_t)x}, 2); /* compilers do not make one store of two */
#else
    word[0] = (uint8_t)x, word[1] = (uint8_t)(x >> 8);
#endif
}

/* Take a slot of `span` out of stream k, whose state is to be filled then. */
INLINE void take(Line *line, int k, Span span, uint32_t slot) { line->x[k] = span.freq * (line->x[k] >> BITS) + slot - span.start; }

/* A state with a word more where `grows` is all ones: arithmetic, since nobody could foretell a branch. */
INLINE uint32_t filled(Line *line, uint32_t state, uint32_t grows) {
    uint32_t word = load_word(line->next) & grows;
    line->next += 2 & grows;
    return state << (16 & grows) | word;
}

INLINE void fill(Line *line, int k) { line->x[k] = filled(line, line->x[k], -(uint32_t)(line->x[k] < LOWEST)); }

/* Fill the state of stream k, and take raw bits out of it, which are returned; mask: 2^bits - 1. */
INLINE int fill_and_take_raw(Line *line, int k, int bits, uint32_t mask) {
    uint32_t state = line->x[k], grows = -(uint32_t)(state < LOWEST);
    uint32_t upper_half = state << (16 & grows); /* whether a second word is wanted is known before the first one */
    state = filled(line, state, grows);
    line->x[k] = filled(line, state >> bits, -(uint32_t)(upper_half < LOWEST << bits));
    return (int)(state & mask);
}

/* Which records wait to be pushed, and where the words that were pushed begin. */
typedef struct {
    const uint32_t *record;
    const uint16_t *raw;
    uint8_t *first;
} Rest;

/* A state, less the word that goes before the others where the state is too large. */
INLINE uint32_t shrunk(Rest *rest, uint32_t state, int is_large) {
    store_word(rest->first - 2, state); /* kept only when the state must shrink: no branch */
    rest->first -= 2 * is_large;
    return is_large ? state >> 16 : state;
}

/* The state of stream k with the records on it that come next. */
INLINE uint32_t pushed(Rest *rest, uint32_t state, int k, const uint8_t *least, int has_raws) {
    uint32_t record = *rest->record;
    if (stream_of(record) != k) return state;
    do {
        if (has_raws) {
            uint32_t bits = *rest->raw >> 8, raw = *rest->raw & 255;
            state = shrunk(rest, state, (uint64_t)state << bits >> 32 != 0) << bits | raw;
            rest->raw--;
        }
        uint32_t freq = record >> (32 - BITS);
        state = shrunk(rest, state, state >= freq << (32 - BITS));
        state += state / freq * (TOTAL - freq) + (record & (TOTAL - 1));
        record = *--rest->record;
    } while (stream_of(record) == k && rest->first >= least);
    return state;
}

/* Push the records, last one first, as words that end at `end`. Returns the first word's place, or NULL where it would lie
   before `least`; AHEAD bytes before that may be written. */
INLINE uint8_t *push(const Line *line, int num_streams, const uint8_t *least, uint8_t *end, int has_raws) {
    Rest rest = {line->records + line->num_records - 1, line->raws + line->num_records - 1, end};
    uint32_t x0 = LOWEST, x1 = LOWEST, x2 = LOWEST, x3 = LOWEST;
    while (rest.record >= line->records && rest.first >= least) {
        x3 = pushed(&rest, x3, 3, least, has_raws);
        x2 = pushed(&rest, x2, 2, least, has_raws);
        x1 = pushed(&rest, x1, 1, least, has_raws);
        x0 = pushed(&rest, x0, 0, least, has_raws);
    }
    if (rest.first < least + 4 * num_streams) return NULL;
    const uint32_t x[STREAMS] = {x0, x1, x2, x3};
    for (int k = num_streams - 1; k >= 0; k--)
        for (int b = 24; b >= 0; b -= 8) *--rest.first = (uint8_t)(x[k] >> b);
    return rest.first;
}

#endif
