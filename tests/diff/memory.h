/*
 * The contents that all cases start from, the same on both sides, and their restoration.
 */
#ifndef DIFF_MEMORY_H
#define DIFF_MEMORY_H

#include "layout.h"
#include "native.h"

struct memory {
    uint8_t *golden[REGION_COUNT]; /* NULL where the region is not used */
};

bool memory_init(struct memory *m, const struct native *n, uint64_t seed);
void memory_fini(struct memory *m);
/* Undoes what a case did to the native side. */
void memory_restore(const struct memory *m);

#endif
