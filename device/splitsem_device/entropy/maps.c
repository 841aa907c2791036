/* Coder of maps of small integers: adaptive tables of digits, chosen by what the neighbours foretell.

   A symbol's context is `levels[2 * MED + left + up]` with `acts[|l - ul| + |u - ul| + |u - ur|]`, where MED is the
   median predictor of JPEG-LS (Weinberger et al. 2000) and neighbours outside the plane count as `fill`; maps.h says what
   a digit is. Each context has a table of 16 digits that moves, as a whole, a little towards each digit that is seen: by
   less, the more it was learned from. A young table is mixed with that of its level, and in a small map every table is.
   In large maps a flag says first, where all around a symbol are alike, whether it is, too. Integers only: all machines
   make the same bytes.

   Streams take the rows in turns, each two columns behind that of the row above, so that all that is coded at once lies
   close together and tables can follow a map as it changes; where planes are too narrow for that, each has a plane.

   Encoder and decoder share each function but the last, with `encoding` 1 or 0, so that they cannot drift apart.
   The caller (maps.py) has checked that arrays have the sizes that are passed, that symbols and `fill` are below `values`,
   a power of two up to 256, and that there are at most 256 contexts. Any bytes may come to be decoded: frequencies stay
   above 0 whatever was decoded before, and what was received is copied with zeros behind it, where reading ahead ends. */

#include "maps.h"
#include "maps_rans.h"
#include "maps_tables.h"

#include <stdlib.h>
#include <string.h>

enum { NO_MEMORY = -2, LEAST = 3,                 /* what tables move towards is never less frequent */
       SMALL = 32769, FLAT_VALUES = 4, YOUNG = 40, SOFT = 12, SHIFT = 7,
       WHOLE = 0, DISTANCE = 1, HALVES = 2 };     /* kinds: what digits are of a symbol */
/* a chance moves by 2^-shift, by less the more it was learned from */
static const uint8_t FLAT_SHIFTS[] = {1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6};

/* How often a symbol is what all around it are. */
typedef struct {
    uint16_t same; /* in 65536ths */
    uint16_t count;
} Chance;

typedef struct {
    Model model;
    int kind, lanes, is_small, by_planes, num_streams, has_flats;
    uint8_t firsts[3 * MOST_VALUES];             /* the first context of each activity */
    Table *contexts, *pools;                     /* pools: a table for all contexts of a level */
    uint8_t *counts;                             /* of what each of them was learned from, up to 255 */
    Table targets[DIGITS], soft_targets[DIGITS]; /* what tables move towards; soft: a neighbour was as likely seen, half */
    int16_t rates[256], trusts[256];             /* after so many digits: how far to move; the share of the own table */
    Chance flat[MOST_VALUES];
} Coder;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

typedef struct {
    uint32_t entry;
    int digit;
} Found;

/* A digit by a mix of a context's table and that of its pool, which both learn. */
INLINE Found mix(Coder *coder, int context, int pooled, uint32_t slot, int digit, int lanes, int encoding) {
    Eight *a = (Eight *)coder->contexts[context].ends, *b = (Eight *)coder->pools[pooled].ends, mixed[3];
    uint8_t *own_count = coder->counts + context, *pool_count = own_count + (coder->pools - coder->contexts) + pooled - context;
    int n = *own_count, m = *pool_count;
    mixed[0] = eight(-TOTAL);
    for (int i = 0; i < lanes / 8; i++) {
        Eight apart = a[i] - b[i];
        mixed[i + 1] = b[i] + (apart >> 1) + high8(apart, eight(coder->trusts[n]));
    }
    if (!encoding) digit = find(mixed + 1, slot, lanes);
    Found found = {entry_of((const int16_t *)mixed + 8, digit), digit};
    const Eight *target = (const Eight *)(n < SOFT && lanes > 8 ? coder->soft_targets : coder->targets)[digit].ends;
    for (int i = 0; i < lanes / 8; i++) {
        a[i] -= high8(a[i] - target[i], eight(coder->rates[n]));
        b[i] -= high8(b[i] - target[i], eight(coder->rates[m]));
    }
    *own_count = (uint8_t)(n + (n < 255));
    *pool_count = (uint8_t)(m + (m < 255));
    return found;
}

