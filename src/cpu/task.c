/*
 * The hardware task switch (SDM 3A 7.3) in two halves. The first checks and probes everything that
 * the switch reads and writes: both TSSs, their descriptors, the PDPTEs; a fault there leaves the
 * old task as it was. Then the old state is saved and the new one loaded, and from there on faults
 * belong to the new task (TASK_SWITCHED_FAULT): its segments are checked in the order of SDM 3A
 * table 7-1, with registers not yet checked holding their selectors and being unusable.
 *
 * Of the state that a 16-bit TSS does not hold, the upper halves of the registers and FS and GS
 * become 0.
 */
#include "cpu/task.h"

#include <string.h>

#include "cpu/emulate.h"
#include "cpu/segment.h"

enum {
    TSS_LINK = 0,
    TSS16_IP = 0x0E,
    TSS16_FLAGS = 0x10,
    TSS16_REGS = 0x12,
    TSS16_SREGS = 0x22,
    TSS16_SAVED_END = 0x2A,
    TSS16_LDT = 0x2A,
    TSS16_SIZE = 0x2C,
    TSS32_CR3 = 0x1C,
    TSS32_EIP = 0x20,
    TSS32_EFLAGS = 0x24,
    TSS32_REGS = 0x28,
    TSS32_SREGS = 0x48,
    TSS32_SAVED_END = 0x60,
    TSS32_LDT = 0x60,
    TSS32_TRAP = 0x64,
    TSS32_SIZE = 0x68,
    TYPE_32 = 8, /* the bit that tells 32-bit system types from 16-bit ones */
    DR6_BT = 1 << 15,
    DR7_LOCAL = 0x155, /* L0-L3, LE */
};

/* What a TSS holds of a task, whatever its width. */
struct image {
    uint32_t cr3, eip, eflags;
    uint32_t regs[8];
    uint16_t sel[SEG_COUNT], ldt;
    bool trap;
};

static uint32_t get(const uint8_t *from, unsigned size)
{
    uint32_t value = 0;
    memcpy(&value, from, size);
    return value;
}

static int read_image(struct vcpu *v, const struct descriptor *d, struct image *im)
{
    uint8_t raw[TSS32_SIZE];
    bool wide = descriptor_type(d) & TYPE_32;
    if (v->mem->read(v, descriptor_base(d), raw, wide ? TSS32_SIZE : TSS16_SIZE, false))
        return FAULT;
    *im = (struct image){.cr3 = v->cr3};
    if (wide) {
        im->cr3 = get(raw + TSS32_CR3, 4);
        im->eip = get(raw + TSS32_EIP, 4);
        im->eflags = get(raw + TSS32_EFLAGS, 4);
        im->ldt = (uint16_t)get(raw + TSS32_LDT, 2);
        im->trap = raw[TSS32_TRAP] & 1;
    } else {
        im->eip = get(raw + TSS16_IP, 2);
        im->eflags = get(raw + TSS16_FLAGS, 2);
        im->ldt = (uint16_t)get(raw + TSS16_LDT, 2);
    }
    for (unsigned i = 0; i < ARRAY_LEN(im->regs); i++)
        im->regs[i] = wide ? get(raw + TSS32_REGS + 4 * i, 4) : get(raw + TSS16_REGS + 2 * i, 2);
    for (unsigned i = 0; i < (wide ? SEG_COUNT : SEG_FS); i++)
        im->sel[i] = (uint16_t)get(raw + (wide ? TSS32_SREGS + 4 * i : TSS16_SREGS + 2 * i), 2);
    return 0;
}

static void save(struct vcpu *v, uint32_t eip, uint32_t eflags)
{
    uint8_t raw[TSS32_SAVED_END];
    bool wide = v->tr.attr & TYPE_32;
    unsigned first = wide ? TSS32_EIP : TSS16_IP, size = wide ? 4 : 2;
    unsigned end = wide ? TSS32_SAVED_END : TSS16_SAVED_END;
    v->mem->read(v, v->tr.base + first, raw + first, end - first, false);
    memcpy(raw + first, &eip, size);
    memcpy(raw + (wide ? TSS32_EFLAGS : TSS16_FLAGS), &eflags, size);
    for (unsigned i = 0; i < 8; i++)
        memcpy(raw + (wide ? TSS32_REGS : TSS16_REGS) + size * i, &v->regs[i], size);
    for (unsigned i = 0; i < (wide ? SEG_COUNT : SEG_FS); i++)
        memcpy(raw + (wide ? TSS32_SREGS : TSS16_SREGS) + size * i, &v->seg[i].sel, 2);
    v->mem->write(v, v->tr.base + first, raw + first, end - first, false);
}

