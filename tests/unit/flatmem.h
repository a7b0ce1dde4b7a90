/*
 * Guest memory for tests of src/cpu: struct vcpu_mem over a plain array, no paging. Linear
 * addresses [0, FLATMEM_SIZE) are the array's first part and the top 64 KiB of the 4 GiB its
 * second; everything between is a page fault. flatmem_fault makes a range fault for chosen
 * accesses; an access is checked as a whole before any byte of it is moved, and wraps at 4 GiB.
 */
#ifndef TESTS_UNIT_FLATMEM_H
#define TESTS_UNIT_FLATMEM_H

#include <string.h>

#include "base/base.h"
#include "cpu/state.h"

enum { FLATMEM_SIZE = 1 << 20, FLATMEM_TOP = 1 << 16, FLATMEM_MAX_FAULTS = 8 };
enum flatmem_who {
    FLATMEM_SUPER_READ = 1,
    FLATMEM_SUPER_WRITE = 2,
    FLATMEM_USER_READ = 4,
    FLATMEM_USER_WRITE = 8,
    FLATMEM_WRITE = FLATMEM_SUPER_WRITE | FLATMEM_USER_WRITE,
    FLATMEM_USER = FLATMEM_USER_READ | FLATMEM_USER_WRITE,
    FLATMEM_ANY = 15,
};

struct flatmem {
    uint8_t bytes[FLATMEM_SIZE + FLATMEM_TOP];
    struct {
        uint32_t first, last;
        unsigned who;
        bool present; /* bit 0 of the error code */
    } fault[FLATMEM_MAX_FAULTS];
    unsigned faults;
    unsigned reads, writes, probes, cmpxchgs, paging_changes, invlpgs;
    uint32_t invlpg_gva;
    bool bad_pdptes; /* load_pdptes gives #GP(0) */
};

static inline struct flatmem *flatmem_of(struct vcpu *v)
{
    return (struct flatmem *)(void *)v->mmu;
}

static inline uint8_t *flatmem_byte(struct flatmem *m, uint32_t gva)
{
    if (gva < FLATMEM_SIZE)
        return &m->bytes[gva];
    if (gva >= 0u - FLATMEM_TOP)
        return &m->bytes[FLATMEM_SIZE + (gva - (0u - FLATMEM_TOP))];
    return NULL;
}

static inline int flatmem_check(struct vcpu *v, uint32_t gva, unsigned size, bool write, bool user)
{
    struct flatmem *m = flatmem_of(v);
    unsigned who = (write ? FLATMEM_SUPER_WRITE : FLATMEM_SUPER_READ) << (user ? 2 : 0);
    for (unsigned i = 0; i < size; i++) {
        uint32_t a = gva + i;
        bool bad = !flatmem_byte(m, a), present = false;
        for (unsigned k = 0; k < m->faults && !bad; k++) {
            if (a >= m->fault[k].first && a <= m->fault[k].last && (m->fault[k].who & who)) {
                bad = true;
                present = m->fault[k].present;
            }
        }
        if (bad) {
            v->exc = (struct exception){
                .vector = VEC_PF,
                .has_error = true,
                .error = (present ? 1u : 0) | (write ? 2u : 0) | (user ? 4u : 0),
                .cr2 = a,
            };
            return FAULT;
        }
    }
    return 0;
}

static inline int flatmem_read(struct vcpu *v, uint32_t gva, void *to, unsigned size, bool user)
{
    flatmem_of(v)->reads++;
    if (flatmem_check(v, gva, size, false, user))
        return FAULT;
    for (unsigned i = 0; i < size; i++)
        ((uint8_t *)to)[i] = *flatmem_byte(flatmem_of(v), gva + i);
    return 0;
}

static inline int flatmem_write(struct vcpu *v, uint32_t gva, const void *from, unsigned size,
                                bool user)
{
    flatmem_of(v)->writes++;
    if (flatmem_check(v, gva, size, true, user))
        return FAULT;
    for (unsigned i = 0; i < size; i++)
        *flatmem_byte(flatmem_of(v), gva + i) = ((const uint8_t *)from)[i];
    return 0;
}

static inline int flatmem_probe_write(struct vcpu *v, uint32_t gva, unsigned size, bool user)
{
    flatmem_of(v)->probes++;
    return flatmem_check(v, gva, size, true, user);
}

static inline int flatmem_fetch(struct vcpu *v, uint32_t gva, void *to, unsigned size, bool user)
{
    unsigned n = 0;
    while (n < size && flatmem_read(v, gva + n, (uint8_t *)to + n, 1, user) == 0)
        n++;
    return n ? (int)n : FAULT;
}