static __attribute__((noinline)) Found mix_young(Coder *coder, int context, int pooled, uint32_t slot, int digit, int encoding) {
    if (coder->lanes == 8) return mix(coder, context, pooled, slot, digit, 8, encoding);
    return mix(coder, context, pooled, slot, digit, 16, encoding);
}

/* Code a digit of stream k by a context's table; returns it. */
INLINE int code_digit(Coder *coder, Line *line, int k, int context, int pooled, int digit, int lanes, int is_small, int encoding) {
    uint32_t slot = encoding ? 0 : line->x[k] & (TOTAL - 1), entry;
    if (is_small) {
        Found found = mix(coder, context, pooled, slot, digit, lanes, encoding);
        entry = found.entry, digit = found.digit;
    } else if (__builtin_expect(coder->counts[context] < YOUNG, 0)) {
        Found found = mix_young(coder, context, pooled, slot, digit, encoding);
        entry = found.entry, digit = found.digit;
    } else {
        Eight *ends = (Eight *)coder->contexts[context].ends;
        if (!encoding) digit = find(ends, slot, lanes);
        entry = entry_of(coder->contexts[context].ends, digit);
        const Eight *target = (const Eight *)coder->targets[digit].ends;
        for (int i = 0; i < lanes / 8; i++) ends[i] -= (ends[i] - target[i]) >> SHIFT;
    }
    if (encoding)
        line->records[line->num_records++] = (uint32_t)k << 30 | entry;
    else
        advance(line, k, entry, slot);
    return digit;
}

/* Code whether a symbol is `around`, as all around it are; returns 0 or 1. */
INLINE int code_same(Coder *coder, Line *line, int k, int around, int is_same, int kind, int encoding) {
    Chance *chance = &coder->flat[around];
    uint32_t freq = (uint32_t)upper(1, chance->same >> (16 - BITS));
    uint32_t same = freq << BITS, other = (TOTAL - freq) << BITS | freq;
    if (encoding) {
        if (kind == DISTANCE) line->raws[line->num_records] = 0;
        line->records[line->num_records++] = (uint32_t)k << 30 | (is_same ? same : other);
    } else {
        uint32_t slot = line->x[k] & (TOTAL - 1);
        is_same = slot < freq;
        advance(line, k, is_same ? same : other, slot);
    }
    int shift = FLAT_SHIFTS[chance->count];
    chance->same = (uint16_t)(chance->same + (is_same ? (65535 - chance->same) >> shift : -(chance->same >> shift)));
    chance->count += chance->count < 31;
    return is_same;
}

/* Code a symbol of stream k; returns it, below `values`. */
INLINE int code_symbol(Coder *coder, Line *line, int k, int foretold, int activity, int left, int symbol, int lanes, int kind, int is_small, int encoding) {
    const Model *model = &coder->model;
    if (!is_small && activity == 0 && coder->has_flats && code_same(coder, line, k, left, symbol == left, kind, encoding)) return left;
    if (kind == HALVES) {
        int high = code_digit(coder, line, k, 0, 0, symbol >> 4, lanes, is_small, encoding);
        int low = code_digit(coder, line, k, 1 + high, 1, symbol & 15, lanes, is_small, encoding);
        return (16 * high + low) & (model->values - 1);
    }
    int level = model->levels[foretold], context = level + coder->firsts[activity];
    if (kind == WHOLE) return code_digit(coder, line, k, context, level, symbol, lanes, is_small, encoding) & (model->values - 1);
    int act = model->acts[activity], scale = model->scales[act], middle = middle_of(model, act, foretold);
    int digit = symbol == model->fill ? DIGITS - 1 : model->digits[scale][symbol - middle + FURTHEST];
    digit = code_digit(coder, line, k, context, level, digit, lanes, is_small, encoding);
    if (digit == DIGITS - 1) {
        if (encoding) line->raws[line->num_records - 1] = 0;
        return model->fill;
    }
    int bits = model->bits[scale][digit], base = middle + model->bases[scale][digit];
    if (!encoding) return (base + take_raw(line, k, bits)) & (model->values - 1);
    line->raws[line->num_records - 1] = (uint16_t)(bits << 8 | (symbol - base));
    return symbol;
}

