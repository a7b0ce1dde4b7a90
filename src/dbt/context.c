/*
 * Contexts. One is (window, mode key, CS base and limit); it owns a jump cache and a return ring,
 * laid out as guard page, ring, guard page, jump cache, poll page. Translated code reaches the
 * cache by r14 and the ring by rsp. A kick replaces r14 by the all-miss table, whose poll page
 * cannot be read.
 *
 * Invariant: whatever a context's cache and ring hold is good for its window and key as they are
 * now, or the context is marked stale and emptied before it is used.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dbt/engine.h"

enum {
    RING_BYTES = RING_ENTRIES * 8,
    CACHE_BYTES = JUMP_CACHE_ENTRIES * 8,
    OFFSET_RING = 4096,
    OFFSET_CACHE = OFFSET_RING + RING_BYTES + 4096,
    AREA_BYTES = OFFSET_CACHE + CACHE_BYTES + 4096,
};

/* The area that an offset within a limit probes: 4 GiB that read as zero, then as much that faults.
 */
#define PROBE_READABLE GIB(4)
#define PROBE_BYTES    (2 * GIB(4) + 65536)

static void fill(const void **table, const void *value, unsigned count)
{
    __asm__ volatile("rep stosq" : "+D"(table), "+c"(count) : "a"(value) : "memory");
}

