#include "memory.h"

#include <stdlib.h>
#include <string.h>

#include "values.h"

bool memory_init(struct memory *m, const struct native *n, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    native_seal(n, false);
    for (unsigned i = 0; i < REGION_COUNT; i++) {
        const struct region *r = &layout_regions[i];
        if (!n->has_low && i <= REGION_LOW_TOP)
            continue;
        m->golden[i] = malloc(r->size);
        if (!m->golden[i])
            return false;
        memset(m->golden[i], END_MARKER, r->size);
        if (r->rights & REGION_X)
            continue;
        struct rng rng = rng_make(seed, ~0ull - i);
        values_fill(&rng, m->golden[i], r->size);
        memcpy(native_at(r->gva), m->golden[i], r->size);
    }
    native_seal(n, true);
    return true;
}

void memory_fini(struct memory *m)
{
    for (unsigned i = 0; i < REGION_COUNT; i++)
        free(m->golden[i]);
}

void memory_restore(const struct memory *m)
{
    for (unsigned i = 0; i < REGION_COUNT; i++) {
        const struct region *r = &layout_regions[i];
        if (!m->golden[i] || !(r->rights & REGION_W))
            continue;
        for (uint32_t at = 0; at < r->size; at += PAGE_SIZE) {
            if (memcmp(native_at(r->gva + at), m->golden[i] + at, PAGE_SIZE))
                memcpy(native_at(r->gva + at), m->golden[i] + at, PAGE_SIZE);
        }
    }
}
