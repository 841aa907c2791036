/* What travels before the symbols of a map: where the levels of contexts begin, and how digits lie. Integers only. */

#include "maps.h"

#include <stdlib.h>

enum { SURVEYED = 2048, MOST_SEEN = 2 * SURVEYED, /* symbols that the model is chosen by, about, and at most */
       FEWEST = 20,                               /* fewer symbols do not tell of a line */
       SIXTEENTH = 16, WARY = 1 };                /* costs are in sixteenths of a bit; one a symbol for each step of scale */

/* What a survey has seen; `foretold` is four times a symbol. */
typedef struct {
    int num;
    uint16_t foretold[MOST_SEEN], act[MOST_SEEN];
    uint8_t symbol[MOST_SEEN];
} Seen;

static void look(const Model *model, const uint8_t *symbols, Seen *seen) {
    int64_t num_rows = model->planes * model->rows, cols = model->cols, step = cols / SURVEYED + 1;
    int64_t stride = num_rows * (cols / step) / SURVEYED + 1;
    for (int64_t a = stride, b = model->rows; b > 1;) { /* the rows of a plane have to come in turns */
        int64_t rest = a % b;
        if (rest == 0) a = ++stride, b = model->rows;
        else a = b, b = rest;
    }
    for (int64_t r = 0; r < num_rows; r += stride) {
        int fill = model->fill, is_first = r % model->rows == 0;
        for (int64_t c = 0; c < cols && seen->num < MOST_SEEN; c += step) {
            const uint8_t *at = symbols + r * cols + c;
            int l = c ? at[-1] : fill, ul = c && !is_first ? at[-1 - cols] : fill, u = is_first ? fill : at[-cols];
            int ur = is_first || c + 1 == cols ? fill : at[1 - cols];
            int median = upper(lower(l, u), lower(upper(l, u), l + u - ul));
            seen->foretold[seen->num] = (uint16_t)(2 * median + l + u);
            seen->act[seen->num] = (uint16_t)(abs(l - ul) + abs(u - ul) + abs(u - ur));
            seen->symbol[seen->num++] = *at;
        }
    }
}

/* Map the first `size` numbers to at most `most` levels that occur about equally often, numbered without gaps. */
static int choose_levels(const uint32_t *counts, int size, int most, uint8_t *levels) {
    int64_t total = 0, before = 0, previous = -1, level = -1;
    for (int k = 0; k < size; k++) total += counts[k];
    for (int k = 0; k < size; k++) {
        int64_t share = counts[k] ? (2 * before + counts[k]) * most / (2 * total) : previous;
        share = share < most ? share : most - 1;
        level += share > previous;
        previous = share;
        before += counts[k];
        levels[k] = (uint8_t)(level < 0 ? 0 : level);
    }
    return level < 0 ? 1 : (int)level + 1;
}

/* The line that foretells symbols best, for each act: slope in eighths, offset. `fill` has a digit of its own. */
static void choose_lines(Model *model, const Seen *seen) {
    struct {
        int64_t num, x, y, xx, xy;
    } sums[MOST_ACTS] = {{0}};
    for (int k = 0; k < seen->num; k++) {
        int64_t act = model->acts[seen->act[k]], x = seen->foretold[k], y = seen->symbol[k];
        if (y == model->fill) continue;
        sums[act].num++, sums[act].x += x, sums[act].y += y, sums[act].xx += x * x, sums[act].xy += x * y;
    }
    for (int act = 0; act < model->num_acts; act++) {
        int64_t num = sums[act].num, x = sums[act].x, y = sums[act].y, spread = num * sums[act].xx - x * x, slope = STEEPEST, offset = 0;
        if (num > FEWEST && spread > 0) slope = (32 * (num * sums[act].xy - x * y) + spread / 2) / spread;
        slope = slope < 0 ? 0 : slope > STEEPEST ? STEEPEST : slope;
        if (num > FEWEST && slope < STEEPEST) offset = (32 * y - slope * x + 16 * num) / (32 * num);
        model->slopes[act] = (uint8_t)slope;
        model->offsets[act] = (uint8_t)(offset < 0 ? 0 : offset >= model->values ? model->values - 1 : offset);
    }
}

