/* Coder of maps of small integers: adaptive tables of digits, chosen by what the neighbours foretell.

   A symbol's context is `levels[2 * MED + left + up]` with `acts[|l - ul| + |u - ul| + |u - ur|]`, where MED is the
   median predictor of JPEG-LS (Weinberger et al. 2000) and neighbours outside the plane count as `fill`; maps.h says what
   a digit is. Each context has a table of 16 digits that moves, as a whole, a little towards each digit that is seen: by
   less, the more it was learned from. A young table is mixed with that of its level, and in a small map every table is.
   In large maps a flag says first, where all around a symbol are alike, whether it is, too. Integers only: all machines
   make the same bytes.

   Streams take the rows in turns, each two columns behind that of the row above, so that all that is coded at once lies
   close together and tables can follow a map as it changes; where planes are too narrow for that, each has a plane.

   The caller (maps.py) has checked that arrays have the sizes that are passed, that symbols and `fill` are below `values`,
   a power of two up to 256, and that there are at most 256 contexts. Any bytes may come to be decoded: frequencies stay
   above 0 whatever was decoded before, and what was received is copied with zeros behind it, where reading ahead ends. */

#include "maps_coder.h"

#include <stdlib.h>
#include <string.h>

enum { NO_MEMORY = -2, LEAST = 3,           /* what tables move towards is never less frequent */
       SMALL = 32769, FLAT_VALUES = 4,
       EDGE = 16 };                         /* a row is read in eights */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* A table of `num` digits of these weights. */
static Table table_of(const int *weights, int num, int lanes) {
    Table table;
    int total = 0, sum = 0;
    for (int d = 0; d < num; d++) total += weights[d];
    for (int d = 0; d < DIGITS; d++) {
        sum += d < num ? weights[d] : 0;
        table.ends[d] = (int16_t)(d >= lanes - 1 ? -TOTAL : sum * (TOTAL - LEAST * lanes) / total + LEAST * (d + 1));
    }
    return table;
}

