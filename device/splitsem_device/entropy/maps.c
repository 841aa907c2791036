/* Coder of maps of small integers: adaptive tables, chosen by what the neighbours foretell; nothing but levels travels.

   A symbol's context is `levels[2 * MED + left + up] + acts[|l - ul| + |u - ul| + |u - ur|]`, where MED is the median
   predictor of JPEG-LS (Weinberger et al. 2000) and neighbours outside the plane count as `fill`. Each context has a
   table of frequencies, made again whenever what it has seen has grown enough; where symbols are many, a table leaves out
   what it has not seen, and an escape leads to the pool of all contexts. Where all around a symbol are alike, a flag says
   first whether it is, too. rANS with 16-bit words (Duda 2014, arXiv
   1311.2540), its states beginning at 2^16. The rows are divided among up to four streams that are coded in turns, so
   that a processor works at four symbols at once. Integers only: all machines make the same bytes.

   Encoder and decoder share each function but the last, with `encoding` 1 or 0, so that they cannot drift apart.
   The caller (maps.py) has checked that arrays have the sizes that are passed, that symbols and `fill` are below `values`,
   a power of two up to 256, and that there are at most 256 contexts. Any bytes may come to be decoded: tables are whole
   whatever was decoded before, and what was received is copied with zeros behind it, where reading ahead ends. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { STREAMS = 4, BITS = 11, TOTAL = 1 << BITS, MOST_VALUES = 256, MANY_VALUES = 32, MOST_CONTEXTS = 256,
       FLAT_VALUES = 16, MOST_LEVELS = 64, MOST_ACTS = 16, AHEAD = 12 * STREAMS, NO_MEMORY = -2,
       SMALL = 32769, SURVEYED = 16384,                                 /* symbols that levels are chosen on, about */
       FIRST = 3, MOST_WAIT = 16000, FORGET_ABOVE = 30000, /* when a table is made again; when it halves what it has seen */
       SHARE_BITS = 19, MOST_SPREAD = 16 };
static const uint32_t LOWEST = (uint32_t)1 << 16;
/* a chance moves by 2^-shift, by less the more it was learned from */
static const uint8_t FLAT_SHIFTS[] = {1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 6};

typedef struct {
    uint32_t seen[MOST_VALUES], entries[MOST_VALUES]; /* entries: frequency << 16 | start */
    uint16_t fresh[MOST_VALUES];                      /* seen since the table was made */
    int32_t left, total, limit;                       /* symbols until it is made again; seen; first slot that escapes */
    uint8_t slots[TOTAL + 8];                         /* the symbol of each slot */
} Table;

/* How often a symbol is what all around it are. */
typedef struct {
    uint16_t same; /* in 65536ths */
    uint16_t count;
} Chance;

typedef struct {
    int64_t planes, rows, cols;
    int fill, values, num_contexts, num_streams;
    int no_flats; /* no flags where all around a symbol are alike */
    int haste;    /* a table is made again at 1 + 1 / haste times what it had seen */
    uint8_t levels[4 * MOST_VALUES], acts[3 * MOST_VALUES];
    Table *tables, *pool; /* `num_contexts` and, behind them, the pool */
    Table *use[MOST_CONTEXTS];
    Chance flat[MOST_VALUES];
} Coder;

/* What is coded; apart from the Coder, so that a processor keeps it in registers. */
typedef struct {
    uint32_t *records;    /* encoder: stream << 30 | frequency << 16 | start, in the order of coding */
    int64_t num_records;
    uint32_t x[STREAMS];  /* decoder: states */
    const uint8_t *words;
    int64_t pos, last;    /* words read, and how many there are */
} Line;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int lower(int a, int b) { return a < b ? a : b; }
INLINE int upper(int a, int b) { return a > b ? a : b; }

INLINE int foretold(int l, int ul, int u) {
    return 2 * upper(lower(l, u), lower(upper(l, u), l + u - ul)) + l + u;
}
INLINE int activity(int l, int ul, int u, int ur) { return abs(l - ul) + abs(u - ul) + abs(u - ur); }