/* 16 times the logarithm to base 2 of a count, about. */
static int64_t log_of(int64_t count) {
    int whole = 63 - __builtin_clzll((uint64_t)count);
    return SIXTEENTH * whole + ((count << 4 >> whole) & 15);
}

/* For each act the scale whose digits cost least, if clearly less than that which the mean distance suggests. */
static void choose_scales(Model *model, const Seen *seen) {
    uint16_t counts[MOST_ACTS][MOST_SCALES][DIGITS] = {{{0}}};
    int64_t off[MOST_ACTS] = {0}, num[MOST_ACTS] = {0};
    for (int k = 0; k < seen->num; k += 1 + (seen->num > SURVEYED / 2)) {
        int act = model->acts[seen->act[k]], distance = seen->symbol[k] - middle_of(model, act, seen->foretold[k]);
        if (seen->symbol[k] == model->fill) continue;
        off[act] += abs(distance), num[act]++;
        for (int scale = 0; scale < MOST_SCALES; scale++) counts[act][scale][model->steps[(2 * scale + 1) * FURTHEST + distance] >> 24]++;
    }
    for (int act = 0; act < model->num_acts; act++) {
        int64_t best = INT64_MAX;
        int suggested = 0;
        while (suggested < MOST_SCALES - 1 && num[act] && 5 * off[act] >= num[act] << (suggested + 4)) suggested++;
        for (int scale = 0; scale < MOST_SCALES; scale++) {
            int64_t cost = WARY * abs(scale - suggested) * num[act];
            for (int d = 0; d < DIGITS; d++) {
                int64_t count = counts[act][scale][d];
                if (count) cost += count * (SIXTEENTH * model->bits[scale][d] - log_of(count));
            }
            if (cost < best) best = cost, model->scales[act] = (uint8_t)scale;
        }
    }
}

void survey_map(Model *model, const uint8_t *symbols, int most_levels, int most_acts) {
    uint32_t foretells[4 * MOST_VALUES] = {0}, acts[3 * MOST_VALUES] = {0};
    Seen seen;
    seen.num = 0;
    if (most_levels * most_acts > 1) look(model, symbols, &seen);
    for (int k = 0; k < seen.num; k++) {
        if (seen.act[k] == 0 && 4 * seen.symbol[k] == seen.foretold[k]) continue; /* coded apart */
        foretells[seen.foretold[k]]++;
        acts[seen.act[k]]++;
    }
    model->num_levels = choose_levels(foretells, 4 * model->values - 3, most_levels, model->levels);
    model->num_acts = choose_levels(acts, 3 * model->values - 2, most_acts, model->acts);
    if (model->values < MANY_VALUES || is_plain(model)) return;
    choose_lines(model, &seen);
    choose_scales(model, &seen);
}

void lay_digits(Model *model) {
    /* in steps of a scale, either side of zero; zero alone is apart at the finest scale, which has digits for a side more */
    static const int STARTS[2][9] = {{0, 1, 2, 3, 5, 9, 17, 33, FURTHEST}, {0, 1, 2, 3, 5, 9, 17, FURTHEST}};
    for (int scale = 0; scale < MOST_SCALES; scale++) {
        const int *starts = STARTS[scale > 0];
        model->bits[scale][14] = 0, model->bases[scale][14] = 0; /* no encoder uses it at coarse scales */
        for (int d = 0; d < (scale ? 14 : 15); d++) {
            int part = scale ? d / 2 : (d + 1) / 2, size = lower((starts[part + 1] - starts[part]) << scale, MOST_VALUES), bits = 0;
            int base = d % 2 == 0 ? starts[part] << scale : scale ? -(starts[part] << scale) - size : 1 - starts[part] - size;
            while (1 << bits < size) bits++;
            model->bits[scale][d] = (uint8_t)bits;
            model->bases[scale][d] = (int16_t)base;
            for (int r = upper(base, -FURTHEST); r < lower(base + size, FURTHEST); r++)
                model->steps[(2 * scale + 1) * FURTHEST + r] = (uint32_t)(d << 24 | bits << 8 | (r - base));
        }
    }
}

