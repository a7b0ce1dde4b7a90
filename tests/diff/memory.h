/*
 * The contents that all cases start from, the same on both sides, and their restoration.
 */
#ifndef DIFF_MEMORY_H
#define DIFF_MEMORY_H

#include <emmintrin.h>

#include "layout.h"
#include "native.h"

enum { MEMORY_PAGES_MAX = 32 };

/* A writable page of both sides. Sets of them are masks by index. */
struct memory_page {
    uint32_t gva, gpa;
    const uint8_t *golden;
};

struct memory {
    uint8_t *golden[REGION_COUNT]; /* NULL where the region is not used */
    struct memory_page page[MEMORY_PAGES_MAX];
    unsigned page_count;
};

/* Without `n` there is no native side. */
bool memory_init(struct memory *m, const struct native *n, uint64_t seed);
void memory_fini(struct memory *m);
/* The pages of the native side that do not hold the golden contents. */
uint32_t memory_dirty(const struct memory *m);
/* Undoes what a case did to these. */
void memory_restore(const struct memory *m, uint32_t dirty);

/* Not memcmp: the program is linked with base's, which goes by bytes. */
static inline bool memory_same_page(const uint8_t *a, const uint8_t *b)
{
    for (unsigned i = 0; i < PAGE_SIZE; i += 64) {
        __m128i d = _mm_setzero_si128();
        for (unsigned k = i; k < i + 64; k += 16)
            d = _mm_or_si128(d, _mm_xor_si128(_mm_load_si128((const __m128i *)(a + k)),
                                              _mm_load_si128((const __m128i *)(b + k))));
        if (_mm_movemask_epi8(_mm_cmpeq_epi8(d, _mm_setzero_si128())) != 0xFFFF)
            return false;
    }
    return true;
}

#endif