int context_init(struct dbt *d, struct err *err)
{
    d->context_area = mmap(NULL, (size_t)AREA_BYTES * CONTEXT_COUNT, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (d->context_area == MAP_FAILED)
        goto fail;
    for (unsigned i = 0; i < CONTEXT_COUNT; i++) {
        uint8_t *area = d->context_area + (size_t)i * AREA_BYTES;
        d->contexts[i].ring = (uint64_t *)(area + OFFSET_RING);
        d->contexts[i].jump_cache = (const void **)(area + OFFSET_CACHE);
    }
    uint8_t *miss =
        mmap(NULL, CACHE_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (miss == MAP_FAILED)
        goto fail;
    d->all_miss = (const void **)miss;
    fill(d->all_miss, stub_miss, JUMP_CACHE_ENTRIES);
    if (mprotect(miss + CACHE_BYTES, 4096, PROT_NONE) < 0)
        goto fail;
    d->probe_area =
        mmap(NULL, PROBE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (d->probe_area == MAP_FAILED || mprotect(d->probe_area, PROBE_READABLE, PROT_READ) < 0)
        goto fail;
    d->probe_end = (uint64_t)d->probe_area + PROBE_READABLE;
    /* HWCAP2_FSGSBASE: the kernel allows WRGSBASE. */
    d->fsgsbase = (getauxval(AT_HWCAP2) & 2) && !d->options.no_fsgsbase;
    return 0;
fail:
    err_set(err, errno, "no address space for the engine's tables: %s", strerror(errno));
    return -ENOMEM;
}

void context_fini(struct dbt *d)
{
    munmap(d->context_area, (size_t)AREA_BYTES * CONTEXT_COUNT);
    munmap(d->all_miss, CACHE_BYTES + 4096);
    munmap(d->probe_area, PROBE_BYTES);
}

void context_reset_ring(struct dbt *d, struct context *c)
{
    fill((const void **)c->ring, d->jit.stub[STUB_INDIRECT], RING_ENTRIES);
    c->ring_sp = (uint64_t)(c->ring + RING_ENTRIES / 2);
}

void context_flush(struct context *c, const struct dbt *d)
{
    fill(c->jump_cache, stub_miss, JUMP_CACHE_ENTRIES);
    fill((const void **)c->ring, d->jit.stub[STUB_INDIRECT], RING_ENTRIES);
    c->stale = c->user_code = false;
}

static bool flat(const struct segment *s)
{
    return s->base == 0 && s->limit == UINT32_MAX &&
           (s->attr & (ATTR_P | ATTR_S | ATTR_CODE | ATTR_DOWN | ATTR_WRITE)) ==
               (ATTR_P | ATTR_S | ATTR_WRITE);
}

uint32_t context_key(const struct vcpu *v)
{
    uint32_t key = v->cpl;

    if (v->seg[SEG_CS].attr & ATTR_DB)
        key |= KEY_CODE32;
    if (v->seg[SEG_SS].attr & ATTR_DB)
        key |= KEY_STACK32;
    if (flat(&v->seg[SEG_DS]))
        key |= KEY_DS_FLAT;
    if (flat(&v->seg[SEG_ES]))
        key |= KEY_ES_FLAT;
    if (flat(&v->seg[SEG_SS]))
        key |= KEY_SS_FLAT;
    if (v->seg[SEG_CS].limit == UINT32_MAX)
        key |= KEY_CS_FLAT;
    if (v->cr0 & CR0_PE)
        key |= KEY_PROTECTED;
    if (v->cr0 & CR0_PG)
        key |= KEY_PAGED;
    if (v->sys_flags & FLAG_VM)
        key |= KEY_V86;
    if (v->cr0 & (CR0_EM | CR0_TS))
        key |= KEY_X87_NM;
    if ((v->cr0 & CR0_EM) || !(v->cr4 & CR4_OSFXSR))
        key |= KEY_SIMD_UD;
    if (v->cr0 & CR0_EM)
        key |= KEY_MMX_UD;
    if (v->cr0 & CR0_TS)
        key |= KEY_SIMD_NM;
    if ((v->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
        key |= KEY_WAIT_NM;
    if ((v->cr4 & CR4_OSXSAVE) && (v->xcr0 & XCR0_AVX))
        key |= KEY_AVX;
    return key;
}

static void set_probes(struct dbt *d, enum seg seg)
{
    const struct segment *s = &d->cpu.seg[seg];
    uint64_t none = d->probe_end, limit = d->probe_end - ((uint64_t)s->limit + 1);
    bool read, write;

    if (vcpu_real_segments(&d->cpu)) {
        read = write = true;
    } else if (!(s->attr & ATTR_P)) {
        read = write = false;
    } else if (s->attr & ATTR_CODE) {
        read = s->attr & ATTR_WRITE;
        write = false;
    } else {
        read = !(s->attr & ATTR_DOWN);
        write = read && (s->attr & ATTR_WRITE);
    }
    d->jit.probe_read[seg] = read ? limit : none;
    d->jit.probe_write[seg] = write ? limit : none;
}

static struct context *take_context(struct dbt *d, struct window *w)
{
    struct context *c;

    for (c = d->contexts; c < d->contexts + CONTEXT_COUNT; c++) {
        if (!c->window)
            goto found;
    }
    c = &d->contexts[d->context_next++ % CONTEXT_COUNT];
    for (struct context *p = window_private(c->window), *before = NULL; p;
         before = p, p = p->next) {
        if (p != c)
            continue;
        if (before)
            before->next = c->next;
        else
            window_set_private(c->window, c->next);
        break;
    }
found:
    if (!c->ring_sp) {
        mprotect(c->ring, RING_BYTES, PROT_READ | PROT_WRITE);
        mprotect(c->jump_cache, CACHE_BYTES + 4096, PROT_READ | PROT_WRITE);
        c->ring_sp = (uint64_t)(c->ring + RING_ENTRIES / 2);
    }
    c->window = w;
    c->stale = true;
    c->next = window_private(w);
    window_set_private(w, c);
    return c;
}

static void set_gs_base(const struct dbt *d, uint64_t base)
{
    if (LIKELY(d->fsgsbase))
        __asm__ volatile("wrgsbase %0" : : "r"(base));
    else
        syscall(SYS_arch_prctl, 0x1001 /* ARCH_SET_GS */, base);
}

int context_fetch(struct dbt *d, uint32_t gva, uint32_t *page)
{
    bool registered;
    int r = mmu_fetch_page(&d->cpu, d->window, gva, page, &registered);

    if (r || registered)
        return r;
    if (window_kind(d->window) == WINDOW_SUPER)
        r = mmu_fetch_page(&d->cpu, d->user_window, gva, page, &registered);
    if (!registered)
        d->fetched = FETCH_ONCE;
    else if (d->fetched == FETCH_OWN)
        d->fetched = FETCH_BY_USER;
    return r;
}

void context_arm(struct dbt *d)
{
    d->jit.r14 = (uint64_t)d->context->jump_cache;
    __asm__ volatile("" : : : "memory");
    if (d->cpu.kicked)
        d->jit.r14 = (uint64_t)d->all_miss;
}

int context_update(struct dbt *d)
{
    struct vcpu *v = &d->cpu;
    uint32_t key = context_key(v);
    struct context *c;

    v->mode_dirty = false;
    d->stats.contexts++;
    struct window *w = mmu_window(v);
    if (!w)
        return -1;
    d->user_window = v->cpl == 3 ? w : mmu_user_window(v);
    if (!d->user_window)
        return -1;
    if (d->context)
        d->context->ring_sp = d->jit.ring_sp;
    for (c = window_private(w); c; c = c->next) {
        if (c->key == key && c->cs_base == v->seg[SEG_CS].base &&
            c->cs_limit == v->seg[SEG_CS].limit)
            break;
    }
    if (!c) {
        c = take_context(d, w);
        c->key = key;
        c->cs_base = v->seg[SEG_CS].base;
        c->cs_limit = v->seg[SEG_CS].limit;
    }
    if (c->stale || (c->user_code && c->user_window != d->user_window))
        context_flush(c, d);
    c->user_window = d->user_window;
    d->context = c;
    d->jit.ring_sp = c->ring_sp;
    if (d->window != w || d->jit.base != window_base(w)) {
        d->window = w;
        d->jit.base = window_base(w);
        set_gs_base(d, d->jit.base);
    }
    d->jit.ubase = window_base(d->user_window);
    for (unsigned seg = 0; seg < SEG_COUNT; seg++)
        set_probes(d, seg);
    context_arm(d);
    return 0;
}