static int load_ldt(struct vcpu *v, uint16_t sel, unsigned ext)
{
    struct descriptor d;
    uint32_t error = descriptor_error(sel, ext);
    if (selector_null(sel))
        return 0;
    if (sel & SEL_TI)
        return vcpu_raise_error(v, VEC_TS, error);
    if (descriptor_fetch(v, sel, VEC_TS, ext, &d))
        return FAULT;
    if (!descriptor_system(&d) || descriptor_type(&d) != SYS_LDT || !descriptor_present(&d))
        return vcpu_raise_error(v, VEC_TS, error);
    v->ldtr = descriptor_segment(sel, &d);
    return 0;
}

static int load_code(struct vcpu *v, uint16_t sel, unsigned ext)
{
    struct descriptor d;
    uint32_t error = descriptor_error(sel, ext);
    unsigned rpl = sel & SEL_RPL;
    if (descriptor_fetch(v, sel, VEC_TS, ext, &d))
        return FAULT;
    if (!descriptor_code(&d) ||
        (descriptor_conforming(&d) ? descriptor_dpl(&d) > rpl : descriptor_dpl(&d) != rpl))
        return vcpu_raise_error(v, VEC_TS, error);
    if (!descriptor_present(&d))
        return vcpu_raise_error(v, VEC_NP, error);
    if (descriptor_set_accessed(v, &d))
        return FAULT;
    segment_set_code(v, sel, &d, rpl);
    return 0;
}

/* The segment registers of the new task, CPL and EFLAGS being in place. */
static int load_segments(struct vcpu *v, const struct image *im, unsigned ext)
{
    static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    struct descriptor d;
    struct segment s;
    if (load_ldt(v, im->ldt, ext))
        return FAULT;
    if (vcpu_v86(v)) {
        for (unsigned i = 0; i < SEG_COUNT; i++)
            segment_load_real(v, (enum seg)i, im->sel[i]);
        return 0;
    }
    if (load_code(v, im->sel[SEG_CS], ext) ||
        segment_fetch_stack(v, im->sel[SEG_SS], v->cpl, VEC_TS, ext, &d))
        return FAULT;
    s = descriptor_segment(im->sel[SEG_SS], &d);
    segment_set(v, SEG_SS, &s);
    for (unsigned i = 0; i < ARRAY_LEN(data); i++) {
        uint16_t sel = im->sel[data[i]];
        if (selector_null(sel))
            continue;
        if (segment_fetch_data(v, sel, v->cpl, VEC_TS, ext, &d))
            return FAULT;
        s = descriptor_segment(sel, &d);
        segment_set(v, (enum seg)data[i], &s);
    }
    return 0;
}

static int enter(struct vcpu *v, const struct task_request *r, const struct image *im)
{
    if (load_segments(v, im, r->ext))
        return FAULT;
    if (r->has_error) {
        struct stack st = stack_current(v);
        st.align = false;
        st.error = r->ext;
        if (stack_push(v, &st, &r->error, 1, descriptor_type(&r->d) & TYPE_32 ? 4 : 2))
            return FAULT;
        v->regs[REG_SP] = st.esp;
    }
    if (im->eip > v->seg[SEG_CS].limit)
        return vcpu_raise_error(v, VEC_GP, r->ext);
    if (im->trap) {
        v->dr[6] |= DR6_BT;
        return vcpu_raise(v, VEC_DB);
    }
    return 0;
}

/* All that can fault while the old task is still the current one. */
static int probe(struct vcpu *v, const struct task_request *r, struct image *im,
                 struct descriptor *old, bool *clear_busy)
{
    bool nested = r->reason == TASK_CALL || r->reason == TASK_EVENT;
    bool wide = v->tr.attr & TYPE_32;
    uint32_t first = wide ? TSS32_EIP : TSS16_IP, end = wide ? TSS32_SAVED_END : TSS16_SAVED_END;
    uint32_t least = descriptor_type(&r->d) & TYPE_32 ? TSS32_SIZE - 1 : TSS16_SIZE - 1;
    if (descriptor_limit(&r->d) < least)
        return vcpu_raise_error(v, VEC_TS, descriptor_error(r->sel, r->ext));
    if (v->tr.limit < end - 1)
        return vcpu_raise_error(v, VEC_TS, descriptor_error(v->tr.sel, r->ext));
    if (read_image(v, &r->d, im) ||
        v->mem->probe_write(v, v->tr.base + first, end - first, false) ||
        v->mem->probe_write(v, r->d.gva + 4, 4, false))
        return FAULT;
    *clear_busy = false;
    if (nested) {
        if (v->mem->probe_write(v, descriptor_base(&r->d) + TSS_LINK, 2, false))
            return FAULT;
    } else {
        int found = descriptor_find(v, v->tr.sel, old);
        if (found == FAULT || (found == 0 && v->mem->probe_write(v, old->gva + 4, 4, false)))
            return FAULT;
        *clear_busy = found == 0;
    }
    if ((v->cr0 & CR0_PG) && (v->cr4 & CR4_PAE) && im->cr3 != v->cr3)
        return v->mem->load_pdptes(v, im->cr3);
    return 0;
}

