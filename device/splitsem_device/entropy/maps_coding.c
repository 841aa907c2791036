/* The work on each symbol of a map.

   The encoder knows all symbols. It plans a row at a time: contexts and digits. Then tables learn the digits in the order of
   coding, and leave records, which are pushed in the end. The decoder finds the digits of all streams before it takes words
   for any, so that a processor works at all of them at once; not where a flag comes first. Encoder and decoder share
   whatever learns, and what neighbours say, so that they cannot drift apart. */

#include "maps_coder.h"

/* Of four times a symbol, what left, above left and above foretell; and how much all around a symbol differ. */
INLINE Eight foretold_of(Eight l, Eight ul, Eight u) {
    return 2 * upper8(lower8(l, u), lower8(upper8(l, u), l + u - ul)) + l + u;
}
INLINE Eight activity_of(Eight l, Eight ul, Eight u, Eight ur) {
    return upper8(l, ul) - lower8(l, ul) + upper8(u, ul) - lower8(u, ul) + upper8(u, ur) - lower8(u, ur);
}

/* A digit and its slots, of a table. */
typedef struct {
    Span span;
    int digit;
} Found;

/* A digit by a mix of a context's table and that of its pool, which both learn. */
INLINE Found mix(Coder *coder, int context, int pooled, uint32_t slot, int digit, int lanes, int encoding) {
    Eight *a = (Eight *)contexts_of(coder)[context].ends, *b = (Eight *)pools_of(coder)[pooled].ends, mixed[3];
    uint8_t *own_count = coder->counts + context, *pool_count = coder->counts + MOST_CONTEXTS + pooled;
    int n = *own_count, m = *pool_count;
    mixed[0] = eight(-TOTAL);
    for (int i = 0; i < lanes / 8; i++) {
        Eight apart = a[i] - b[i];
        mixed[i + 1] = b[i] + (apart >> 1) + high8(apart, eight(coder->trusts[n]));
    }
    if (!encoding) digit = find((const int16_t *)(mixed + 1), slot, lanes);
    Found found = {span_of((const int16_t *)(mixed + 1), digit), digit};
    const Eight *target = (const Eight *)(n < SOFT && lanes > 8 ? coder->soft_targets : coder->targets)[digit].ends;
    for (int i = 0; i < lanes / 8; i++) {
        a[i] -= high8(a[i] - target[i], eight(coder->rates[n]));
        b[i] -= high8(b[i] - target[i], eight(coder->rates[m]));
    }
    *own_count = (uint8_t)(n + (n < 255));
    *pool_count = (uint8_t)(m + (m < 255));
    return found;
}

static __attribute__((noinline)) Found mix_young(Coder *coder, int context, uint32_t slot, int digit, int encoding) {
    int pooled = coder->pool_of[context];
    if (coder->lanes == 8) return mix(coder, context, pooled, slot, digit, 8, encoding);
    return mix(coder, context, pooled, slot, digit, 16, encoding);
}

/* A digit by a context's table, which learns it; the decoder's digit is that of `slot`. */
INLINE Found code_digit(Coder *coder, int context, uint32_t slot, int digit, int lanes, int is_small, int encoding) {
    if (is_small) return mix(coder, context, coder->pool_of[context], slot, digit, lanes, encoding);
    if (__builtin_expect(coder->counts[context] < YOUNG, 0)) return mix_young(coder, context, slot, digit, encoding);
    int16_t *ends = contexts_of(coder)[context].ends;
    if (!encoding) digit = find(ends, slot, lanes);
    Found found = {span_of(ends, digit), digit};
    learn(ends, coder->targets[digit].ends, lanes);
    return found;
}

/* A chance learns whether a symbol was what all around it are. */
INLINE void learn_same(Chance *chance, int is_same) {
    /* a chance moves by 2^-shift, by less the more it was learned from */
    static const uint8_t SHIFTS[] = {1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6};
    int shift = SHIFTS[chance->count];
    chance->same = (uint16_t)(chance->same + (is_same ? (65535 - chance->same) >> shift : -(chance->same >> shift)));
    chance->count += chance->count < 31;
}

