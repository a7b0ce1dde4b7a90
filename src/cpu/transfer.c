/*
 * Far JMP, CALL, RET and IRET, SYSENTER and SYSEXIT. Each works on a copy of the stack
 * (cpu/stack.h) and on descriptors, and puts stack, code segment, CPL, flags and EIP into the vCPU
 * in one go at its end. Checks are made in the order of the manual's pseudo-code (SDM 2).
 */
#include "cpu/transfer.h"

#include "cpu/emulate.h"
#include "cpu/segment.h"
#include "cpu/task.h"

enum {
    SYS_CODE_ATTR = ATTR_P | ATTR_S | ATTR_CODE | ATTR_WRITE | ATTR_ACCESSED | ATTR_DB | ATTR_G,
    SYS_STACK_ATTR = ATTR_P | ATTR_S | ATTR_WRITE | ATTR_ACCESSED | ATTR_DB | ATTR_G,
};

/* A far JMP or CALL on its way. */
struct far {
    uint16_t sel;
    uint32_t offset;
    unsigned opsize;
    uint32_t next;
    bool call;
};

static int fault(struct vcpu *v, enum vector vector, uint16_t sel)
{
    return vcpu_raise_error(v, vector, descriptor_error(sel, 0));
}

/* A fault in the new task is delivered there, so that FAULT always means that nothing happened. */
static int task_result(struct vcpu *v, int result)
{
    if (result == TASK_SWITCHED_FAULT) {
        deliver_exception(v);
        return 0;
    }
    return result;
}

static void set_stack(struct vcpu *v, const struct stack *st)
{
    segment_set(v, SEG_SS, &st->ss);
    v->regs[REG_SP] = st->esp;
}

/* ---- real and virtual-8086 mode ---- */

static int far_real(struct vcpu *v, const struct far *f)
{
    struct stack st = stack_current(v);
    uint32_t eip = f->offset & (uint32_t)width_mask(f->opsize);
    if (f->call && stack_room(v, &st, 2, f->opsize))
        return FAULT;
    if (eip > v->seg[SEG_CS].limit)
        return vcpu_raise_error(v, VEC_GP, 0);
    if (f->call) {
        uint32_t frame[] = {v->seg[SEG_CS].sel, f->next};
        if (stack_push(v, &st, frame, 2, f->opsize))
            return FAULT;
        v->regs[REG_SP] = st.esp;
    }
    segment_load_real(v, SEG_CS, f->sel);
    v->rip = eip;
    return 0;
}

/* ---- JMP and CALL in protected mode ---- */

/* CS is `d` now, without a change of CPL; CALL has pushed. */
static int far_same(struct vcpu *v, const struct far *f, uint16_t sel, struct descriptor *d,
                    uint32_t eip, unsigned size)
{
    struct stack st = stack_current(v);
    if (f->call && stack_room(v, &st, 2, size))
        return FAULT;
    if (eip > descriptor_limit(d))
        return vcpu_raise_error(v, VEC_GP, 0);
    if (descriptor_set_accessed(v, d))
        return FAULT;
    if (f->call) {
        uint32_t frame[] = {v->seg[SEG_CS].sel, f->next};
        if (stack_push(v, &st, frame, 2, size))
            return FAULT;
        v->regs[REG_SP] = st.esp;
    }
    segment_set_code(v, sel, d, v->cpl);
    v->rip = eip;
    return 0;
}

static int far_code(struct vcpu *v, const struct far *f, struct descriptor *d)
{
    unsigned dpl = descriptor_dpl(d);
    bool ok =
        descriptor_conforming(d) ? dpl <= v->cpl : (f->sel & SEL_RPL) <= v->cpl && dpl == v->cpl;
    if (!ok)
        return fault(v, VEC_GP, f->sel);
    if (!descriptor_present(d))
        return fault(v, VEC_NP, f->sel);
    return far_same(v, f, f->sel, d, f->offset & (uint32_t)width_mask(f->opsize), f->opsize);
}

/* CALL through a gate to an inner ring: the stack from the TSS, parameters copied. */
static int call_inner(struct vcpu *v, const struct far *f, const struct descriptor *gate,
                      uint16_t sel, struct descriptor *d, unsigned size)
{
    unsigned dpl = descriptor_dpl(d), params = descriptor_gate_params(gate), n = 0;
    uint32_t eip = descriptor_gate_offset(gate), param[32], frame[STACK_MAX];
    struct stack outer = stack_current(v), inner;
    if (task_inner_stack(v, dpl, 0, &inner) || stack_room(v, &inner, params + 4, size))
        return FAULT;
    if (eip > descriptor_limit(d))
        return vcpu_raise_error(v, VEC_GP, 0);
    if (descriptor_set_accessed(v, d) || stack_pop(v, &outer, param, params, size))
        return FAULT;
    frame[n++] = v->seg[SEG_SS].sel;
    frame[n++] = vcpu_reg32(v, REG_SP);
    while (params > 0)
        frame[n++] = param[--params];
    frame[n++] = v->seg[SEG_CS].sel;
    frame[n++] = f->next;
    if (stack_push(v, &inner, frame, n, size))
        return FAULT;
    set_stack(v, &inner);
    segment_set_code(v, sel, d, dpl);
    v->rip = eip;
    return 0;
}

