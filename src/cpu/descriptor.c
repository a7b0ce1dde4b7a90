/*
 * Finding and marking descriptors. The accessed and busy bits are set by a locked
 * compare-and-exchange of the descriptor's upper dword, as the CPU does; a table that is not
 * aligned to 4 bytes gets a plain write. A bit that is set already is not written, so that tables
 * in ROM and on read-only pages work.
 */
#include "cpu/descriptor.h"

enum { HIGH_ACCESSED = 1u << 8, HIGH_BUSY = 1u << 9 };

int descriptor_find(struct vcpu *v, uint16_t sel, struct descriptor *out)
{
    uint32_t base = v->gdtr.base, limit = v->gdtr.limit;
    if (sel & SEL_TI) {
        if (!(v->ldtr.attr & ATTR_P))
            return DESCRIPTOR_NONE;
        base = v->ldtr.base;
        limit = v->ldtr.limit;
    }
    uint32_t offset = sel & 0xFFF8u, raw[2];
    if (selector_null(sel) || offset + 7 > limit)
        return DESCRIPTOR_NONE;
    if (v->mem->read(v, base + offset, raw, sizeof raw, false))
        return FAULT;
    *out = (struct descriptor){.low = raw[0], .high = raw[1], .gva = base + offset};
    return 0;
}

int descriptor_fetch(struct vcpu *v, uint16_t sel, enum vector vector, unsigned ext,
                     struct descriptor *out)
{
    int found = descriptor_find(v, sel, out);
    if (found == DESCRIPTOR_NONE)
        return vcpu_raise_error(v, vector, descriptor_error(sel, ext));
    return found;
}

static int change_high(struct vcpu *v, struct descriptor *d, uint32_t clear, uint32_t set)
{
    uint32_t gva = d->gva + 4, value = (d->high & ~clear) | set;
    if (gva & 3) {
        if (v->mem->write(v, gva, &value, sizeof value, false))
            return FAULT;
        d->high = value;
        return 0;
    }
    uint32_t expected = d->high, old = expected;
    if (v->mem->cmpxchg32(v, gva, &old, value, false))
        return FAULT;
    if (old != expected) {
        /* A device wrote to the table meanwhile. There is no second CPU, so once more is enough. */
        value = (old & ~clear) | set;
        if (v->mem->cmpxchg32(v, gva, &old, value, false))
            return FAULT;
    }
    d->high = value;
    return 0;
}

int descriptor_set_accessed(struct vcpu *v, struct descriptor *d)
{
    if (d->high & HIGH_ACCESSED)
        return 0;
    return change_high(v, d, 0, HIGH_ACCESSED);
}

int descriptor_set_busy(struct vcpu *v, struct descriptor *d, bool busy)
{
    if (!(d->high & HIGH_BUSY) == !busy)
        return 0;
    return busy ? change_high(v, d, 0, HIGH_BUSY) : change_high(v, d, HIGH_BUSY, 0);
}

struct segment descriptor_segment(uint16_t sel, const struct descriptor *d)
{
    return (struct segment){
        .sel = sel,
        .attr = (uint16_t)(d->high >> 8 & 0xF0FF),
        .base = descriptor_base(d),
        .limit = descriptor_limit(d),
    };
}

/* Visible to LAR, LSL, VERR and VERW: DPL not under CPL and RPL, except for conforming code. */
static bool visible(const struct vcpu *v, uint16_t sel, const struct descriptor *d)
{
    return descriptor_conforming(d) || max_u32(v->cpl, sel & SEL_RPL) <= descriptor_dpl(d);
}

/* As the four instructions need it: 1 (found), 0, or FAULT. */
static int look_up(struct vcpu *v, uint16_t sel, struct descriptor *d)
{
    int found = descriptor_find(v, sel, d);
    return found == 0 ? visible(v, sel, d) : found == DESCRIPTOR_NONE ? 0 : FAULT;
}

int descriptor_lar(struct vcpu *v, uint16_t sel, uint32_t *rights)
{
    static const uint32_t valid = BIT(SYS_TSS16) | BIT(SYS_LDT) | BIT(SYS_TSS16_BUSY) |
                                  BIT(SYS_CALL16) | BIT(SYS_TASK_GATE) | BIT(SYS_TSS32) |
                                  BIT(SYS_TSS32_BUSY) | BIT(SYS_CALL32);
    struct descriptor d;
    int ok = look_up(v, sel, &d);
    if (ok != 1)
        return ok;
    if (descriptor_system(&d) && !(valid >> descriptor_type(&d) & 1))
        return 0;
    *rights = d.high & 0x00FFFF00;
    return 1;
}

int descriptor_lsl(struct vcpu *v, uint16_t sel, uint32_t *limit)
{
    static const uint32_t valid =
        BIT(SYS_TSS16) | BIT(SYS_LDT) | BIT(SYS_TSS16_BUSY) | BIT(SYS_TSS32) | BIT(SYS_TSS32_BUSY);
    struct descriptor d;
    int ok = look_up(v, sel, &d);
    if (ok != 1)
        return ok;
    if (descriptor_system(&d) && !(valid >> descriptor_type(&d) & 1))
        return 0;
    *limit = descriptor_limit(&d);
    return 1;
}

int descriptor_verr(struct vcpu *v, uint16_t sel)
{
    struct descriptor d;
    int ok = look_up(v, sel, &d);
    if (ok != 1)
        return ok;
    return !descriptor_system(&d) && (!descriptor_code(&d) || (d.high >> 9 & 1));
}

int descriptor_verw(struct vcpu *v, uint16_t sel)
{
    struct descriptor d;
    int ok = look_up(v, sel, &d);
    if (ok != 1)
        return ok;
    return descriptor_writable_data(&d);
}
