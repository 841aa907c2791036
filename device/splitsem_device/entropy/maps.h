/* What the three files of the coder of maps share: what encoder and decoder know before the first symbol. */

#ifndef SPLITSEM_MAPS_H
#define SPLITSEM_MAPS_H

#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

enum { MOST_VALUES = 256, MANY_VALUES = 32, MOST_CONTEXTS = 256, MOST_LEVELS = 64, MOST_ACTS = 16,
       DIGITS = 16, MOST_SCALES = 6, STEEPEST = 8, FURTHEST = 290 };

/* `planes` pictures of `rows * cols` symbols below `values`, a power of two; outside of a plane everything is `fill`.

   A symbol's context is one of `num_levels` by what its neighbours foretell and one of `num_acts` by how much they
   differ. From MANY_VALUES on, a digit says how far a symbol is from what is foretold, or that it is `fill`; raw bits
   say the rest. How far the steps between digits are apart is a matter of scale. Where there is one context, neighbours
   do not matter: a symbol is a high and a low digit. Only levels, acts and, for each act, `slopes`, `offsets` and
   `scales` travel. */
typedef struct {
    int64_t planes, rows, cols;
    int fill, values, num_levels, num_acts;
    uint8_t levels[4 * MOST_VALUES], acts[3 * MOST_VALUES];
    uint8_t slopes[MOST_ACTS], offsets[MOST_ACTS], scales[MOST_ACTS];
    uint32_t steps[MOST_SCALES * 2 * FURTHEST]; /* of a scale and a distance + FURTHEST: digit << 24 | raw bits << 8 | what they are */
    uint8_t bits[MOST_SCALES][DIGITS];          /* how many raw bits a digit has */
    int16_t bases[MOST_SCALES][DIGITS];         /* the least distance of a digit */
} Model;

/* Choose what travels, by every few rows. At most `most_levels` times `most_acts`, at most 256 in all, contexts. */
void survey_map(Model *model, const uint8_t *symbols, int most_levels, int most_acts);

/* Write what travels, or read it. Returns the bytes, or 0 where there is no room, or for what no encoder makes. */
int64_t write_model(Model *model, uint8_t *data, int64_t size);
int64_t read_model(Model *model, const uint8_t *data, int64_t size);

/* Lay out the digits of distances at every scale. */
void lay_digits(Model *model);

INLINE int lower(int a, int b) { return a < b ? a : b; }
INLINE int upper(int a, int b) { return a > b ? a : b; }

static inline int is_plain(const Model *model) { return model->num_levels * model->num_acts == 1; }

/* The symbol that is foretold at an act, by four times what the neighbours foretell. */
INLINE int middle_of(const Model *model, int act, int foretold) {
    return lower((model->slopes[act] * foretold >> 5) + model->offsets[act], model->values - 1);
}

#endif