/* Turn weights into a table. Where every symbol `must` have a slot, nothing escapes. */
static void make_table(Table *table, const uint32_t *weights, int values, int must, int is_decoding) {
    int32_t freq[MOST_VALUES], used = 0, largest = 0, highest = 0, start = 0;
    uint32_t sum = 1, lost = 0;
    for (int s = 0; s < values; s++) sum += weights[s];
    uint32_t scale = ((uint32_t)(must ? TOTAL - values : TOTAL - 1) << SHARE_BITS) / sum;
    for (int s = 0; s < values; s++) {
        uint32_t share = weights[s] * scale; /* at most TOTAL << SHARE_BITS */
        freq[s] = (int32_t)((share + (1 << (SHARE_BITS - 1))) >> SHARE_BITS) + must;
        used += freq[s];
        lost += freq[s] ? 0 : share;
        highest = freq[s] > highest ? freq[s] : highest;
    }
    while (freq[largest] < highest) largest++;
    freq[largest] += TOTAL - (must ? 0 : 1 + (int32_t)(lost >> SHARE_BITS)) - used;
    while (freq[largest] < 1) { /* rounding up took more than the largest had: take it from the next */
        int32_t missing = 1 - freq[largest];
        freq[largest] = 1;
        for (int s = largest = 0; s < values; s++)
            if (freq[s] > freq[largest]) largest = s;
        freq[largest] -= missing;
    }
    for (int s = 0; s < values; s++) {
        table->entries[s] = (uint32_t)freq[s] << 16 | (uint32_t)start;
        uint64_t eight = (uint64_t)s * 0x0101010101010101u;
        for (int k = 0; is_decoding && k < freq[s]; k += 8) memcpy(table->slots + start + k, &eight, 8);
        start += freq[s];
    }
    table->limit = start;
}

/* Weights of what was seen, each symbol but `fill` spread over its neighbours: over fewer, the more was seen. */
static void spread(const Table *table, uint32_t *weights, int values, int fill) {
    int total = table->total, parts = total < 50 ? 21 : total < 150 ? 32 : total < 500 ? 64 : total < 2000 ? 128 : 256;
    int reach = upper(values / parts, 1);
    uint32_t kept = total < 500 ? 128 : 32, each = kept / (uint32_t)(2 * reach + 1), sum = 0;
    uint32_t sums[MOST_VALUES + 2 * MOST_SPREAD + 1];
    for (int s = 0; s <= reach; s++) sums[s] = 0;
    for (int s = 0; s < values; s++) sums[reach + 1 + s] = sum += s == fill ? 0 : table->seen[s];
    for (int s = 0; s < reach; s++) sums[reach + 1 + values + s] = sum;
    for (int s = 0; s < values; s++) weights[s] = 48 * table->seen[s] + each * (sums[s + 2 * reach + 1] - sums[s]);
    weights[fill] += kept * table->seen[fill];
}

/* Take in what a table has seen, and say when it is made again. Returns how many symbols were fresh. */
static int take_in(const Coder *coder, Table *table) {
    int fresh = 0, values = coder->values;
    for (int s = 0; s < values; s++) {
        table->seen[s] += table->fresh[s];
        fresh += table->fresh[s];
    }
    memset(table->fresh, 0, sizeof table->fresh);
    table->total += fresh;
    if (table->total > FORGET_ABOVE) {
        table->total = 0;
        for (int s = 0; s < values; s++) table->total += (int32_t)(table->seen[s] >>= 1);
    }
    int wait = table->total / coder->haste;
    table->left = wait < FIRST ? FIRST : wait > MOST_WAIT ? MOST_WAIT : wait;
    return fresh;
}

static void make_pool(Coder *coder, int is_decoding) {
    uint32_t weights[MOST_VALUES];
    int values = coder->values;
    take_in(coder, coder->pool);
    if (values >= MANY_VALUES) spread(coder->pool, weights, values, coder->fill);
    for (int s = 0; s < values; s++) weights[s] = (values < MANY_VALUES ? 16 * coder->pool->seen[s] : weights[s]) + 1;
    make_table(coder->pool, weights, values, 1, is_decoding);
}

