/* rANS with 16-bit words (Duda 2014, arXiv 1311.2540), of up to four streams that are coded in turns, so that a processor
   works at four symbols at once. States begin at 2^16. An entry is a frequency in 2^15ths << 15 | where its slots start. */

#ifndef SPLITSEM_MAPS_RANS_H
#define SPLITSEM_MAPS_RANS_H

#include "maps.h"

enum { STREAMS = 4, BITS = 15, TOTAL = 1 << BITS, AHEAD = 12 * STREAMS }; /* of each stream, bytes read ahead at most */
static const uint32_t LOWEST = (uint32_t)1 << 16;

/* What is coded; apart from the tables, so that a processor keeps it in registers. */
typedef struct {
    uint32_t *records;   /* encoder: stream << 30 | entry, in the order of coding */
    uint16_t *raws;      /* encoder, where digits have raw bits: how many << 8 | what, behind each record */
    int64_t num_records;
    uint32_t x[STREAMS]; /* decoder: states */
    const uint8_t *words;
    int64_t pos, last;   /* words read, and how many there are */
} Line;

/* A state with a word more where it is low. */
INLINE uint32_t filled(Line *line, uint32_t state) {
    const uint8_t *word = line->words + 2 * line->pos;
    uint32_t grows = -(uint32_t)(state < LOWEST); /* arithmetic: nobody could foretell a branch */
    line->pos -= (int32_t)grows;
    return state << (grows & 16) | ((word[0] | (uint32_t)word[1] << 8) & grows);
}

/* The state of stream k after an entry of slot `slot`. */
INLINE void advance(Line *line, int k, uint32_t entry, uint32_t slot) {
    line->x[k] = filled(line, (entry >> BITS) * (line->x[k] >> BITS) + slot - (entry & (TOTAL - 1)));
}

/* Take raw bits out of stream k. */
INLINE int take_raw(Line *line, int k, int bits) {
    uint32_t state = line->x[k];
    line->x[k] = filled(line, state >> bits);
    return (int)(state & (((uint32_t)1 << bits) - 1));
}

/* A state, less the word that goes to data + *pos where the state is too large. */
INLINE uint32_t shrunk(uint32_t state, int is_large, uint8_t *data, int64_t *pos) {
    uint32_t shrinks = -(uint32_t)is_large;
    data[*pos - 2] = (uint8_t)state; /* kept only when the state must shrink: no branch */
    data[*pos - 1] = (uint8_t)(state >> 8);
    *pos -= 2 * is_large;
    return state ^ ((state ^ state >> 16) & shrinks);
}

/* Push the records, last one first, as words that end at data + pos. Returns the first word's place, below 0 if too many. */
INLINE int64_t push(const Line *line, int num_streams, uint8_t *data, int64_t pos, int has_raws) {
    uint32_t x[STREAMS] = {LOWEST, LOWEST, LOWEST, LOWEST};
    int64_t before = 4 * num_streams + 4;
    for (int64_t i = line->num_records - 1; i >= 0 && pos >= before; i--) {
        uint32_t record = line->records[i], k = record >> 30, freq = record >> BITS & (TOTAL - 1), state = x[k];
        if (has_raws) {
            uint32_t bits = line->raws[i] >> 8, raw = line->raws[i] & 255;
            state = shrunk(state, (uint64_t)state << bits >> 32 != 0, data, &pos) << bits | raw;
        }
        state = shrunk(state, state >> (32 - BITS) >= freq, data, &pos);
        x[k] = state + state / freq * (TOTAL - freq) + (record & (TOTAL - 1));
    }
    if (pos < before) return -1;
    for (int k = num_streams - 1; k >= 0; k--)
        for (int b = 24; b >= 0; b -= 8) data[--pos] = (uint8_t)(x[k] >> b);
    return pos;
}

#endif