static void lay_tables(Coder *coder, int num_contexts, int num_pools) {
    static const int EVEN[DIGITS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    static const int PEAKED[DIGITS] = {11, 11, 9, 9, 7, 7, 9, 9, 7, 7, 3, 3, 1, 1, 1, 6}; /* distances, and `fill` */
    int lanes = coder->lanes, num = coder->kind == WHOLE ? coder->model.values : DIGITS;
    Table first = table_of(coder->kind == DISTANCE ? PEAKED : EVEN, num, lanes);
    for (int k = 0; k <= num_contexts; k++) coder->tables[k] = first;
    for (int k = 0; k < num_pools; k++) pools_of(coder)[k] = first;
    memset(coder->counts, 0, sizeof coder->counts);
    for (int s = 0; s < MOST_VALUES; s++) coder->flat[s] = (Chance){32768, 0};
}

static void lay_targets(Coder *coder) {
    int last = coder->lanes - 1;
    for (int d = 0; d <= last; d++)
        for (int s = 0; s < DIGITS; s++)
            coder->targets[d].ends[s] = (int16_t)(s >= last ? -TOTAL : s < d ? LEAST * (s + 1) : TOTAL - LEAST * (last - s));
    for (int d = 0; d <= last; d++)
        for (int s = 0; s < DIGITS; s++) {
            int sides = coder->targets[upper(d - 1, 0)].ends[s] + coder->targets[lower(d + 1, last)].ends[s];
            coder->soft_targets[d].ends[s] = (int16_t)((2 * coder->targets[d].ends[s] + sides) / 4);
        }
    for (int n = 0; n < 256; n++) {
        coder->rates[n] = (int16_t)(n < 125 ? 655360 / (10 * n + 36) : 65536 >> SHIFT);
        coder->trusts[n] = (int16_t)(n ? 2048 * (4 + 26 * n / (n + 14)) - TOTAL : -TOTAL);
    }
}

/* Lay out what neighbours say of a symbol, and what a digit does. */
static void lay_known(Coder *coder) {
    const Model *model = &coder->model;
    int num_foretold = 4 * model->values - 3, num_activities = 3 * model->values - 2, levels = model->num_levels;
    if (coder->kind == WHOLE)
        for (int a = 0; a < num_activities; a++)
            for (int f = 0; f < num_foretold; f++)
                coder->known[(a << WHOLE_BITS) + f] = (uint16_t)(model->levels[f] + model->acts[a] * levels);
    for (int act = 0; coder->kind == DISTANCE && act < model->num_acts; act++) {
        int scale = model->scales[act];
        for (int f = 0; f < num_foretold; f++)
            coder->known[4 * model->values * act + f] = (uint16_t)(middle_of(model, act, f) << 8 | (model->levels[f] + act * levels));
        for (int d = 0; d < DIGITS; d++) {
            int bits = d < DIGITS - 1 ? model->bits[scale][d] : 0;
            coder->steps[act][d] = (Step){d < DIGITS - 1 ? model->bases[scale][d] : 0, (uint8_t)bits, (uint8_t)((1 << bits) - 1)};
        }
    }
    for (int a = 0; coder->kind == DISTANCE && a < num_activities; a++) {
        coder->starts[a] = (uint16_t)(4 * model->values * model->acts[a]);
        coder->step_starts[a] = (int16_t)(2 * FURTHEST * model->scales[model->acts[a]] + FURTHEST);
    }
}

/* Give the coder its tables. Returns a map with `fill` around each plane, or NULL where there is no memory. */
static uint8_t *begin(Coder *coder) {
    Model *model = &coder->model;
    coder->kind = model->values < MANY_VALUES ? WHOLE : is_plain(model) ? HALVES : DISTANCE;
    coder->has_flats = model->values >= FLAT_VALUES;
    size_t padded_bytes = (size_t)(model->planes * (model->rows + 1) * (model->cols + 1) + 2 + EDGE);
    uint8_t *padded = malloc(padded_bytes);
    if (!padded) return NULL;
    memset(padded, model->fill, padded_bytes);
    int is_halves = coder->kind == HALVES, num = is_halves ? 1 + DIGITS : model->num_levels * model->num_acts;
    lay_tables(coder, num, is_halves ? 2 : model->num_levels);
    for (int k = 0; k < num; k++) coder->pool_of[k] = (uint8_t)(is_halves ? k > 0 : k % model->num_levels), coder->act_of[k] = (uint8_t)(k / model->num_levels);
    lay_known(coder);
    lay_targets(coder);
    return padded;
}

/* A coder that does not know its model yet, or NULL where there is no memory. */
static Coder *new_coder(int64_t planes, int64_t rows, int64_t cols, int64_t fill, int64_t values) {
    Coder *coder = aligned_alloc(_Alignof(Coder), sizeof(Coder));
    if (!coder) return NULL;
    int64_t num = planes * rows * cols, packed_bytes = num * (32 - __builtin_clz((unsigned)values - 1)) / 8;
    int64_t most = packed_bytes < 1500 ? 1 : packed_bytes < 2000 ? 2 : STREAMS; /* a stream costs four bytes */
    Model *model = &coder->model;
    model->planes = planes, model->rows = rows, model->cols = cols, model->fill = (int)fill, model->values = (int)values;
    if (values >= MANY_VALUES) lay_digits(model);
    coder->lanes = values > 8 ? 16 : 8;
    coder->is_small = num < SMALL;
    coder->by_planes = cols < 2 * STREAMS && planes >= STREAMS;
    if (!coder->by_planes) most = least(least(most, planes * rows), cols < 4 ? 1 : cols / 2); /* what is above must be known */
    coder->num_streams = (int)most;
    return coder;
}

/* Encode a map by a coder that knows its model, into `size` bytes. Returns the bytes, -1 when they do not suffice, or NO_MEMORY. */
static int64_t encode_with(Coder *coder, const uint8_t *symbols, uint8_t *data, int64_t size) {
    const Model *model = &coder->model;
    int64_t cols = model->cols, num_rows = model->planes * model->rows, most_records = 2 * num_rows * cols; /* a flag, or a digit, and a digit */
    int64_t num_plans = 2 * cols * coder->num_streams;
    uint32_t *records = malloc((size_t)(4 * (1 + most_records) + 2 * most_records + 2 * num_plans + AHEAD + size));
    uint8_t *padded = records ? begin(coder) : NULL;
    if (!padded) {
        free(records);
        return NO_MEMORY;
    }
    for (int64_t r = 0; r < num_rows; r++) memcpy(row_of(model, padded, r), symbols + r * cols, (size_t)cols);
    *records = record_of(STREAMS - 1, (Span){0, 0});
    Line line = {.records = records + 1, .raws = (uint16_t *)(records + 1 + most_records)};
    coder->plans = line.raws + most_records;
    uint8_t *room = (uint8_t *)(coder->plans + num_plans) + AHEAD, *end = room + size, *first = encode_symbols(coder, &line, padded, room, end);
    if (first) memcpy(data, first, (size_t)(end - first));
    int64_t bytes = first ? end - first : -1;
    free(padded);
    free(records);
    return bytes;
}

/* Code `planes * rows * cols` symbols, at least one, into `data`. Returns the bytes, -1 when `size` is too small for
   them, or NO_MEMORY. At most `most_levels` (64) times `most_acts` (16), at most 256 in all, contexts. */
int64_t encode_map(const uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols, int64_t fill, int64_t values,
                   int64_t most_levels, int64_t most_acts, uint8_t *data, int64_t size) {
    Coder *coder = new_coder(planes, rows, cols, fill, values);
    if (!coder) return NO_MEMORY;
    survey_map(&coder->model, symbols, (int)most_levels, (int)most_acts);
    int64_t side = write_model(&coder->model, data, size), bytes = side ? encode_with(coder, symbols, data + side, size - side) : -1;
    free(coder);
    return bytes < 0 ? bytes : side + bytes;
}

/* Fill `symbols`. Returns 1, 0 when the data are not a whole code of these sizes, or NO_MEMORY. */
int64_t decode_map(const uint8_t *data, int64_t size, uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols,
                   int64_t fill, int64_t values) {
    Coder *coder = new_coder(planes, rows, cols, fill, values);
    if (!coder) return NO_MEMORY;
    int64_t side = read_model(&coder->model, data, size), num_rows = planes * rows, num_bytes = size - side;
    int num_streams = coder->num_streams, is_whole = side > 0 && num_bytes % 2 == 0 && num_bytes >= 4 * num_streams;
    Line line = {0};
    for (int k = 0; is_whole && k < num_streams; k++) {
        const uint8_t *b = data + side + 4 * k;
        line.x[k] = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
        is_whole = line.x[k] >= LOWEST;
    }
    uint8_t *words = is_whole ? calloc(1, (size_t)num_bytes + AHEAD) : NULL, *padded = words ? begin(coder) : NULL;
    int64_t result = is_whole ? NO_MEMORY : 0;
    if (padded) {
        memcpy(words, data + side, (size_t)num_bytes);
        line.next = words + 4 * num_streams, line.last = words + num_bytes;
        is_whole = decode_symbols(coder, &line, padded) && line.next == line.last;
        for (int k = 0; k < num_streams; k++) is_whole = is_whole && line.x[k] == LOWEST;
        for (int64_t r = 0; r < num_rows; r++) memcpy(symbols + r * cols, row_of(&coder->model, padded, r), (size_t)cols);
        result = is_whole;
    }
    free(padded);
    free(words);
    free(coder);
    return result;
}
