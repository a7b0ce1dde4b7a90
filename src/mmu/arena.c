/*
 * Where windows lie: strides of 8 GiB between 0x3000_0000_0000 and 0x5000_0000_0000, clear of every
 * place where the kernel puts mappings on its own account (under `setarch -L` and `ulimit -s
 * unlimited` too). A stride is found empty with one MAP_FIXED_NOREPLACE of all of it, and unmapped
 * again at once: mappings over a reservation cost several times what mappings into a hole do.
 *
 * Since an empty stride leaves no trace with the kernel, which ones are taken is noted in
 * `claimed`, for all mmus of the process: the one piece of mutable file-scope state in mmu/,
 * changed by atomic operations only. A stride in which something else was found stays claimed for
 * good.
 */
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "mmu/internal.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define ARENA_START 0x300000000000ull
#define ARENA_END   0x500000000000ull
#define STRIDE      GIB(8)

enum { STRIDES = (ARENA_END - ARENA_START) / STRIDE };

static _Atomic uint64_t claimed[STRIDES / 64];

enum probe { PROBE_FREE, PROBE_TAKEN, PROBE_FAILED };

static enum probe probe(uint64_t base)
{
    void *at = mmap((void *)base, STRIDE, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (at == MAP_FAILED)
        return errno == EEXIST ? PROBE_TAKEN : PROBE_FAILED;
    munmap(at, STRIDE);
    return (uint64_t)at == base ? PROBE_FREE
                                : PROBE_TAKEN; /* kernels before 4.17 take it as a hint */
}

uint64_t arena_claim(void)
{
    for (unsigned i = 0; i < STRIDES; i++) {
        uint64_t bit = 1ull << (i % 64);
        uint64_t base = ARENA_START + i * STRIDE;

        if (atomic_load_explicit(&claimed[i / 64], memory_order_relaxed) & bit)
            continue;
        if (atomic_fetch_or(&claimed[i / 64], bit) & bit)
            continue;
        switch (probe(base)) {
        case PROBE_FREE:
            return base;
        case PROBE_TAKEN:
            break;
        case PROBE_FAILED:
            arena_release(base);
            return 0;
        }
    }
    return 0;
}

void arena_release(uint64_t base)
{
    uint64_t i = (base - ARENA_START) / STRIDE;
    atomic_fetch_and(&claimed[i / 64], ~(1ull << (i % 64)));
}