/* Half bytes, the upper one first. */
typedef struct {
    uint8_t *out;
    const uint8_t *in;
    int64_t size, pos; /* in half bytes */
    int is_over;
} Halves;

static int code_half(Halves *halves, int value, int encoding) {
    if (halves->pos >= halves->size) {
        halves->is_over = 1;
        return 0;
    }
    int64_t at = halves->pos++, shift = at % 2 ? 0 : 4;
    if (!encoding) return halves->in[at / 2] >> shift & 15;
    halves->out[at / 2] = (uint8_t)((at % 2 ? halves->out[at / 2] : 0) | value << shift);
    return value;
}

/* A number below 4096 in one, two or four halves. */
static int code_number(Halves *halves, int value, int encoding) {
    int head = code_half(halves, value < 8 ? value : value < 120 ? 8 + (value - 8) / 16 : 15, encoding);
    if (head < 8) return head;
    if (head < 15) return 8 + (head - 8) * 16 + code_half(halves, (value - 8) % 16, encoding);
    int high = code_half(halves, value >> 8, encoding), middle = code_half(halves, value >> 4 & 15, encoding);
    return high << 8 | middle << 4 | code_half(halves, value & 15, encoding);
}

/* Code where `levels` step up. Returns their number, or 0 for more than `most` or steps that lie outside. */
static int code_levels(Halves *halves, uint8_t *levels, int size, int most, int num, int encoding) {
    num = 1 + code_number(halves, num - 1, encoding);
    if (num > most) return 0;
    int k = 0;
    for (int level = 1; level < num; level++) {
        int end = k + 1;
        while (encoding && levels[end] < level) end++;
        end = k + 1 + code_number(halves, end - k - 1, encoding);
        if (end >= size) return 0;
        for (; k < end; k++)
            if (!encoding) levels[k] = (uint8_t)(level - 1);
    }
    for (; !encoding && k < size; k++) levels[k] = (uint8_t)(num - 1);
    return num;
}

static int64_t code_model(Model *model, Halves *halves, int encoding) {
    int values = model->values;
    model->num_levels = code_levels(halves, model->levels, 4 * values - 3, MOST_LEVELS, model->num_levels, encoding);
    if (!model->num_levels) return 0;
    model->num_acts = code_levels(halves, model->acts, 3 * values - 2, MOST_ACTS, model->num_acts, encoding);
    if (!model->num_acts || model->num_levels * model->num_acts > MOST_CONTEXTS) return 0;
    for (int act = 0; values >= MANY_VALUES && !is_plain(model) && act < model->num_acts; act++) {
        int scale = code_half(halves, model->scales[act], encoding), slope = code_half(halves, model->slopes[act], encoding);
        int offset = slope < STEEPEST ? code_number(halves, model->offsets[act], encoding) : 0;
        if (scale >= MOST_SCALES || slope > STEEPEST || offset >= values) return 0;
        model->scales[act] = (uint8_t)scale, model->slopes[act] = (uint8_t)slope, model->offsets[act] = (uint8_t)offset;
    }
    return halves->is_over ? 0 : (halves->pos + 1) / 2;
}

int64_t write_model(Model *model, uint8_t *data, int64_t size) {
    return code_model(model, &(Halves){.out = data, .size = 2 * size}, 1);
}

int64_t read_model(Model *model, const uint8_t *data, int64_t size) {
    return code_model(model, &(Halves){.in = data, .size = 2 * size}, 0);
}
