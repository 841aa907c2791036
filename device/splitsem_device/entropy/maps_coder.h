/* What a coder of maps holds while it works, and in which order rows come. */

#ifndef SPLITSEM_MAPS_CODER_H
#define SPLITSEM_MAPS_CODER_H

#include "maps.h"
#include "maps_rans.h"
#include "maps_tables.h"

enum { YOUNG = 40, SOFT = 12,
       WHOLE = 0, DISTANCE = 1, HALVES = 2, /* kinds: what digits are of a symbol */
       WHOLE_BITS = 6,                      /* below MANY_VALUES, four times what is foretold takes so many */
       FLAT_AT = 15, SAME_AT = 14 };        /* of a place: all around are alike, and the symbol is, too; digit << 8 | context */

/* How often a symbol is what all around it are. */
typedef struct {
    uint16_t same; /* in 65536ths */
    uint16_t count;
} Chance;

/* What a digit of a distance says: the least of its distances, and how many raw bits say the rest. */
typedef struct {
    int16_t base;
    uint8_t bits, mask;
} Step;

typedef struct {
    Model model;
    int kind, lanes, is_small, by_planes, num_streams, has_flats;
    uint16_t *plans;                                   /* encoder: for each stream a row of places, and one of raw bits */
    Table tables[1 + MOST_CONTEXTS + MOST_LEVELS];     /* one before the first, for span_of; pools: one for all of a level */
    uint8_t counts[MOST_CONTEXTS + MOST_LEVELS];       /* of what each of them was learned from, up to 255 */
    uint8_t pool_of[MOST_CONTEXTS], act_of[MOST_CONTEXTS];
    Table targets[DIGITS], soft_targets[DIGITS];       /* what tables move towards; soft: a neighbour was as likely seen, half */
    int16_t rates[256], trusts[256];                   /* after so many digits: how far to move; the share of the own table */
    Chance flat[MOST_VALUES];
    uint16_t known[MOST_ACTS * 4 * MOST_VALUES];       /* what is foretold << 8 | context */
    uint16_t starts[3 * MOST_VALUES];                  /* of each activity: where in `known` */
    int16_t step_starts[3 * MOST_VALUES];              /* and where in the model's `steps` the distance 0 is */
    Step steps[MOST_ACTS][DIGITS];
} Coder;

INLINE Table *contexts_of(Coder *coder) { return coder->tables + 1; }
INLINE Table *pools_of(Coder *coder) { return coder->tables + 1 + MOST_CONTEXTS; }

/* Where each stream is. */
typedef struct {
    uint8_t *at[STREAMS];
    int64_t row[STREAMS], left[STREAMS], step;
} Turn;

/* Where row r of all begins in a map with `fill` around each plane. */
static inline uint8_t *row_of(const Model *model, uint8_t *padded, int64_t r) {
    return padded + (r + r / model->rows + 1) * (model->cols + 1) + 1;
}

static inline void begin_turn(const Coder *coder, Turn *turn, uint8_t *padded) {
    turn->step = 0;
    for (int k = 0; k < coder->num_streams; k++) {
        turn->row[k] = coder->by_planes ? k * coder->model.rows : k, turn->left[k] = coder->model.cols;
        turn->at[k] = row_of(&coder->model, padded, turn->row[k]);
    }
}

/* The streams that come next, and how many steps each. */
static inline int64_t next_steps(const Coder *coder, const Turn *turn, int *streams, int *num) {
    int64_t steps = coder->model.cols, num_rows = coder->model.planes * coder->model.rows, lag = coder->by_planes ? 0 : 2;
    for (int k = 0; k < coder->num_streams; k++) {
        if (turn->row[k] >= num_rows) continue;
        int64_t most = turn->step < lag * k ? lag * k - turn->step : turn->left[k];
        steps = most < steps ? most : steps;
        if (turn->step >= lag * k) streams[(*num)++] = k;
    }
    return steps;
}

/* Stream k has made these steps. Returns 1 when it begins another row. */
static inline int end_steps(const Coder *coder, Turn *turn, uint8_t *padded, int k, int64_t steps) {
    const Model *model = &coder->model;
    int64_t *row = &turn->row[k];
    turn->at[k] += steps;
    if (turn->left[k] -= steps) return 0;
    turn->left[k] = model->cols;
    if (!coder->by_planes) *row += coder->num_streams;
    else if (++*row % model->rows == 0) *row += (coder->num_streams - 1) * model->rows;
    if (*row >= model->planes * model->rows) return 0;
    turn->at[k] = row_of(model, padded, *row);
    return 1;
}

/* Encode all symbols of a map with `fill` around each plane. Returns the first of the words that end at `end`, or NULL; see push. */
uint8_t *encode_symbols(Coder *coder, Line *line, uint8_t *padded, const uint8_t *least, uint8_t *end);

/* Decode all symbols. Returns 0 when the words ran out. */
int decode_symbols(Coder *coder, Line *line, uint8_t *padded);

#endif