static __attribute__((noinline)) void make_again(Coder *coder, Table *table, int is_decoding) {
    uint32_t weights[MOST_VALUES];
    int values = coder->values, is_many = values >= MANY_VALUES;
    for (int s = 0; s < values; s++) coder->pool->fresh[s] = (uint16_t)(coder->pool->fresh[s] + table->fresh[s]);
    coder->pool->left -= take_in(coder, table);
    if (coder->pool->left <= 0) make_pool(coder, is_decoding);
    coder->use[table - coder->tables] = table;
    if (is_many) spread(table, weights, values, coder->fill);
    for (int s = 0; s < values; s++)
        weights[s] = (is_many ? weights[s] : 64 * table->seen[s]) + (coder->pool->entries[s] >> 18);
    make_table(table, weights, values, !is_many, is_decoding);
}

/* The state of stream k after an entry of slot `slot`. */
INLINE void advance(Line *line, int k, uint32_t entry, uint32_t slot) {
    uint32_t state = (entry >> 16) * (line->x[k] >> BITS) + slot - (entry & 0xFFFF);
    const uint8_t *word = line->words + 2 * line->pos;
    uint32_t grows = -(uint32_t)(state < LOWEST); /* arithmetic: nobody could foretell a branch */
    line->x[k] = state << (grows & 16) | ((word[0] | (uint32_t)word[1] << 8) & grows);
    line->pos -= (int32_t)grows;
}

/* Code a symbol of stream k by its context's table; returns it. */
INLINE int code_by_table(Coder *coder, Line *line, int k, int context, int symbol, int encoding) {
    const Table *table = coder->use[context];
    uint32_t escape = (uint32_t)(TOTAL - table->limit) << 16 | (uint32_t)table->limit;
    if (encoding) {
        uint32_t entry = table->entries[symbol];
        if (__builtin_expect(entry < 0x10000, 0)) { /* no slot */
            line->records[line->num_records++] = (uint32_t)k << 30 | escape;
            entry = coder->pool->entries[symbol];
        }
        line->records[line->num_records++] = (uint32_t)k << 30 | entry;
    } else {
        uint32_t slot = line->x[k] & (TOTAL - 1);
        if (__builtin_expect((int32_t)slot >= table->limit, 0)) {
            advance(line, k, escape, slot);
            table = coder->pool;
            slot = line->x[k] & (TOTAL - 1);
        }
        symbol = table->slots[slot];
        advance(line, k, table->entries[symbol], slot);
    }
    Table *own = coder->tables + context;
    own->fresh[symbol]++;
    if (--own->left == 0) make_again(coder, own, !encoding);
    return symbol;
}