/* The gate or TSS may be used: DPL not under CPL and RPL, and present. */
static int check_gate(struct vcpu *v, uint16_t sel, const struct descriptor *d)
{
    if (descriptor_dpl(d) < max_u32(v->cpl, sel & SEL_RPL))
        return fault(v, VEC_GP, sel);
    if (!descriptor_present(d))
        return fault(v, VEC_NP, sel);
    return 0;
}

static int far_call_gate(struct vcpu *v, const struct far *f, const struct descriptor *gate)
{
    uint16_t sel = descriptor_gate_selector(gate);
    unsigned size = descriptor_type(gate) == SYS_CALL32 ? 4 : 2;
    struct descriptor d;
    if (check_gate(v, f->sel, gate) || descriptor_fetch(v, sel, VEC_GP, 0, &d))
        return FAULT;
    unsigned dpl = descriptor_dpl(&d);
    bool ok = descriptor_code(&d) && dpl <= v->cpl;
    if (!f->call && !descriptor_conforming(&d))
        ok &= dpl == v->cpl;
    if (!ok)
        return fault(v, VEC_GP, sel);
    if (!descriptor_present(&d))
        return fault(v, VEC_NP, sel);
    if (!descriptor_conforming(&d) && dpl < v->cpl)
        return call_inner(v, f, gate, sel, &d, size);
    return far_same(v, f, sel, &d, descriptor_gate_offset(gate), size);
}

static int far_task(struct vcpu *v, const struct far *f, const struct descriptor *d)
{
    struct task_request r = {
        .sel = f->sel,
        .d = *d,
        .reason = f->call ? TASK_CALL : TASK_JMP,
        .eip = f->next,
        .eflags = vcpu_eflags(v) & ~(uint32_t)FLAG_RF,
    };
    if (check_gate(v, f->sel, d))
        return FAULT;
    if (descriptor_type(d) == SYS_TASK_GATE && task_gate(v, d, 0, &r))
        return FAULT;
    return task_result(v, task_switch(v, &r));
}

static int far_protected(struct vcpu *v, const struct far *f)
{
    struct descriptor d;
    if (descriptor_fetch(v, f->sel, VEC_GP, 0, &d))
        return FAULT;
    if (descriptor_code(&d))
        return far_code(v, f, &d);
    if (descriptor_system(&d)) {
        switch (descriptor_type(&d)) {
        case SYS_CALL16:
        case SYS_CALL32:
            return far_call_gate(v, f, &d);
        case SYS_TSS16:
        case SYS_TSS32:
            if (f->sel & SEL_TI)
                break;
            return far_task(v, f, &d);
        case SYS_TASK_GATE:
            return far_task(v, f, &d);
        }
    }
    return fault(v, VEC_GP, f->sel);
}

int transfer_jmp_far(struct vcpu *v, uint16_t sel, uint32_t offset, unsigned opsize, uint32_t next)
{
    struct far f = {.sel = sel, .offset = offset, .opsize = opsize, .next = next};
    return vcpu_real_segments(v) ? far_real(v, &f) : far_protected(v, &f);
}

int transfer_call_far(struct vcpu *v, uint16_t sel, uint32_t offset, unsigned opsize, uint32_t next)
{
    struct far f = {.sel = sel, .offset = offset, .opsize = opsize, .next = next, .call = true};
    return vcpu_real_segments(v) ? far_real(v, &f) : far_protected(v, &f);
}

/* ---- RET and IRET ---- */

/* The descriptor of the code segment that RET and IRET go back to. */
static int fetch_return_code(struct vcpu *v, uint16_t sel, struct descriptor *d)
{
    unsigned rpl = sel & SEL_RPL;
    if (descriptor_fetch(v, sel, VEC_GP, 0, d))
        return FAULT;
    if (!descriptor_code(d) || rpl < v->cpl)
        return fault(v, VEC_GP, sel);
    if (descriptor_conforming(d) ? descriptor_dpl(d) > rpl : descriptor_dpl(d) != rpl)
        return fault(v, VEC_GP, sel);
    if (!descriptor_present(d))
        return fault(v, VEC_NP, sel);
    return 0;
}

