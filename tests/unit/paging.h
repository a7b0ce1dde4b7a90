/*
 * A vCPU with an mmu and page tables under construction, for the tests of mmu/. Nothing runs: tests
 * put entries into guest memory and call the mmu as the engine would.
 */
#ifndef TESTS_UNIT_PAGING_H
#define TESTS_UNIT_PAGING_H

#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/emulate.h"
#include "mmu/mmu.h"

enum {
    P = 1,
    W = 2,
    U = 4,
    A = 0x20,
    D = 0x40,
    PS = 0x80,
    G = 0x100,
    RW_A_D = P | W | A | D,
    USER_A_D = P | W | U | A | D,
};
#define NX (1ull << 63)

/* Where tests put tables, and the first frame that they use for data. */
enum { PD = 0x10000, PT = 0x20000, ROOT2 = 0x40000, DATA = 0x200000, RAM_SIZE = 64 << 20 };

struct guest {
    struct vcpu v;
    struct mmu *m;
    struct cpu_model model;
    /* What the listener heard. */
    unsigned code_written, code_unmapped, recycled;
    uint32_t written_page, written_offset, written_size, unmapped_first, unmapped_count;
    bool protect_again;
    /* What the bus saw. */
    unsigned io_reads, io_writes;
    uint32_t io_gpa, io_value;
    unsigned io_size;
    uint32_t io_answer;
};

static inline void heard_written(void *opaque, uint32_t page, uint32_t offset, uint32_t size)
{
    struct guest *g = opaque;
    g->code_written++;
    g->written_page = page;
    g->written_offset = offset;
    g->written_size = size;
    if (g->protect_again)
        mmu_protect_code(g->m, page);
}

static inline void heard_unmapped(void *opaque, struct window *w, uint32_t first, uint32_t count)
{
    struct guest *g = opaque;
    (void)w;
    g->code_unmapped++;
    g->unmapped_first = first;
    g->unmapped_count = count;
}

static inline void heard_recycled(void *opaque, struct window *w)
{
    (void)w;
    ((struct guest *)opaque)->recycled++;
}

static inline uint32_t bus_read(void *opaque, uint32_t gpa, unsigned size)
{
    struct guest *g = opaque;
    g->io_reads++;
    g->io_gpa = gpa;
    g->io_size = size;
    return g->io_answer;
}

static inline void bus_write(void *opaque, uint32_t gpa, unsigned size, uint32_t value)
{
    struct guest *g = opaque;
    g->io_writes++;
    g->io_gpa = gpa;
    g->io_size = size;
    g->io_value = value;
}

static inline struct guest *guest_create(unsigned vma_budget)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct err err = {""};

    assert_non_null(g);
    g->m = mmu_create(RAM_SIZE, vma_budget, &err);
    assert_non_null(g->m);
    g->v.fpu_parked = true;
    g->v.model = &g->model;
    mmu_attach(g->m, &g->v);
    mmu_set_listener(g->m,
                     &(struct mmu_listener){heard_written, heard_unmapped, heard_recycled, g});
    mmu_set_io(g->m, &(struct mmu_io){bus_read, bus_write, g});
    return g;
}

static inline void guest_destroy(struct guest *g)
{
    mmu_destroy(g->m);
    free(g);
}

static inline void put32(struct guest *g, uint32_t gpa, uint32_t value)
{
    mmu_phys_write(g->m, gpa, &value, 4);
}

static inline void put64(struct guest *g, uint32_t gpa, uint64_t value)
{
    mmu_phys_write(g->m, gpa, &value, 8);
}

static inline uint32_t get32(struct guest *g, uint32_t gpa)
{
    uint32_t value;
    mmu_phys_read(g->m, gpa, &value, 4);
    return value;
}

static inline uint64_t get64(struct guest *g, uint32_t gpa)
{
    uint64_t value;
    mmu_phys_read(g->m, gpa, &value, 8);
    return value;
}

/* Changes of control registers, as cpu/ makes them. */
static inline void set_paging(struct guest *g, uint32_t cr0, uint32_t cr3, uint32_t cr4,
                              uint64_t efer)
{
    uint32_t old_cr0 = g->v.cr0, old_cr3 = g->v.cr3, old_cr4 = g->v.cr4;
    g->v.cr0 = cr0;
    g->v.cr3 = cr3;
    g->v.cr4 = cr4;
    g->v.efer = efer;
    g->v.mem->paging_changed(&g->v, old_cr0, old_cr3, old_cr4);
}

static inline void set_cr3(struct guest *g, uint32_t cr3)
{
    set_paging(g, g->v.cr0, cr3, g->v.cr4, g->v.efer);
}

static inline void set_wp(struct guest *g, bool on)
{
    set_paging(g, on ? g->v.cr0 | CR0_WP : g->v.cr0 & ~(uint32_t)CR0_WP, g->v.cr3, g->v.cr4,
               g->v.efer);
}

static inline void *host_of(struct window *w, uint32_t gva)
{
    return (void *)(window_base(w) + gva);
}

/*
 * What an access through the window would find, without taking the signal: the kernel copies the
 * byte into a pipe, and for a write back out of it.
 */
static inline bool accessible(struct window *w, uint32_t gva, bool write_back)
{
    int ends[2];
    bool ok;

    assert_int_equal(pipe(ends), 0);
    ok = write(ends[1], host_of(w, gva), 1) == 1;
    if (ok && write_back)
        ok = read(ends[0], host_of(w, gva), 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return ok;
}

static inline bool readable(struct window *w, uint32_t gva)
{
    return accessible(w, gva, false);
}

static inline bool writable(struct window *w, uint32_t gva)
{
    return accessible(w, gva, true);
}

#endif