/* Code `steps` symbols of each of `num` streams, by turns. Returns 0 when the words ran out. */
INLINE int code_steps(Coder *coder, Line *line, uint8_t **at, const int *streams, int num, int64_t steps, int lanes, int kind, int is_small, int encoding) {
    int64_t stride = coder->model.cols + 1;
    Eight l = {0}, ul = {0}, u = {0}, ur = {0};
#pragma GCC unroll 4
    for (int j = 0; j < num; j++) {
        const uint8_t *here = at[streams[j]];
        l[j] = here[-1], ul[j] = here[-1 - stride], u[j] = here[-stride];
    }
    for (int64_t c = 0; c < steps; c++) {
#pragma GCC unroll 4
        for (int j = 0; j < num; j++) ur[j] = at[streams[j]][c + 1 - stride];
        Eight median = upper8(lower8(l, u), lower8(upper8(l, u), l + u - ul)), foretold = 2 * median + l + u;
        Eight activity = upper8(l, ul) - lower8(l, ul) + upper8(u, ul) - lower8(u, ul) + upper8(u, ur) - lower8(u, ur);
        ul = u, u = ur;
#pragma GCC unroll 4
        for (int j = 0; j < num; j++) {
            uint8_t *here = at[streams[j]] + c;
            int symbol = encoding ? *here : 0;
            symbol = code_symbol(coder, line, streams[j], foretold[j], activity[j], l[j], symbol, lanes, kind, is_small, encoding);
            if (!encoding) *here = (uint8_t)symbol;
            l[j] = (int16_t)symbol;
        }
        if (!encoding && line->pos > line->last) return 0;
    }
    for (int j = 0; j < num; j++) at[streams[j]] += steps;
    return 1;
}

/* Where row r of all begins in a map with `fill` around each plane. */
static uint8_t *row_of(const Model *model, uint8_t *padded, int64_t r) {
    return padded + (r + r / model->rows + 1) * (model->cols + 1) + 1;
}

/* Code all symbols. Returns 0 when the words ran out. */
INLINE int code_rows(Coder *coder, Line *line, uint8_t *padded, int lanes, int kind, int is_small, int encoding) {
    static const int ALL[STREAMS] = {0, 1, 2, 3};
    int64_t cols = coder->model.cols, rows = coder->model.rows, num_rows = coder->model.planes * rows, row[STREAMS], left[STREAMS], step = 0;
    uint8_t *at[STREAMS];
    int num_streams = coder->num_streams, lag = coder->by_planes ? 0 : 2;
    for (int k = 0; k < num_streams; k++) {
        row[k] = coder->by_planes ? k * rows : k, left[k] = cols;
        at[k] = row_of(&coder->model, padded, row[k]);
    }
    for (;;) {
        int streams[STREAMS], num = 0, goes_on;
        int64_t steps = cols;
        for (int k = 0; k < num_streams; k++) {
            if (row[k] >= num_rows) continue;
            steps = least(steps, step < lag * k ? lag * k - step : left[k]);
            if (step >= lag * k) streams[num++] = k;
        }
        if (!num) return 1;
        if (num == STREAMS)
            goes_on = code_steps(coder, line, at, ALL, STREAMS, steps, lanes, kind, is_small, encoding);
        else
            goes_on = code_steps(coder, line, at, streams, num, steps, lanes, kind, is_small, encoding);
        if (!goes_on) return 0;
        step += steps;
        for (int j = 0; j < num; j++) {
            int k = streams[j];
            if (left[k] -= steps) continue;
            left[k] = cols;
            if (!coder->by_planes) row[k] += num_streams;
            else if (++row[k] % rows == 0) row[k] += (num_streams - 1) * rows;
            if (row[k] < num_rows) at[k] = row_of(&coder->model, padded, row[k]);
        }
    }
}