int task_switch(struct vcpu *v, const struct task_request *r)
{
    struct image im;
    struct descriptor old, d = r->d;
    bool clear_busy, nested = r->reason == TASK_CALL || r->reason == TASK_EVENT;
    if (probe(v, r, &im, &old, &clear_busy))
        return FAULT;

    if (clear_busy)
        descriptor_set_busy(v, &old, false);
    save(v, r->eip, r->reason == TASK_IRET ? r->eflags & ~(uint32_t)FLAG_NT : r->eflags);
    if (nested)
        v->mem->write(v, descriptor_base(&d) + TSS_LINK, &v->tr.sel, 2, false);
    if (r->reason != TASK_IRET)
        descriptor_set_busy(v, &d, true);
    v->tr = descriptor_segment(r->sel, &d);
    v->cr0 |= CR0_TS;
    v->dr[7] &= ~(uint32_t)DR7_LOCAL;
    if ((v->cr0 & CR0_PG) && im.cr3 != v->cr3) {
        uint32_t old_cr3 = v->cr3;
        v->cr3 = im.cr3;
        v->mem->paging_changed(v, v->cr0, old_cr3, v->cr4);
    }

    for (unsigned i = 0; i < ARRAY_LEN(im.regs); i++)
        v->regs[i] = im.regs[i];
    vcpu_set_eflags(v, nested ? im.eflags | FLAG_NT : im.eflags);
    v->rip = im.eip;
    v->shadow = 0;
    v->ldtr = (struct segment){.sel = im.ldt};
    for (unsigned i = 0; i < SEG_COUNT; i++)
        segment_set_null(v, (enum seg)i, im.sel[i]);
    segment_set_cpl(v, vcpu_v86(v) ? 3 : im.sel[SEG_CS] & SEL_RPL);
    vcpu_mode_changed(v);
    return enter(v, r, &im) ? TASK_SWITCHED_FAULT : 0;
}

int task_gate(struct vcpu *v, const struct descriptor *gate, unsigned ext, struct task_request *r)
{
    uint32_t error = descriptor_error(descriptor_gate_selector(gate), ext);
    r->sel = descriptor_gate_selector(gate);
    if (r->sel & SEL_TI)
        return vcpu_raise_error(v, VEC_GP, error);
    if (descriptor_fetch(v, r->sel, VEC_GP, ext, &r->d))
        return FAULT;
    unsigned type = descriptor_type(&r->d);
    if (!descriptor_system(&r->d) || (type != SYS_TSS16 && type != SYS_TSS32))
        return vcpu_raise_error(v, VEC_GP, error);
    if (!descriptor_present(&r->d))
        return vcpu_raise_error(v, VEC_NP, error);
    return 0;
}

int task_inner_stack(struct vcpu *v, unsigned dpl, unsigned ext, struct stack *out)
{
    bool wide = v->tr.attr & TYPE_32;
    uint32_t offset = wide ? dpl * 8 + 4 : dpl * 4 + 2, size = wide ? 6 : 4;
    uint8_t raw[6];
    struct descriptor d;
    if (offset + size - 1 > v->tr.limit)
        return vcpu_raise_error(v, VEC_TS, descriptor_error(v->tr.sel, ext));
    if (v->mem->read(v, v->tr.base + offset, raw, size, false))
        return FAULT;
    uint16_t sel = (uint16_t)get(raw + size - 2, 2);
    if (segment_fetch_stack(v, sel, dpl, VEC_TS, ext, &d))
        return FAULT;
    *out = (struct stack){
        .ss = descriptor_segment(sel, &d),
        .esp = get(raw, size - 2),
        .user = dpl == 3,
        .error = descriptor_error(sel, ext),
    };
    return 0;
}
