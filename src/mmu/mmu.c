/*
 * An mmu as an object: made, wired and taken apart.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mmu/internal.h"

/* Left to the rest of the process. */
enum { VMAS_FOR_OTHERS = 4096, VMAS_DEFAULT = 65530, VMAS_LEAST = 16 };

/* Enough for the tables of 3.5 GiB mapped page by page, and the processes of a busy guest. */
enum { SLOT_LIMIT = 8192, COPY_LIMIT = 2048 };

static unsigned default_budget(void)
{
    char text[32] = "";
    long limit = 0;
    int fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        if (read(fd, text, sizeof(text) - 1) > 0)
            limit = strtol(text, NULL, 10);
        close(fd);
    }
    if (limit <= 0)
        limit = VMAS_DEFAULT;
    if (limit > 1 << 20)
        limit = 1 << 20;
    return (unsigned)(limit > 2 * VMAS_FOR_OTHERS ? limit - VMAS_FOR_OTHERS : limit / 2);
}

struct mmu *mmu_create(uint64_t ram_size, unsigned vma_budget, struct err *err)
{
    struct mmu *m =
        mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (m == MAP_FAILED) {
        err_set(err, errno, "cannot make the record of guest memory: %s", strerror(errno));
        return NULL;
    }
    m->budget = max_u32(vma_budget ? vma_budget : default_budget(), VMAS_LEAST);
    m->generation = 1;
    if (ram_init(m, ram_size, err) < 0)
        goto fail;
    if (pool_init(&m->slots, sizeof(struct slot), SLOT_LIMIT) < 0 ||
        pool_init(&m->copies, PAGE_SIZE, COPY_LIMIT) < 0 || rmap_init(m) < 0) {
        err_set(err, ENOMEM, "cannot reserve addresses for the records of guest memory");
        goto fail;
    }
    return m;

fail:
    mmu_destroy(m);
    return NULL;
}

void mmu_destroy(struct mmu *m)
{
    if (!m)
        return;
    m->listener = (struct mmu_listener){0};
    for (unsigned i = 0; i < ARRAY_LEN(m->by_id); i++) {
        if (m->by_id[i])
            window_destroy(m->by_id[i]);
    }
    rmap_fini(m);
    pool_fini(&m->copies);
    pool_fini(&m->slots);
    ram_fini(m);
    munmap(m, sizeof(*m));
}

void mmu_set_listener(struct mmu *m, const struct mmu_listener *listener)
{
    m->listener = listener ? *listener : (struct mmu_listener){0};
}

void mmu_set_io(struct mmu *m, const struct mmu_io *io)
{
    m->io = *io;
}

const struct mmu_counters *mmu_counters(const struct mmu *m)
{
    return &m->counters;
}

void mmu_attach(struct mmu *m, struct vcpu *v)
{
    m->v = v;
    v->mmu = m;
    v->mem = &access_mem;
}
