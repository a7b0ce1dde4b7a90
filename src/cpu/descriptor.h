/*
 * Descriptors in the GDT and the LDT (SDM 3A 3.4.5, 5.8): finding, parsing and marking them. Tables
 * are read with supervisor rights whatever the CPL, and a page fault met on the way is FAULT with
 * v->exc set. Error codes are made by descriptor_error: the selector without its RPL, and the EXT
 * bit of the event being delivered (0 outside of delivery).
 */
#ifndef CPU_DESCRIPTOR_H
#define CPU_DESCRIPTOR_H

#include "cpu/state.h"

/* System descriptor types (SDM 3A table 3-2). */
enum system_type {
    SYS_TSS16 = 1,
    SYS_LDT = 2,
    SYS_TSS16_BUSY = 3,
    SYS_CALL16 = 4,
    SYS_TASK_GATE = 5,
    SYS_INT16 = 6,
    SYS_TRAP16 = 7,
    SYS_TSS32 = 9,
    SYS_TSS32_BUSY = 11,
    SYS_CALL32 = 12,
    SYS_INT32 = 14,
    SYS_TRAP32 = 15,
    SYS_TSS_BUSY_BIT = 2,
};

enum { SEL_RPL = 3, SEL_TI = 4 };

struct descriptor {
    uint32_t low, high;
    uint32_t gva; /* where it stands */
};

/* What descriptor_find gives for a null selector and for one beyond its table. */
enum { DESCRIPTOR_NONE = 1 };

/* Reads the descriptor of `sel`: 0, DESCRIPTOR_NONE, or FAULT. */
int descriptor_find(struct vcpu *v, uint16_t sel, struct descriptor *out);
/* The same, but DESCRIPTOR_NONE becomes FAULT with `vector`(sel). */
int descriptor_fetch(struct vcpu *v, uint16_t sel, enum vector vector, unsigned ext,
                     struct descriptor *out);
/* Sets the accessed bit of a code or data descriptor, in memory and in `d`. 0 or FAULT. */
int descriptor_set_accessed(struct vcpu *v, struct descriptor *d);
/* Sets or clears the busy bit of a TSS descriptor, in memory and in `d`. 0 or FAULT. */
int descriptor_set_busy(struct vcpu *v, struct descriptor *d, bool busy);

/*
 * What the instructions of the same names find out: 1 (ZF is to be set), 0 (ZF is to be cleared),
 * or FAULT. LAR and LSL give a 32-bit result; the caller cuts it to the operand size.
 */
int descriptor_lar(struct vcpu *v, uint16_t sel, uint32_t *rights);
int descriptor_lsl(struct vcpu *v, uint16_t sel, uint32_t *limit);
int descriptor_verr(struct vcpu *v, uint16_t sel);
int descriptor_verw(struct vcpu *v, uint16_t sel);

/* The hidden part of a segment register that is loaded with `sel`. Also for LDT and TSS. */
struct segment descriptor_segment(uint16_t sel, const struct descriptor *d);

static inline bool selector_null(uint16_t sel)
{
    return (sel & ~SEL_RPL) == 0;
}

static inline uint32_t descriptor_error(uint16_t sel, unsigned ext)
{
    return (sel & 0xFFFCu) | ext;
}

static inline unsigned descriptor_type(const struct descriptor *d)
{
    return d->high >> 8 & 0xF;
}

static inline unsigned descriptor_dpl(const struct descriptor *d)
{
    return d->high >> 13 & 3;
}

static inline bool descriptor_present(const struct descriptor *d)
{
    return d->high >> 15 & 1;
}

static inline bool descriptor_system(const struct descriptor *d)
{
    return !(d->high >> 12 & 1);
}

static inline bool descriptor_code(const struct descriptor *d)
{
    return (d->high >> 11 & 3) == 3;
}

static inline bool descriptor_conforming(const struct descriptor *d)
{
    return (d->high >> 10 & 7) == 7;
}

static inline bool descriptor_writable_data(const struct descriptor *d)
{
    return (d->high >> 8 & 0x1A) == 0x12;
}

static inline uint32_t descriptor_limit(const struct descriptor *d)
{
    uint32_t limit = (d->low & 0xFFFF) | (d->high & 0xF0000);
    return d->high >> 23 & 1 ? limit << 12 | 0xFFF : limit;
}

static inline uint32_t descriptor_base(const struct descriptor *d)
{
    return d->low >> 16 | (d->high & 0xFF) << 16 | (d->high & 0xFF000000);
}

/* Gates. */

static inline uint16_t descriptor_gate_selector(const struct descriptor *d)
{
    return (uint16_t)(d->low >> 16);
}

/* A 16-bit gate's upper half is ignored. */
static inline uint32_t descriptor_gate_offset(const struct descriptor *d)
{
    uint32_t low = d->low & 0xFFFF;
    return descriptor_type(d) & 8 ? low | (d->high & 0xFFFF0000) : low;
}

static inline unsigned descriptor_gate_params(const struct descriptor *d)
{
    return d->high & 0x1F;
}

#endif