typedef int Code(Coder *, Line *, uint8_t *);
#define CODE(name, lanes, kind, is_small) \
    static int encode_##name(Coder *coder, Line *line, uint8_t *padded) { return code_rows(coder, line, padded, lanes, kind, is_small, 1); } \
    static int decode_##name(Coder *coder, Line *line, uint8_t *padded) { return code_rows(coder, line, padded, lanes, kind, is_small, 0); }
CODE(few_small, 8, WHOLE, 1)
CODE(few_large, 8, WHOLE, 0)
CODE(some_small, 16, WHOLE, 1)
CODE(some_large, 16, WHOLE, 0)
CODE(many_small, 16, DISTANCE, 1)
CODE(many_large, 16, DISTANCE, 0)
CODE(halves, 16, HALVES, 0)

static int code_all(Coder *coder, Line *line, uint8_t *padded, int encoding) {
    static Code *const CODES[][2][2] = {{{decode_few_large, encode_few_large}, {decode_few_small, encode_few_small}},
                                        {{decode_some_large, encode_some_large}, {decode_some_small, encode_some_small}},
                                        {{decode_many_large, encode_many_large}, {decode_many_small, encode_many_small}},
                                        {{decode_halves, encode_halves}, {decode_halves, encode_halves}}};
    int row = coder->kind == WHOLE ? coder->lanes == 16 : 1 + coder->kind;
    return CODES[row][coder->is_small][encoding](coder, line, padded);
}

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

