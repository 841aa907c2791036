/* Tables of digits as they lie in a processor's registers: eight numbers of 16 bits are worked on at once. */

#ifndef SPLITSEM_MAPS_TABLES_H
#define SPLITSEM_MAPS_TABLES_H

#include "maps_rans.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

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

/* Where each digit ends, in 2^15ths; the last one at 2^15, which is -2^15 here. */
typedef struct {
    int16_t ends[DIGITS] __attribute__((aligned(16)));
} Table;

/* The digit that a slot lies in. */
INLINE int find(const Eight *ends, uint32_t slot, int lanes) {
#ifdef __SSE2__
    __m128i at = _mm_set1_epi16((int16_t)slot), above = _mm_cmpgt_epi16((__m128i)ends[0], at);
    if (lanes == 8) return __builtin_ctz((uint32_t)_mm_movemask_epi8(above) | 0x4000) >> 1;
    above = _mm_packs_epi16(above, _mm_cmpgt_epi16((__m128i)ends[1], at));
    return __builtin_ctz((uint32_t)_mm_movemask_epi8(above) | 0x8000);
#else
    int digit = 0;
    for (int i = 0; i < lanes - 1; i++) digit += ends[i / 8][i % 8] <= (int16_t)slot;
    return digit;
#endif
}

/* A digit's entry. Where the first starts, the table before it ends: at 2^15, which is 0 here. */
INLINE uint32_t entry_of(const int16_t *ends, int digit) {
    uint32_t start = (uint32_t)ends[digit - 1] & (TOTAL - 1), end = (uint16_t)ends[digit];
    return (end - start) << BITS | start;
}

#endif