INLINE uint32_t freq_of(const Chance *chance) { return (uint32_t)upper(1, chance->same >> (16 - BITS)); }

/* Plan row k of those that are coded at once: for each symbol a place, and what raw bits it has. */
INLINE void plan_row(Coder *coder, const uint8_t *at, int k, int kind, int is_small) {
    const Model *model = &coder->model;
    int64_t cols = model->cols, stride = cols + 1;
    uint16_t *places = coder->plans + 2 * cols * k, *raws = places + cols;
    int has_flats = !is_small && coder->has_flats, fill = model->fill;
    for (int64_t c = 0; c < cols; c += 8) {
        const uint8_t *here = at + c, *above = here - stride;
        Eight l = eight_from(here - 1), ul = eight_from(above - 1), u = eight_from(above), ur = eight_from(above + 1), symbols = eight_from(here);
        Eight foretold = foretold_of(l, ul, u), activity = activity_of(l, ul, u, ur), is_flat = (Eight)(activity == 0);
        Eight marks = is_flat & (eight(has_flats << FLAT_AT) | ((Eight)(symbols == l) & eight(has_flats << SAME_AT)));
        uint16_t f[8], a[8], place[8];
        if (kind == WHOLE) marks |= symbols << 8, foretold += activity << WHOLE_BITS;
        memcpy(f, &foretold, sizeof f);
        memcpy(a, &activity, sizeof a);
        memcpy(place, &marks, sizeof place);
        for (int i = 0, num = (int)(cols - c < 8 ? cols - c : 8); i < num; i++) {
            if (kind == WHOLE) place[i] |= coder->known[f[i]];
            if (kind == DISTANCE) {
                unsigned known = coder->known[coder->starts[a[i]] + f[i]];
                uint32_t step = model->steps[coder->step_starts[a[i]] + here[i] - (int)(known >> 8)];
                step ^= (step ^ (uint32_t)(DIGITS - 1) << 24) & -(uint32_t)(here[i] == fill); /* nobody could foretell a branch */
                raws[c + i] = (uint16_t)step;
                place[i] = (uint16_t)(place[i] | (known & 255) | step >> 16);
            }
            places[c + i] = place[i];
        }
    }
}

INLINE void encode_digit(Coder *coder, Line *line, int k, int context, int digit, int lanes, int is_small) {
    line->records[line->num_records++] = record_of(k, code_digit(coder, context, 0, digit, lanes, is_small, 1).span);
}

/* Encode a symbol of stream k, which was planned. */
INLINE void encode_symbol(Coder *coder, Line *line, int k, unsigned place, unsigned raw, const uint8_t *here, int lanes, int kind, int is_small) {
    if (!is_small && place >> FLAT_AT & 1) {
        Chance *chance = &coder->flat[here[-1]];
        uint32_t freq = freq_of(chance);
        int is_same = place >> SAME_AT & 1;
        if (kind == DISTANCE) line->raws[line->num_records] = 0;
        line->records[line->num_records++] = record_of(k, is_same ? (Span){0, freq} : (Span){freq, TOTAL - freq});
        learn_same(chance, is_same);
        if (is_same) return;
        place &= ((unsigned)1 << SAME_AT) - 1;
    }
    if (kind == HALVES) {
        encode_digit(coder, line, k, 0, *here >> 4, lanes, is_small);
        encode_digit(coder, line, k, 1 + (*here >> 4), *here & 15, lanes, is_small);
        return;
    }
    if (kind == DISTANCE) line->raws[line->num_records] = (uint16_t)raw;
    encode_digit(coder, line, k, place & 255, (int)(place >> 8), lanes, is_small);
}

