/*
 * Fixed-size items for the records of windows. All addresses are reserved once, so items never move
 * and nothing is allocated on the run path; the host gives memory as items are first used, and
 * freed items are used again first.
 */
#include <errno.h>
#include <sys/mman.h>

#include "mmu/internal.h"

int pool_init(struct pool *p, uint32_t item, uint32_t limit)
{
    void *base = mmap(NULL, (size_t)item * limit, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return -errno;
    *p = (struct pool){.base = base, .item = item, .limit = limit};
    return 0;
}

void pool_fini(struct pool *p)
{
    if (p->base)
        munmap(p->base, (size_t)p->item * p->limit);
    p->base = NULL;
}

int64_t pool_take(struct pool *p)
{
    uint32_t index;

    if (p->free) {
        index = p->free - 1;
        p->free = *(uint32_t *)pool_at(p, index);
    } else if (p->fresh < p->limit) {
        index = p->fresh++;
    } else {
        return -1;
    }
    p->used++;
    return index;
}

void pool_give(struct pool *p, uint32_t index)
{
    *(uint32_t *)pool_at(p, index) = p->free;
    p->free = index + 1;
    p->used--;
}
