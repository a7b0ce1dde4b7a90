/*
 * Host code lives in one shared memory object, mapped twice: writable for the translator,
 * executable for the CPU. Code and metadata are both handed out from front to back and emptied
 * together, so that blocks stand in address order in blocks[], and an address is found by
 * bisection.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dbt/engine.h"

int cache_init(struct cache *c, uint32_t size, struct err *err)
{
    int fd = memfd_create("novt-code", MFD_CLOEXEC);
    if (fd < 0)
        return err_set(err, errno, "cannot make the code cache: %s", strerror(errno));
    c->size = size;
    c->meta_size = size;
    c->block_max = size / 128;
    if (ftruncate(fd, size) < 0)
        goto fail;
    c->rw = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    c->rx = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    c->meta = mmap(NULL, c->meta_size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    c->blocks = mmap(NULL, c->block_max * sizeof(*c->blocks), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->rw == MAP_FAILED || c->rx == MAP_FAILED || c->meta == MAP_FAILED ||
        (void *)c->blocks == MAP_FAILED)
        goto fail;
    close(fd);
    cache_empty(c);
    return 0;
fail:
    err_set(err, errno, "cannot map a code cache of %u bytes: %s", size, strerror(errno));
    close(fd);
    return -ENOMEM;
}

void cache_fini(struct cache *c)
{
    munmap(c->rw, c->size);
    munmap(c->rx, c->size);
    munmap(c->meta, c->meta_size);
    munmap(c->blocks, c->block_max * sizeof(*c->blocks));
}

void *cache_meta(struct cache *c, uint32_t bytes)
{
    bytes = (bytes + 7) & ~7u;
    if (bytes > c->meta_size - c->meta_used)
        return NULL;
    void *p = c->meta + c->meta_used;
    c->meta_used += bytes;
    memset(p, 0, bytes);
    return p;
}

void cache_empty(struct cache *c)
{
    c->used = SINGLE_CODE_SIZE;
    c->meta_used = 0;
    c->block_count = 0;
}

struct block *cache_block_at(const struct cache *c, uint64_t pc)
{
    uint32_t low = 0, high = c->block_count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if ((uint64_t)c->blocks[mid]->code <= pc)
            low = mid + 1;
        else
            high = mid;
    }
    if (!low)
        return NULL;
    struct block *b = c->blocks[low - 1];
    return pc < (uint64_t)b->code + b->code_len ? b : NULL;
}
