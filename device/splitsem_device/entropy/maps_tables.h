/* Tables of digits as they lie in a processor's registers: eight numbers of 16 bits are worked on at once. */

#ifndef SPLITSEM_MAPS_TABLES_H
#define SPLITSEM_MAPS_TABLES_H

#include "maps_rans.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { SHIFT = 7 }; /* an old table moves by 1/128 */

typedef int16_t Eight __attribute__((vector_size(16), may_alias));

INLINE Eight eight(int x) { return (Eight){0} + (int16_t)x; }
#ifdef __SSE2__
INLINE Eight lower8(Eight a, Eight b) { return (Eight)_mm_min_epi16((__m128i)a, (__m128i)b); }
INLINE Eight upper8(Eight a, Eight b) { return (Eight)_mm_max_epi16((__m128i)a, (__m128i)b); }
INLINE Eight high8(Eight a, Eight b) { return (Eight)_mm_mulhi_epi16((__m128i)a, (__m128i)b); }
#else
INLINE Eight lower8(Eight a, Eight b) { return (a & (Eight)(a < b)) | (b & ~(Eight)(a < b)); }
INLINE Eight upper8(Eight a, Eight b) { return (a & (Eight)(a > b)) | (b & ~(Eight)(a > b)); }
INLINE Eight high8(Eight a, Eight b) { /* the upper halves of products */
    for (int i = 0; i < 8; i++) a[i] = (int16_t)(a[i] * b[i] >> 16);
    return a;
}
#endif

/* Eight octets, as numbers. */
INLINE Eight eight_from(const uint8_t *octets) {
#ifdef __SSE2__
    return (Eight)_mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)octets), _mm_setzero_si128());
#else
    uint8_t narrow __attribute__((vector_size(8)));
    memcpy(&narrow, octets, sizeof narrow);
    return __builtin_convertvector(narrow, Eight);
#endif
}

/* Whether one of the first `num` numbers, four at most, is not 0. */
INLINE int has_any(Eight a, int num) {
    typedef int64_t Two __attribute__((vector_size(16)));
    if (num == 4) return ((Two)a)[0] != 0;
    int found = 0;
    for (int i = 0; i < num; i++) found |= a[i] != 0;
    return found;
}

/* Where each digit ends, in 2^15ths; the last one at 2^15, which is -2^15 here. */
typedef struct {
    int16_t ends[DIGITS] __attribute__((aligned(16)));
} Table;

/* The digit that a slot lies in. */
INLINE int find(const int16_t *ends, uint32_t slot, int lanes) {
#ifdef __SSE2__
    const __m128i *in = (const __m128i *)ends;
    __m128i at = _mm_set1_epi16((int16_t)slot), above = _mm_cmpgt_epi16(in[0], at);
    if (lanes == 8) return __builtin_ctz((uint32_t)_mm_movemask_epi8(above) | 0x4000) >> 1;
    above = _mm_packs_epi16(above, _mm_cmpgt_epi16(in[1], at));
    return __builtin_ctz((uint32_t)_mm_movemask_epi8(above) | 0x8000);
#else
    int digit = 0;
    for (int i = 0; i < lanes - 1; i++) digit += ends[i] <= (int16_t)slot;
    return digit;
#endif
}

/* Move a table that has learned enough towards a target. */
INLINE void learn(int16_t *ends, const int16_t *target, int lanes) {
    Eight *moved = (Eight *)ends;
    for (int i = 0; i < lanes / 8; i++) moved[i] -= (moved[i] - ((const Eight *)target)[i]) >> SHIFT;
}

/* A digit's slots. Where the first starts, the table before it ends: at 2^15, which is 0 here. */
INLINE Span span_of(const int16_t *ends, int digit) {
    uint32_t start = (uint32_t)ends[digit - 1] & (TOTAL - 1), end = (uint16_t)ends[digit];
    return (Span){start, end - start};
}

#endif