/* Encode `steps` symbols of each of `num` streams, by turns. */
INLINE void encode_steps(Coder *coder, Line *all, const Turn *turn, const int *streams, int num, int64_t steps, int lanes, int kind, int is_small) {
    Line line = *all; /* a copy stays in registers */
    int64_t cols = coder->model.cols;
    const uint16_t *places[STREAMS];
    const uint8_t *at[STREAMS];
    for (int j = 0; j < num; j++) {
        places[j] = coder->plans + (2 * streams[j] + 1) * cols - turn->left[streams[j]];
        at[j] = turn->at[streams[j]];
    }
    for (int64_t c = 0; c < steps; c++)
#pragma GCC unroll 4
        for (int j = 0; j < num; j++)
            encode_symbol(coder, &line, streams[j], places[j][c], kind == DISTANCE ? places[j][c + cols] : 0, at[j] + c, lanes, kind, is_small);
    *all = line;
}

/* The next digit of stream k. Its slots are taken; the state has still to be filled. */
INLINE int decode_digit(Coder *coder, Line *line, int k, int context, int lanes, int is_small) {
    uint32_t slot = line->x[k] & (TOTAL - 1);
    Found found = code_digit(coder, context, slot, 0, lanes, is_small, 0);
    take(line, k, found.span, slot);
    return found.digit;
}

/* What is known of a symbol: its context, and from MANY_VALUES on what is foretold << 8. */
INLINE unsigned known_of(const Coder *coder, unsigned foretold, unsigned activity, int kind) {
    return coder->known[kind == WHOLE ? foretold : coder->starts[activity] + foretold];
}

/* The symbol of a digit of stream k, whose state is filled and whose raw bits are taken. */
INLINE int finish(const Coder *coder, Line *line, int k, int digit, unsigned known, int last, int kind) {
    if (kind == WHOLE) {
        fill(line, k);
        return digit & last;
    }
    const Step *step = &coder->steps[coder->act_of[known & 255]][digit];
    int symbol = ((int)(known >> 8) + step->base + fill_and_take_raw(line, k, step->bits, step->mask)) & last;
    return symbol ^ ((symbol ^ coder->model.fill) & -(digit == DIGITS - 1));
}

/* Decode a symbol of stream k; returns it, below `values`. */
INLINE int decode_symbol(Coder *coder, Line *line, int k, unsigned foretold, unsigned activity, int left, int lanes, int kind) {
    int last = coder->model.values - 1;
    if (activity == 0 && coder->has_flats) {
        Chance *chance = &coder->flat[left];
        uint32_t freq = freq_of(chance), slot = line->x[k] & (TOTAL - 1);
        int is_same = slot < freq;
        take(line, k, is_same ? (Span){0, freq} : (Span){freq, TOTAL - freq}, slot);
        fill(line, k);
        learn_same(chance, is_same);
        if (is_same) return left;
    }
    if (kind == HALVES) {
        int high = decode_digit(coder, line, k, 0, lanes, 0);
        fill(line, k);
        int low = decode_digit(coder, line, k, 1 + high, lanes, 0);
        fill(line, k);
        return (16 * high + low) & last;
    }
    unsigned known = known_of(coder, foretold, activity, kind);
    int digit = decode_digit(coder, line, k, known & 255, lanes, 0);
    return finish(coder, line, k, digit, known, last, kind);
}