static inline int flatmem_cmpxchg32(struct vcpu *v, uint32_t gva, uint32_t *old, uint32_t value,
                                    bool user)
{
    flatmem_of(v)->cmpxchgs++;
    if (flatmem_check(v, gva, 4, true, user))
        return FAULT;
    uint32_t found;
    memcpy(&found, flatmem_byte(flatmem_of(v), gva), 4);
    if (found == *old)
        memcpy(flatmem_byte(flatmem_of(v), gva), &value, 4);
    *old = found;
    return 0;
}

static inline void flatmem_paging_changed(struct vcpu *v, uint32_t old_cr0, uint32_t old_cr3,
                                          uint32_t old_cr4)
{
    (void)old_cr0, (void)old_cr3, (void)old_cr4;
    flatmem_of(v)->paging_changes++;
}

static inline void flatmem_invlpg(struct vcpu *v, uint32_t gva)
{
    flatmem_of(v)->invlpgs++;
    flatmem_of(v)->invlpg_gva = gva;
}

static inline int flatmem_load_pdptes(struct vcpu *v, uint32_t cr3)
{
    if (flatmem_of(v)->bad_pdptes)
        return vcpu_raise_error(v, VEC_GP, 0);
    for (unsigned i = 0; i < 4; i++)
        v->pdpte[i] = (cr3 & ~31u) + 8 * i;
    return 0;
}

static const struct vcpu_mem flatmem_functions = {
    .read = flatmem_read,
    .write = flatmem_write,
    .probe_write = flatmem_probe_write,
    .fetch = flatmem_fetch,
    .cmpxchg32 = flatmem_cmpxchg32,
    .paging_changed = flatmem_paging_changed,
    .invlpg = flatmem_invlpg,
    .load_pdptes = flatmem_load_pdptes,
};

/* Empty memory, no faults; everything of `v` zero but for its connection to `m`. */
static inline void flatmem_init(struct flatmem *m, struct vcpu *v)
{
    memset(m, 0, sizeof *m);
    memset(v, 0, sizeof *v);
    v->mem = &flatmem_functions;
    v->mmu = (struct mmu *)(void *)m;
}

/* From now on accesses of `who` (a set of enum flatmem_who) to [first, last] fault. */
static inline void flatmem_fault(struct flatmem *m, uint32_t first, uint32_t last, unsigned who,
                                 bool present)
{
    if (m->faults == FLATMEM_MAX_FAULTS)
        return;
    m->fault[m->faults].first = first;
    m->fault[m->faults].last = last;
    m->fault[m->faults].who = who;
    m->fault[m->faults].present = present;
    m->faults++;
}

static inline void flatmem_put32(struct flatmem *m, uint32_t gva, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        *flatmem_byte(m, gva + i) = (uint8_t)(value >> 8 * i);
}

static inline void flatmem_put16(struct flatmem *m, uint32_t gva, uint16_t value)
{
    *flatmem_byte(m, gva) = (uint8_t)value;
    *flatmem_byte(m, gva + 1) = (uint8_t)(value >> 8);
}

static inline uint32_t flatmem_get32(struct flatmem *m, uint32_t gva)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < 4; i++)
        value |= (uint32_t)*flatmem_byte(m, gva + i) << 8 * i;
    return value;
}

static inline uint16_t flatmem_get16(struct flatmem *m, uint32_t gva)
{
    return (uint16_t)(*flatmem_byte(m, gva) | *flatmem_byte(m, gva + 1) << 8);
}

/* Writes a code, data, LDT or TSS descriptor; `attr` as in struct segment, `limit` as in its 20
 * bits. */
static inline void flatmem_put_descriptor(struct flatmem *m, uint32_t gva, uint32_t base,
                                          uint32_t limit, uint16_t attr)
{
    flatmem_put32(m, gva, base << 16 | (limit & 0xFFFF));
    flatmem_put32(m, gva + 4,
                  (base & 0xFF000000) | (uint32_t)attr << 8 | (limit & 0xF0000) |
                      (base >> 16 & 0xFF));
}

/* Writes a gate; `attr` is P, DPL and type (8Eh: a 32-bit interrupt gate of DPL 0). */
static inline void flatmem_put_gate(struct flatmem *m, uint32_t gva, uint16_t sel, uint32_t offset,
                                    uint8_t attr, unsigned params)
{
    flatmem_put32(m, gva, (uint32_t)sel << 16 | (offset & 0xFFFF));
    flatmem_put32(m, gva + 4, (offset & 0xFFFF0000) | (uint32_t)attr << 8 | params);
}

#endif