/* Code whether a symbol is `around`, as all around it are; returns 0 or 1. */
INLINE int code_same(Coder *coder, Line *line, int k, int around, int is_same, int encoding) {
    Chance *chance = &coder->flat[around];
    uint32_t freq = (uint32_t)upper(1, lower(TOTAL - 1, chance->same >> (16 - BITS)));
    uint32_t same = freq << 16, other = (TOTAL - freq) << 16 | freq;
    if (encoding) {
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

/* Code a symbol of stream k; returns it. Where all around it are alike it says first whether it is, too. */
INLINE int code_symbol(Coder *coder, Line *line, int k, int context, int around, int symbol, int encoding) {
    if (around >= 0 && code_same(coder, line, k, around, symbol == around, encoding)) return around;
    return code_by_table(coder, line, k, context, symbol, encoding);
}

/* Code one row of each of `num` streams, by turns. Returns 0 when the words ran out. */
INLINE int code_rows(Coder *coder, Line *line, int num, const int *streams, uint8_t **rows, uint8_t **ups, int encoding) {
    int left[STREAMS] = {coder->fill, coder->fill, coder->fill, coder->fill}, contexts[STREAMS], arounds[STREAMS];
    for (int64_t c = 0; c < coder->cols; c++) {
#pragma GCC unroll 4
        for (int k = 0; k < num; k++) {
            const uint8_t *up = ups[k] + c;
            int act = activity(left[k], up[0], up[1], up[2]);
            contexts[k] = coder->levels[foretold(left[k], up[0], up[1])] + coder->acts[act];
            arounds[k] = act | coder->no_flats ? -1 : left[k];
        }
#pragma GCC unroll 4
        for (int k = 0; k < num; k++) {
            left[k] = code_symbol(coder, line, streams[k], contexts[k], arounds[k], encoding ? rows[k][c] : 0, encoding);
            if (!encoding) rows[k][c] = (uint8_t)left[k];
        }
        if (!encoding && line->pos > line->last) return 0;
    }
    return 1;
}

/* Code all symbols. `ups` holds a row for each stream, of the row above with `fill` around it. 0 when the words ran out. */
INLINE int code_map(Coder *coder, Line *line, uint8_t *symbols, uint8_t *ups, int encoding) {
    static const int ALL[STREAMS] = {0, 1, 2, 3};
    int64_t planes = coder->planes, cols = coder->cols, first[STREAMS + 1], longest = 0;
    int num_streams = coder->num_streams, goes_on = 1;
    for (int k = 0; k <= num_streams; k++)
        first[k] = planes >= num_streams ? planes * k / num_streams * coder->rows : planes * coder->rows * k / num_streams;
    for (int k = 0; k < num_streams; k++)
        longest = first[k + 1] - first[k] > longest ? first[k + 1] - first[k] : longest;
    for (int64_t i = 0; goes_on && i < longest; i++) {
        int num = 0, streams[STREAMS];
        uint8_t *rows[STREAMS], *above[STREAMS];
        for (int k = 0; k < num_streams; k++) {
            int64_t r = first[k] + i;
            if (r >= first[k + 1]) continue;
            rows[num] = symbols + r * cols;
            above[num] = ups + k * (cols + 2);
            if (i == 0 || r % coder->rows == 0)
                memset(above[num], coder->fill, (size_t)cols + 2);
            else
                memcpy(above[num] + 1, rows[num] - cols, (size_t)cols);
            streams[num++] = k;
        }
        if (num == STREAMS)
            goes_on = code_rows(coder, line, STREAMS, ALL, rows, above, encoding);
        else
            goes_on = code_rows(coder, line, num, streams, rows, above, encoding);
    }
    return goes_on;
}

/* Give the coder its tables. Returns the rows that code_map works in, or NULL where there is no memory. */
static uint8_t *begin(Coder *coder, int is_decoding) {
    uint8_t *ups = malloc((size_t)(STREAMS * (coder->cols + 2)));
    coder->tables = calloc((size_t)coder->num_contexts + 1, sizeof(Table));
    if (!ups || !coder->tables) {
        free(ups);
        free(coder->tables);
        return NULL;
    }
    coder->pool = coder->tables + coder->num_contexts;
    for (int s = 0; s < MOST_VALUES; s++) coder->flat[s] = (Chance){32768, 0};
    for (int c = 0; c <= coder->num_contexts; c++) coder->tables[c].left = FIRST;
    for (int c = 0; c < coder->num_contexts; c++) coder->use[c] = coder->pool;
    make_pool(coder, is_decoding);
    return ups;
}

static Coder new_coder(int64_t planes, int64_t rows, int64_t cols, int64_t fill, int64_t values) {
    int64_t num = planes * rows * cols; /* a stream costs four bytes */
    return (Coder){.planes = planes, .rows = rows, .cols = cols, .fill = (int)fill, .values = (int)values,
                   .num_streams = num < 1500 ? 1 : num < 6000 ? 2 : STREAMS,
                   .haste = (values < MANY_VALUES ? 2 : 1) * (num < SMALL ? 2 : 1)};
}

/* Map the first `size` numbers to at most `most` levels that occur about equally often, numbered without gaps. */
static int choose_levels(const uint32_t *counts, int64_t size, int64_t most, uint8_t *levels) {
    int64_t total = 0, before = 0, previous = -1, level = -1;
    for (int64_t k = 0; k < size; k++) total += counts[k];
    for (int64_t k = 0; k < size; k++) {
        int64_t share = counts[k] ? least((2 * before + counts[k]) * most / (2 * total), most - 1) : previous;
        level += share > previous;
        previous = share;
        before += counts[k];
        levels[k] = (uint8_t)(level < 0 ? 0 : level);
    }
    level = level < 0 ? 0 : level;
    return (int)level + 1;
}

/* Choose levels by every few rows. Returns how many levels `acts` has; those of `levels` are in `num_levels`. */
static int survey(Coder *coder, const uint8_t *symbols, int64_t most_levels, int64_t most_acts, int *num_levels) {
    uint32_t foretells[4 * MOST_VALUES] = {0}, acts[3 * MOST_VALUES] = {0};
    int64_t num_rows = coder->planes * coder->rows, cols = coder->cols, stride = num_rows * cols / SURVEYED + 1;
    for (int64_t a = stride, b = coder->rows; b > 1;) { /* the rows of a plane have to come in turns */
        int64_t rest = a % b;
        if (rest == 0) a = ++stride, b = coder->rows;
        else a = b, b = rest;
    }
    for (int64_t r = 0; most_levels * most_acts > 1 && r < num_rows; r += stride) {
        const uint8_t *row = symbols + r * cols;
        int fill = coder->fill, is_first = r % coder->rows == 0, l = fill, ul = fill, u = is_first || !cols ? fill : row[-cols];
        for (int64_t c = 0; c < cols; c++) {
            int ur = is_first || c + 1 == cols ? fill : row[c + 1 - cols];
            int act = activity(l, ul, u, ur), is_counted = act > 0 || row[c] != l || coder->values < FLAT_VALUES;
            foretells[foretold(l, ul, u)] += (uint32_t)is_counted;
            acts[act] += (uint32_t)is_counted; /* the others are coded apart */
            l = row[c], ul = u, u = ur;
        }
    }
    *num_levels = choose_levels(foretells, 4 * coder->values - 3, most_levels, coder->levels);
    return choose_levels(acts, 3 * coder->values - 2, most_acts, coder->acts);
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
static int code_levels(Halves *halves, uint8_t *levels, int64_t size, int most, int num, int encoding) {
    num = 1 + code_number(halves, num - 1, encoding);
    if (num > most) return 0;
    int64_t k = 0;
    for (int level = 1; level < num; level++) {
        int64_t end = k + 1;
        while (encoding && levels[end] < level) end++;
        end = k + 1 + code_number(halves, (int)(end - k - 1), encoding);
        if (end >= size) return 0;
        for (; k < end; k++)
            if (!encoding) levels[k] = (uint8_t)(level - 1);
    }
    for (; !encoding && k < size; k++) levels[k] = (uint8_t)(num - 1);
    return num;
}

/* Code all levels, and count the contexts. Returns the bytes, or 0 for what no encoder makes. */
static int64_t code_side(Coder *coder, Halves *halves, int num_levels, int num_acts, int encoding) {
    int values = coder->values;
    num_levels = code_levels(halves, coder->levels, 4 * values - 3, MOST_LEVELS, num_levels, encoding);
    num_acts = num_levels ? code_levels(halves, coder->acts, 3 * values - 2, MOST_ACTS, num_acts, encoding) : 0;
    coder->num_contexts = num_levels * num_acts;
    if (!num_acts || coder->num_contexts > MOST_CONTEXTS || halves->is_over) return 0;
    coder->no_flats = coder->num_contexts == 1 || values < FLAT_VALUES;
    if (coder->num_contexts == 1) coder->haste = 16; /* a single table costs little time */
    for (int k = 0; k < 3 * values - 2; k++) coder->acts[k] = (uint8_t)(coder->acts[k] * num_levels);
    return (halves->pos + 1) / 2;
}

/* Push the records, last one first, as words that end at data + size. Returns the first word's place, below 0 if too many. */
static int64_t push(const Line *line, int num_streams, uint8_t *data, int64_t pos) {
    uint32_t x[STREAMS] = {LOWEST, LOWEST, LOWEST, LOWEST};
    int64_t before = 4 * num_streams + 2;
    for (int64_t i = line->num_records - 1; i >= 0 && pos >= before; i--) {
        uint32_t record = line->records[i], k = record >> 30, freq = record >> 16 & 0x3FFF, state = x[k];
        data[pos - 2] = (uint8_t)state; /* kept only when the state must shrink: no branch */
        data[pos - 1] = (uint8_t)(state >> 8);
        uint32_t shrinks = -(uint32_t)(state >> (32 - BITS) >= freq);
        pos += 2 * (int32_t)shrinks;
        state ^= (state ^ state >> 16) & shrinks;
        x[k] = state + state / freq * (TOTAL - freq) + (record & 0xFFFF);
    }
    if (pos < before) return -1;
    for (int k = num_streams - 1; k >= 0; k--)
        for (int b = 24; b >= 0; b -= 8) data[--pos] = (uint8_t)(x[k] >> b);
    return pos;
}

/* Code `planes * rows * cols` symbols, at least one, into `data`. Returns the bytes, -1 when `size` is too small for
   them, or NO_MEMORY. At most `most_levels` (64) times `most_acts` (16), at most 256 in all, contexts. */
int64_t encode_map(const uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols, int64_t fill, int64_t values,
                   int64_t most_levels, int64_t most_acts, uint8_t *data, int64_t size) {
    Coder coder = new_coder(planes, rows, cols, fill, values);
    int num_levels, num_acts = survey(&coder, symbols, most_levels, most_acts, &num_levels);
    Halves halves = {.out = data, .size = 2 * size};
    int64_t side = code_side(&coder, &halves, num_levels, num_acts, 1);
    if (!side) return -1;
    Line line = {.records = malloc((size_t)(3 * planes * rows * cols) * sizeof(uint32_t))}; /* a flag, an escape, a symbol */
    uint8_t *ups = line.records ? begin(&coder, 0) : NULL;
    if (!ups) {
        free(line.records);
        return NO_MEMORY;
    }
    code_map(&coder, &line, (uint8_t *)symbols, ups, 1); /* an encoder only reads them */
    int64_t first = push(&line, coder.num_streams, data + side, size - side);
    free(ups);
    free(coder.tables);
    free(line.records);
    if (first < 0) return -1;
    memmove(data + side, data + side + first, (size_t)(size - side - first));
    return size - first;
}

/* Fill `symbols`. Returns 1, 0 when the data are not a whole code of these sizes, or NO_MEMORY. */
int64_t decode_map(const uint8_t *data, int64_t size, uint8_t *symbols, int64_t planes, int64_t rows, int64_t cols,
                   int64_t fill, int64_t values) {
    Coder coder = new_coder(planes, rows, cols, fill, values);
    Halves halves = {.in = data, .size = 2 * size};
    int64_t side = code_side(&coder, &halves, 1, 1, 0);
    int num_streams = coder.num_streams;
    if (!side || (size - side) % 2 || size - side < 4 * num_streams) return 0;
    data += side;
    Line line = {.pos = 2 * num_streams, .last = (size - side) / 2};
    for (int k = 0; k < STREAMS; k++) {
        const uint8_t *b = data + 4 * k;
        line.x[k] = k < num_streams ? b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24 : LOWEST;
        if (line.x[k] < LOWEST) return 0;
    }
    uint8_t *words = calloc(1, (size_t)(size - side) + AHEAD);
    uint8_t *ups = words ? begin(&coder, 1) : NULL;
    if (!ups) {
        free(words);
        return NO_MEMORY;
    }
    memcpy(words, data, (size_t)(size - side));
    line.words = words;
    int is_whole = code_map(&coder, &line, symbols, ups, 0) && line.pos == line.last;
    for (int k = 0; k < num_streams; k++) is_whole = is_whole && line.x[k] == LOWEST;
    free(ups);
    free(words);
    free(coder.tables);
    return is_whole;
}