/* Decode `steps` symbols of each of `num` streams, by turns. Returns 0 when the words ran out. */
INLINE int decode_steps(Coder *coder, Line *all, const Turn *turn, const int *streams, int num, int64_t steps, int lanes, int kind, int is_small) {
    int64_t stride = coder->model.cols + 1;
    int last = coder->model.values - 1, has_flats = !is_small && coder->has_flats;
    Line line = *all; /* a copy stays in registers */
    uint8_t *at[STREAMS];
    Eight l = {0}, ul = {0}, u = {0}, ur = {0};
#pragma GCC unroll 4
    for (int j = 0; j < num; j++) {
        at[j] = turn->at[streams[j]];
        l[j] = at[j][-1], ul[j] = at[j][-1 - stride], u[j] = at[j][-stride];
    }
    for (int64_t c = 0; c < steps; c++) {
#pragma GCC unroll 4
        for (int j = 0; j < num; j++) ur[j] = at[j][c + 1 - stride];
        Eight foretold = foretold_of(l, ul, u), activity = activity_of(l, ul, u, ur);
        if (kind == WHOLE) foretold += activity << WHOLE_BITS;
        int symbols[STREAMS] = {0};
        if (kind == HALVES || (has_flats && has_any((Eight)(activity == 0), num))) {
#pragma GCC unroll 4
            for (int j = 0; j < num; j++)
                symbols[j] = decode_symbol(coder, &line, streams[j], (uint16_t)foretold[j], (uint16_t)activity[j], l[j], lanes, kind);
        } else {
            unsigned known[STREAMS] = {0};
#pragma GCC unroll 4
            for (int j = 0; j < num; j++) {
                known[j] = known_of(coder, (uint16_t)foretold[j], (uint16_t)activity[j], kind);
                symbols[j] = decode_digit(coder, &line, streams[j], known[j] & 255, lanes, is_small);
            }
#pragma GCC unroll 4
            for (int j = 0; j < num; j++) symbols[j] = finish(coder, &line, streams[j], symbols[j], known[j], last, kind);
        }
        ul = u, u = ur;
#pragma GCC unroll 4
        for (int j = 0; j < num; j++) at[j][c] = (uint8_t)symbols[j], l[j] = (int16_t)symbols[j];
        if (line.next > line.last) return 0;
    }
    *all = line;
    return 1;
}

/* Code all symbols. Returns 0 when the words ran out. */
INLINE int code_rows(Coder *coder, Line *line, uint8_t *padded, int lanes, int kind, int is_small, int encoding) {
    static const int ALL[STREAMS] = {0, 1, 2, 3};
    Turn turn;
    begin_turn(coder, &turn, padded);
    for (int k = 0; encoding && k < coder->num_streams; k++) plan_row(coder, turn.at[k], k, kind, is_small);
    for (;;) {
        int streams[STREAMS], num = 0;
        int64_t steps = next_steps(coder, &turn, streams, &num);
        if (!num) return 1;
        if (encoding) {
            if (num == STREAMS) encode_steps(coder, line, &turn, ALL, STREAMS, steps, lanes, kind, is_small);
            else encode_steps(coder, line, &turn, streams, num, steps, lanes, kind, is_small);
        } else if (!(num == STREAMS ? decode_steps(coder, line, &turn, ALL, STREAMS, steps, lanes, kind, is_small)
                                    : decode_steps(coder, line, &turn, streams, num, steps, lanes, kind, is_small)))
            return 0;
        for (int j = 0; j < num; j++)
            if (end_steps(coder, &turn, padded, streams[j], steps) && encoding) plan_row(coder, turn.at[streams[j]], streams[j], kind, is_small);
        turn.step += steps;
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

static Code *code_of(const Coder *coder, int encoding) {
    static Code *const CODES[][2][2] = {{{decode_few_large, encode_few_large}, {decode_few_small, encode_few_small}},
                                        {{decode_some_large, encode_some_large}, {decode_some_small, encode_some_small}},
                                        {{decode_many_large, encode_many_large}, {decode_many_small, encode_many_small}},
                                        {{decode_halves, encode_halves}, {decode_halves, encode_halves}}};
    return CODES[coder->kind == WHOLE ? coder->lanes == 16 : 1 + coder->kind][coder->is_small][encoding];
}

uint8_t *encode_symbols(Coder *coder, Line *line, uint8_t *padded, const uint8_t *least, uint8_t *end) {
    code_of(coder, 1)(coder, line, padded);
    return coder->kind == DISTANCE ? push(line, coder->num_streams, least, end, 1) : push(line, coder->num_streams, least, end, 0);
}

int decode_symbols(Coder *coder, Line *line, uint8_t *padded) { return code_of(coder, 0)(coder, line, padded); }