/* On the way out, what the outer ring may not use is nulled (SDM 3A 5.8.6). */
static void null_inner_segments(struct vcpu *v)
{
    static const uint8_t data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < ARRAY_LEN(data); i++) {
        const struct segment *s = &v->seg[data[i]];
        bool conforming = (s->attr & ATTR_CODE) && (s->attr & ATTR_DOWN);
        unsigned dpl = (s->attr & ATTR_DPL) >> ATTR_DPL_SHIFT;
        if ((s->attr & ATTR_P) && !conforming && dpl < v->cpl)
            segment_set_null(v, (enum seg)data[i], 0);
    }
}

/* Leaves for CS:EIP with EFLAGS; `st` stands behind what was popped. In real and V86 mode. */
static int return_real(struct vcpu *v, const struct stack *st, uint16_t sel, uint32_t eip,
                       uint32_t eflags)
{
    if (eip > v->seg[SEG_CS].limit)
        return vcpu_raise_error(v, VEC_GP, 0);
    v->regs[REG_SP] = st->esp;
    vcpu_set_eflags(v, eflags);
    segment_load_real(v, SEG_CS, sel);
    v->rip = eip;
    return 0;
}

/*
 * The same in protected mode, to the same ring or an outer one, whose SS:ESP is popped too. `imm`
 * bytes of parameters lie above what was popped, and on the outer stack.
 */
static int return_protected(struct vcpu *v, struct stack *st, uint16_t sel, uint32_t eip,
                            uint32_t eflags, unsigned opsize, uint16_t imm)
{
    struct descriptor d, sd;
    unsigned rpl = sel & SEL_RPL;
    if (fetch_return_code(v, sel, &d))
        return FAULT;
    stack_drop(st, imm);
    if (rpl > v->cpl) {
        uint32_t outer[2];
        if (stack_pop(v, st, outer, 2, opsize) ||
            segment_fetch_stack(v, (uint16_t)outer[1], rpl, VEC_GP, 0, &sd))
            return FAULT;
        st->ss = descriptor_segment((uint16_t)outer[1], &sd);
        /* With a 16-bit stack, the upper half of ESP stays the inner ring's. */
        st->esp = st->ss.attr & ATTR_DB
                      ? outer[0]
                      : (vcpu_reg32(v, REG_SP) & 0xFFFF0000) | (outer[0] & 0xFFFF);
        stack_drop(st, imm);
    }
    if (eip > descriptor_limit(&d))
        return vcpu_raise_error(v, VEC_GP, 0);
    if (descriptor_set_accessed(v, &d))
        return FAULT;
    bool outwards = rpl > v->cpl;
    set_stack(v, st);
    vcpu_set_eflags(v, eflags);
    segment_set_code(v, sel, &d, rpl);
    v->rip = eip;
    if (outwards)
        null_inner_segments(v);
    return 0;
}

int transfer_ret_far(struct vcpu *v, unsigned opsize, uint16_t imm)
{
    struct stack st = stack_current(v);
    uint32_t popped[2];
    if (stack_pop(v, &st, popped, 2, opsize))
        return FAULT;
    if (!vcpu_real_segments(v))
        return return_protected(v, &st, (uint16_t)popped[1], popped[0], vcpu_eflags(v), opsize,
                                imm);
    stack_drop(&st, imm);
    return return_real(v, &st, (uint16_t)popped[1], popped[0], vcpu_eflags(v));
}

/* EFLAGS as IRET leaves it, from what was popped (SDM 2, IRET; VM is not handled here). */
static uint32_t iret_flags(const struct vcpu *v, uint32_t popped, unsigned opsize)
{
    uint32_t mask = FLAGS_HOST | FLAG_TF | FLAG_NT, old = vcpu_eflags(v) & ~(uint32_t)FLAG_RF;
    if (opsize == 4)
        mask |= FLAG_AC | FLAG_ID;
    if (!vcpu_protected(v)) {
        mask |= FLAG_IF | FLAG_IOPL;
    } else if (v->cpl <= vcpu_iopl(v)) {
        mask |= FLAG_IF;
    }
    if (vcpu_protected(v) && v->cpl == 0) {
        mask |= FLAG_IOPL;
        if (opsize == 4)
            mask |= FLAG_VIF | FLAG_VIP;
    }
    if (opsize == 4 && !vcpu_v86(v))
        mask |= FLAG_RF;
    return (old & ~mask) | (popped & mask);
}