/* Give the coder its tables. Returns a map with `fill` around each plane, or NULL where there is no memory. */
static uint8_t *begin(Coder *coder) {
    static const int EVEN[DIGITS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    static const int PEAKED[DIGITS] = {11, 11, 9, 9, 7, 7, 9, 9, 7, 7, 3, 3, 1, 1, 1, 6}; /* distances, and `fill` */
    Model *model = &coder->model;
    int values = model->values, lanes = coder->lanes, is_plain_map = is_plain(model);
    coder->kind = values < MANY_VALUES ? WHOLE : is_plain_map ? HALVES : DISTANCE;
    coder->has_flats = values >= FLAT_VALUES;
    int num_contexts = coder->kind == HALVES ? 1 + DIGITS : model->num_levels * model->num_acts;
    int num = num_contexts + (coder->kind == HALVES ? 2 : model->num_levels);
    size_t padded_bytes = (size_t)(model->planes * (model->rows + 1) * (model->cols + 1) + 2);
    uint8_t *padded = malloc(padded_bytes);
    Table *tables = malloc((size_t)(num + 1) * (sizeof(Table) + 1)); /* one before the first, for entry_of; the counts */
    if (!padded || !tables) {
        free(padded);
        free(tables);
        return NULL;
    }
    memset(padded, model->fill, padded_bytes);
    coder->contexts = tables + 1;
    coder->pools = coder->contexts + num_contexts;
    coder->counts = (uint8_t *)(tables + num + 1);
    memset(coder->counts, 0, (size_t)num);
    tables[0] = coder->kind == DISTANCE ? table_of(PEAKED, DIGITS, lanes) : table_of(EVEN, coder->kind == WHOLE ? values : DIGITS, lanes);
    for (int k = 1; k <= num; k++) tables[k] = tables[0];
    for (int s = 0; s < MOST_VALUES; s++) coder->flat[s] = (Chance){32768, 0};
    for (int k = 0; k <= 3 * (values - 1); k++) coder->firsts[k] = (uint8_t)(model->acts[k] * model->num_levels);
    lay_targets(coder);
    return padded;
}

/* A coder that does not know its model yet, or NULL where there is no memory. */
static Coder *new_coder(int64_t planes, int64_t rows, int64_t cols, int64_t fill, int64_t values) {
    Coder *coder = malloc(sizeof(Coder));
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

/* Code `planes * rows * cols` symbols, at least one, into `data`. Returns the bytes, -1 when `size` is too small for
   them, or NO_MEMORY. At most `most_levels` (64) times `most_acts` (16), at most 256 in all, contexts. */
int64_t encode_map(const uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols, int64_t fill, int64_t values,
                   int64_t most_levels, int64_t most_acts, uint8_t *data, int64_t size) {
    int64_t num_rows = planes * rows, most_records = 2 * num_rows * cols, bytes = NO_MEMORY; /* a flag, or a digit, and a digit */
    Coder *coder = new_coder(planes, rows, cols, fill, values);
    Line line = {.records = malloc((size_t)most_records * (sizeof(uint32_t) + sizeof(uint16_t)))};
    uint8_t *padded = NULL;
    int64_t side = 0;
    if (coder && line.records) {
        survey_map(&coder->model, symbols, (int)most_levels, (int)most_acts);
        side = write_model(&coder->model, data, size);
        if (!side) bytes = -1;
        else padded = begin(coder);
    }
    if (padded) {
        line.raws = (uint16_t *)(line.records + most_records);
        for (int64_t r = 0; r < num_rows; r++) memcpy(row_of(&coder->model, padded, r), symbols + r * cols, (size_t)cols);
        code_all(coder, &line, padded, 1);
        int64_t first = coder->kind == DISTANCE ? push(&line, coder->num_streams, data + side, size - side, 1)
                                                : push(&line, coder->num_streams, data + side, size - side, 0);
        if (first >= 0) memmove(data + side, data + side + first, (size_t)(size - side - first));
        bytes = first < 0 ? -1 : size - first;
        free(coder->contexts - 1);
    }
    free(padded);
    free(line.records);
    free(coder);
    return bytes;
}

/* Fill `symbols`. Returns 1, 0 when the data are not a whole code of these sizes, or NO_MEMORY. */
int64_t decode_map(const uint8_t *data, int64_t size, uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols,
                   int64_t fill, int64_t values) {
    Coder *coder = new_coder(planes, rows, cols, fill, values);
    if (!coder) return NO_MEMORY;
    int64_t side = read_model(&coder->model, data, size), num_rows = planes * rows, num_bytes = size - side;
    int num_streams = coder->num_streams, is_whole = side > 0 && num_bytes % 2 == 0 && num_bytes >= 4 * num_streams;
    Line line = {.pos = 2 * num_streams, .last = num_bytes / 2};
    for (int k = 0; is_whole && k < num_streams; k++) {
        const uint8_t *b = data + side + 4 * k;
        line.x[k] = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
        is_whole = line.x[k] >= LOWEST;
    }
    uint8_t *words = is_whole ? calloc(1, (size_t)num_bytes + AHEAD) : NULL, *padded = words ? begin(coder) : NULL;
    int64_t result = is_whole ? NO_MEMORY : 0;
    if (padded) {
        memcpy(words, data + side, (size_t)num_bytes);
        line.words = words;
        is_whole = code_all(coder, &line, padded, 0) && line.pos == line.last;
        for (int k = 0; k < num_streams; k++) is_whole = is_whole && line.x[k] == LOWEST;
        for (int64_t r = 0; r < num_rows; r++) memcpy(symbols + r * cols, row_of(&coder->model, padded, r), (size_t)cols);
        free(coder->contexts - 1);
        result = is_whole;
    }
    free(padded);
    free(words);
    free(coder);
    return result;
}
