/*
 * Segmentation: the check of an access against a segment register, and the loading of one.
 *
 * The hidden part of a register is all that an access looks at, in every mode, as in the hardware.
 * In real mode a load changes the selector and the base, makes the segment present and writable,
 * and leaves limit, G and D/B as they are ("unreal mode" depends on it); in virtual-8086 mode a
 * load gives what SDM 3A 20.1.1 says in full. A null or unusable register has attr 0, and so fails
 * the check for P.
 *
 * Limits: an access that runs past offset FFFFFFFFh of an expand-up segment whose limit is
 * FFFFFFFFh wraps round to linear address base + 0 (SDM 3A 5.3 leaves it to the implementation;
 * current CPUs do this).
 */
#include "cpu/segment.h"

#include "cpu/emulate.h"

enum {
    ATTR_REAL = ATTR_P | ATTR_S | ATTR_WRITE | ATTR_ACCESSED,
    ATTR_V86 = ATTR_REAL | ATTR_DPL,
};

bool segment_within(const struct segment *s, uint32_t offset, uint32_t size)
{
    uint32_t last = offset + (size - 1);
    if ((s->attr & (ATTR_S | ATTR_CODE | ATTR_DOWN)) == (ATTR_S | ATTR_DOWN)) {
        uint32_t top = s->attr & ATTR_DB ? 0xFFFFFFFF : 0xFFFF;
        return offset > s->limit && last <= top && last >= offset;
    }
    if (s->limit == 0xFFFFFFFF)
        return true;
    return last <= s->limit && last >= offset;
}

bool segment_checks_alignment(const struct vcpu *v)
{
    return v->cpl == 3 && (v->cr0 & CR0_AM) && (v->sys_flags & FLAG_AC);
}

int segment_linear(struct vcpu *v, enum seg seg, uint32_t offset, unsigned size, unsigned access,
                   uint32_t *gva)
{
    const struct segment *s = &v->seg[seg];
    bool code = s->attr & ATTR_CODE;
    bool allowed = s->attr & ATTR_P;
    if (access & ACCESS_WRITE)
        allowed &= !code && (s->attr & ATTR_WRITE);
    if (access & ACCESS_READ)
        allowed &= !code || (s->attr & ATTR_WRITE);
    if (!allowed || !segment_within(s, offset, size))
        return vcpu_raise_error(v, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
    *gva = s->base + offset;
    return 0;
}

static int operand_linear(struct vcpu *v, enum seg seg, uint32_t offset, unsigned size,
                          unsigned access, uint32_t *gva)
{
    if (segment_linear(v, seg, offset, size, access, gva))
        return FAULT;
    if (UNLIKELY(segment_checks_alignment(v)) && (size & (size - 1)) == 0 && (*gva & (size - 1)))
        return vcpu_raise_error(v, VEC_AC, 0);
    return 0;
}

int segment_read(struct vcpu *v, enum seg seg, uint32_t offset, void *to, unsigned size)
{
    uint32_t gva;
    if (operand_linear(v, seg, offset, size, ACCESS_READ, &gva))
        return FAULT;
    return v->mem->read(v, gva, to, size, v->cpl == 3);
}

int segment_write(struct vcpu *v, enum seg seg, uint32_t offset, const void *from, unsigned size)
{
    uint32_t gva;
    if (operand_linear(v, seg, offset, size, ACCESS_WRITE, &gva))
        return FAULT;
    return v->mem->write(v, gva, from, size, v->cpl == 3);
}

void segment_set(struct vcpu *v, enum seg seg, const struct segment *s)
{
    struct segment *old = &v->seg[seg];
    if (old->base != s->base || old->limit != s->limit || old->attr != s->attr)
        vcpu_mode_changed(v);
    *old = *s;
}

void segment_set_null(struct vcpu *v, enum seg seg, uint16_t sel)
{
    segment_set(v, seg, &(struct segment){.sel = sel});
}

void segment_set_cpl(struct vcpu *v, unsigned cpl)
{
    if (v->cpl != cpl)
        vcpu_mode_changed(v);
    v->cpl = (uint8_t)cpl;
}

void segment_set_code(struct vcpu *v, uint16_t sel, const struct descriptor *d, unsigned cpl)
{
    struct segment s = descriptor_segment((uint16_t)((sel & ~SEL_RPL) | cpl), d);
    segment_set(v, SEG_CS, &s);
    segment_set_cpl(v, cpl);
}

void segment_load_real(struct vcpu *v, enum seg seg, uint16_t selector)
{
    struct segment s = {.sel = selector, .base = (uint32_t)selector << 4};
    if (vcpu_v86(v)) {
        s.attr = ATTR_V86;
        s.limit = 0xFFFF;
    } else {
        s.attr = ATTR_REAL | (v->seg[seg].attr & (ATTR_DB | ATTR_G));
        s.limit = v->seg[seg].limit;
    }
    segment_set(v, seg, &s);
}

int segment_fetch_stack(struct vcpu *v, uint16_t sel, unsigned cpl, enum vector vector,
                        unsigned ext, struct descriptor *d)
{
    uint32_t error = descriptor_error(sel, ext);
    if (descriptor_fetch(v, sel, vector, ext, d))
        return FAULT;
    if ((sel & SEL_RPL) != cpl || !descriptor_writable_data(d) || descriptor_dpl(d) != cpl)
        return vcpu_raise_error(v, vector, error);
    if (!descriptor_present(d))
        return vcpu_raise_error(v, VEC_SS, error);
    return descriptor_set_accessed(v, d);
}

int segment_fetch_data(struct vcpu *v, uint16_t sel, unsigned cpl, enum vector vector, unsigned ext,
                       struct descriptor *d)
{
    uint32_t error = descriptor_error(sel, ext);
    if (descriptor_fetch(v, sel, vector, ext, d))
        return FAULT;
    bool readable = !descriptor_code(d) || (d->high >> 9 & 1);
    if (descriptor_system(d) || !readable)
        return vcpu_raise_error(v, vector, error);
    if (!descriptor_conforming(d) && max_u32(cpl, sel & SEL_RPL) > descriptor_dpl(d))
        return vcpu_raise_error(v, vector, error);
    if (!descriptor_present(d))
        return vcpu_raise_error(v, VEC_NP, error);
    return descriptor_set_accessed(v, d);
}

int segment_load(struct vcpu *v, enum seg seg, uint16_t selector)
{
    struct descriptor d;
    if (vcpu_real_segments(v)) {
        segment_load_real(v, seg, selector);
        return 0;
    }
    if (seg == SEG_SS) {
        if (segment_fetch_stack(v, selector, v->cpl, VEC_GP, 0, &d))
            return FAULT;
    } else if (selector_null(selector)) {
        segment_set_null(v, seg, selector);
        return 0;
    } else if (segment_fetch_data(v, selector, v->cpl, VEC_GP, 0, &d)) {
        return FAULT;
    }
    struct segment s = descriptor_segment(selector, &d);
    segment_set(v, seg, &s);
    return 0;
}