static int iret_task(struct vcpu *v, uint32_t next)
{
    struct task_request r = {
        .reason = TASK_IRET,
        .eip = next,
        .eflags = vcpu_eflags(v) & ~(uint32_t)FLAG_RF,
    };
    if (v->tr.limit < 1)
        return fault(v, VEC_TS, v->tr.sel);
    if (v->mem->read(v, v->tr.base, &r.sel, 2, false))
        return FAULT;
    if (r.sel & SEL_TI)
        return fault(v, VEC_TS, r.sel);
    if (descriptor_fetch(v, r.sel, VEC_TS, 0, &r.d))
        return FAULT;
    unsigned type = descriptor_type(&r.d);
    if (!descriptor_system(&r.d) || (type != SYS_TSS16_BUSY && type != SYS_TSS32_BUSY))
        return fault(v, VEC_TS, r.sel);
    if (!descriptor_present(&r.d))
        return fault(v, VEC_NP, r.sel);
    return task_result(v, task_switch(v, &r));
}

/* From ring 0 to virtual-8086 mode: EIP, CS, EFLAGS are popped already. */
static int iret_v86(struct vcpu *v, struct stack *st, const uint32_t popped[3])
{
    enum { P_ESP, P_SS, P_ES, P_DS, P_FS, P_GS, P_COUNT };
    uint32_t more[P_COUNT];
    if (stack_pop(v, st, more, P_COUNT, 4))
        return FAULT;
    if (popped[0] > 0xFFFF)
        return vcpu_raise_error(v, VEC_GP, 0);
    vcpu_set_eflags(v, popped[2]);
    segment_set_cpl(v, 3);
    segment_load_real(v, SEG_CS, (uint16_t)popped[1]);
    segment_load_real(v, SEG_SS, (uint16_t)more[P_SS]);
    segment_load_real(v, SEG_ES, (uint16_t)more[P_ES]);
    segment_load_real(v, SEG_DS, (uint16_t)more[P_DS]);
    segment_load_real(v, SEG_FS, (uint16_t)more[P_FS]);
    segment_load_real(v, SEG_GS, (uint16_t)more[P_GS]);
    v->regs[REG_SP] = more[P_ESP];
    v->rip = popped[0];
    return 0;
}

int transfer_iret(struct vcpu *v, unsigned opsize, uint32_t next)
{
    struct stack st = stack_current(v);
    uint32_t popped[3];
    v->nmi_blocked = false;
    if (vcpu_protected(v) && vcpu_v86(v) && vcpu_iopl(v) < 3)
        return vcpu_raise_error(v, VEC_GP, 0);
    if (!vcpu_real_segments(v) && (v->sys_flags & FLAG_NT))
        return iret_task(v, next);
    if (stack_pop(v, &st, popped, 3, opsize))
        return FAULT;
    uint32_t eflags = iret_flags(v, popped[2], opsize);
    if (vcpu_real_segments(v))
        return return_real(v, &st, (uint16_t)popped[1], popped[0], eflags);
    if (opsize == 4 && (popped[2] & FLAG_VM) && v->cpl == 0)
        return iret_v86(v, &st, popped);
    return return_protected(v, &st, (uint16_t)popped[1], popped[0], eflags, opsize, 0);
}

/* ---- SYSENTER and SYSEXIT ---- */

static void set_flat(struct vcpu *v, unsigned code, unsigned stack, unsigned cpl)
{
    uint16_t dpl = (uint16_t)(cpl << ATTR_DPL_SHIFT);
    struct segment s = {.sel = (uint16_t)(code | cpl), .limit = 0xFFFFFFFF};
    s.attr = SYS_CODE_ATTR | dpl;
    segment_set(v, SEG_CS, &s);
    s.sel = (uint16_t)(stack | cpl);
    s.attr = SYS_STACK_ATTR | dpl;
    segment_set(v, SEG_SS, &s);
    segment_set_cpl(v, cpl);
}

int transfer_sysenter(struct vcpu *v)
{
    unsigned sel = v->msr.sysenter_cs & 0xFFFC;
    if (!vcpu_protected(v) || sel == 0)
        return vcpu_raise_error(v, VEC_GP, 0);
    vcpu_set_eflags(v, vcpu_eflags(v) & ~(uint32_t)(FLAG_VM | FLAG_IF | FLAG_RF));
    set_flat(v, sel, sel + 8, 0);
    v->regs[REG_SP] = (uint32_t)v->msr.sysenter_esp;
    v->rip = (uint32_t)v->msr.sysenter_eip;
    return 0;
}

int transfer_sysexit(struct vcpu *v)
{
    unsigned sel = v->msr.sysenter_cs & 0xFFFC;
    if (!vcpu_protected(v) || v->cpl != 0 || sel == 0)
        return vcpu_raise_error(v, VEC_GP, 0);
    set_flat(v, sel + 16, sel + 24, 3);
    v->regs[REG_SP] = vcpu_reg32(v, REG_CX);
    v->rip = vcpu_reg32(v, REG_DX);
    return 0;
}
