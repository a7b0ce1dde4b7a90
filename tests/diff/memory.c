#include "memory.h"

#include <stdlib.h>
#include <string.h>

#include "values.h"

bool memory_init(struct memory *m, const struct native *n, uint64_t seed)
{
    memset(m, 0, sizeof *m);
    if (n)
        native_seal(n, false);
    for (unsigned i = 0; i < REGION_COUNT; i++) {
        const struct region *r = &layout_regions[i];
        if (n && !n->has_low && i <= REGION_LOW_TOP)
            continue;
        m->golden[i] = aligned_alloc(PAGE_SIZE, r->size);
        if (!m->golden[i])
            return false;
        memset(m->golden[i], END_MARKER, r->size);
        if (r->rights & REGION_X)
            continue;
        struct rng rng = rng_make(seed, ~0ull - i);
        values_fill(&rng, m->golden[i], r->size);
        if (n)
            memcpy(native_at(r->gva), m->golden[i], r->size);
        for (uint32_t at = 0; (r->rights & REGION_W) && at < r->size; at += PAGE_SIZE)
            m->page[m->page_count++] =
                (struct memory_page){r->gva + at, r->gpa + at, m->golden[i] + at};
    }
    if (n)
        native_seal(n, true);
    return true;
}

void memory_fini(struct memory *m)
{
    for (unsigned i = 0; i < REGION_COUNT; i++)
        free(m->golden[i]);
}

uint32_t memory_dirty(const struct memory *m)
{
    uint32_t dirty = 0;
    for (unsigned i = 0; i < m->page_count; i++) {
        if (!memory_same_page(native_at(m->page[i].gva), m->page[i].golden))
            dirty |= 1u << i;
    }
    return dirty;
}

void memory_restore(const struct memory *m, uint32_t dirty)
{
    for (; dirty; dirty &= dirty - 1) {
        const struct memory_page *p = &m->page[__builtin_ctz(dirty)];
        memcpy(native_at(p->gva), p->golden, PAGE_SIZE);
    }
}
