/*
 * Delivery of exceptions and interrupts (SDM 3A ch. 6, SDM 2 INT n): through the vector table in
 * real mode, through gates in protected and virtual-8086 mode. One attempt (deliver) changes
 * nothing if it faults. deliver_exception tries until an attempt goes through: the fault of a
 * failed attempt takes the event's place, or becomes a double fault, or a shutdown, by SDM 3A table
 * 6-5. Pushes of a delivery raise no #AC, which a handler in ring 3 could otherwise meet for ever;
 * what is left is the T bit of tasks whose busy bit does not stick (a GDT in ROM), so the attempts
 * are counted.
 */
#include "cpu/emulate.h"
#include "cpu/segment.h"
#include "cpu/task.h"

enum { DR7_GD = 1 << 13, MAX_ATTEMPTS = 100 };

struct event {
    uint8_t vector;
    enum event_kind kind;
    bool has_error;
    uint32_t error;
};

/* INT n, INT3 and INTO: the gate's DPL is checked, and error codes have EXT = 0. */
static bool software(const struct event *e)
{
    return e->kind == EVENT_SOFTWARE || e->kind == EVENT_SOFTWARE_EXCEPTION;
}

/* EFLAGS as pushed or saved: RF is 1 for faults, so that an instruction breakpoint does not hit
   twice (SDM 3B 17.3.1.1). */
static uint32_t saved_flags(const struct vcpu *v, const struct event *e)
{
    static const uint32_t faults = BIT(VEC_DE) | BIT(VEC_BR) | BIT(VEC_UD) | BIT(VEC_NM) |
                                   BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) |
                                   BIT(VEC_PF) | BIT(VEC_MF) | BIT(VEC_AC) | BIT(VEC_XM);
    uint32_t flags = vcpu_eflags(v) & ~(uint32_t)FLAG_RF;
    if (e->kind == EVENT_EXCEPTION && e->vector < 32 && (faults >> e->vector & 1))
        flags |= FLAG_RF;
    return flags;
}

static int deliver_real(struct vcpu *v, const struct event *e)
{
    struct stack st = stack_current(v);
    uint32_t frame[] = {vcpu_eflags(v), v->seg[SEG_CS].sel, (uint32_t)v->rip};
    uint16_t entry[2]; /* IP, CS */
    st.align = false;
    if (e->vector * 4u + 3 > v->idtr.limit)
        return vcpu_raise_error(v, VEC_GP, 0);
    if (v->mem->read(v, v->idtr.base + e->vector * 4u, entry, sizeof entry, false) ||
        stack_room(v, &st, 3, 2))
        return FAULT;
    if (entry[0] > v->seg[SEG_CS].limit)
        return vcpu_raise_error(v, VEC_GP, 0);
    if (stack_push(v, &st, frame, 3, 2))
        return FAULT;
    v->regs[REG_SP] = st.esp;
    vcpu_set_eflags(v, vcpu_eflags(v) & ~(uint32_t)(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF));
    segment_load_real(v, SEG_CS, entry[1]);
    v->rip = entry[0];
    return 0;
}

/* The handler's code segment may be entered from here. `*inner`: with a change of ring. */
static int check_handler(struct vcpu *v, uint16_t sel, const struct descriptor *d, unsigned ext,
                         bool *inner)
{
    uint32_t error = descriptor_error(sel, ext);
    unsigned dpl = descriptor_dpl(d);
    if (!descriptor_code(d) || dpl > v->cpl)
        return vcpu_raise_error(v, VEC_GP, error);
    if (!descriptor_present(d))
        return vcpu_raise_error(v, VEC_NP, error);
    *inner = !descriptor_conforming(d) && dpl < v->cpl;
    if (vcpu_v86(v) && (!*inner || dpl != 0))
        return vcpu_raise_error(v, VEC_GP, error);
    return 0;
}

static int deliver_gate(struct vcpu *v, const struct event *e, const struct descriptor *gate,
                        unsigned ext)
{
    static const uint8_t data[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};
    uint16_t sel = descriptor_gate_selector(gate);
    uint32_t eip = descriptor_gate_offset(gate), frame[STACK_MAX];
    unsigned type = descriptor_type(gate), size = type & 8 ? 4 : 2, n = 0, dpl;
    bool inner, from_v86 = vcpu_v86(v);
    struct descriptor d;
    struct stack st;
    if (descriptor_fetch(v, sel, VEC_GP, ext, &d) || check_handler(v, sel, &d, ext, &inner))
        return FAULT;
    dpl = inner ? descriptor_dpl(&d) : v->cpl;
    if (inner) {
        if (task_inner_stack(v, dpl, ext, &st))
            return FAULT;
        for (unsigned i = 0; from_v86 && i < ARRAY_LEN(data); i++)
            frame[n++] = v->seg[data[i]].sel;
        frame[n++] = v->seg[SEG_SS].sel;
        frame[n++] = vcpu_reg32(v, REG_SP);
    } else {
        st = stack_current(v);
        st.align = false;
        st.error = ext;
    }
    frame[n++] = saved_flags(v, e);
    frame[n++] = v->seg[SEG_CS].sel;
    frame[n++] = (uint32_t)v->rip;
    if (e->has_error)
        frame[n++] = e->error;
    if (stack_room(v, &st, n, size))
        return FAULT;
    if (eip > descriptor_limit(&d))
        return vcpu_raise_error(v, VEC_GP, ext);
    if (descriptor_set_accessed(v, &d) || stack_push(v, &st, frame, n, size))
        return FAULT;

    uint32_t clear = FLAG_TF | FLAG_NT | FLAG_RF | FLAG_VM;
    if (type == SYS_INT16 || type == SYS_INT32)
        clear |= FLAG_IF;
    vcpu_set_eflags(v, vcpu_eflags(v) & ~clear);
    for (unsigned i = 0; from_v86 && i < ARRAY_LEN(data); i++)
        segment_set_null(v, (enum seg)data[i], 0);
    segment_set(v, SEG_SS, &st.ss);
    v->regs[REG_SP] = st.esp;
    segment_set_code(v, sel, &d, dpl);
    v->rip = eip;
    return 0;
}

static int deliver_task(struct vcpu *v, const struct event *e, const struct descriptor *gate,
                        unsigned ext)
{
    struct task_request r = {
        .reason = TASK_EVENT,
        .eip = (uint32_t)v->rip,
        .eflags = saved_flags(v, e),
        .ext = ext,
        .has_error = e->has_error,
        .error = e->error,
    };
    if (task_gate(v, gate, ext, &r))
        return FAULT;
    return task_switch(v, &r);
}

static int deliver_protected(struct vcpu *v, const struct event *e)
{
    static const uint32_t gates =
        BIT(SYS_TASK_GATE) | BIT(SYS_INT16) | BIT(SYS_TRAP16) | BIT(SYS_INT32) | BIT(SYS_TRAP32);
    unsigned ext = software(e) ? 0 : 1;
    uint32_t error = e->vector * 8u + 2 + ext; /* an index into the IDT */
    struct descriptor gate;
    uint32_t raw[2];
    if (e->vector * 8u + 7 > v->idtr.limit)
        return vcpu_raise_error(v, VEC_GP, error);
    if (v->mem->read(v, v->idtr.base + e->vector * 8u, raw, sizeof raw, false))
        return FAULT;
    gate = (struct descriptor){.low = raw[0], .high = raw[1]};
    if (!descriptor_system(&gate) || !(gates >> descriptor_type(&gate) & 1))
        return vcpu_raise_error(v, VEC_GP, error);
    if (software(e) && descriptor_dpl(&gate) < v->cpl)
        return vcpu_raise_error(v, VEC_GP, error);
    if (!descriptor_present(&gate))
        return vcpu_raise_error(v, VEC_NP, error);
    if (descriptor_type(&gate) == SYS_TASK_GATE)
        return deliver_task(v, e, &gate, ext);
    return deliver_gate(v, e, &gate, ext);
}

/* One attempt: 0, FAULT with nothing changed, or TASK_SWITCHED_FAULT. */
static int deliver(struct vcpu *v, const struct event *e)
{
    int result = vcpu_protected(v) ? deliver_protected(v, e) : deliver_real(v, e);
    if (result == FAULT)
        return FAULT;
    v->shadow = 0;
    v->halted = false;
    if (e->vector == VEC_DB && (e->kind == EVENT_EXCEPTION || e->kind == EVENT_ICEBP))
        v->dr[7] &= ~(uint32_t)DR7_GD;
    return result;
}

static bool contributory(unsigned vector)
{
    return vector == VEC_DE || (vector >= VEC_TS && vector <= VEC_GP);
}

/* Whether `second`, met while `first` was being delivered, makes a double fault. */
static bool doubles(unsigned first, unsigned second)
{
    if (contributory(first))
        return contributory(second);
    return first == VEC_PF && (contributory(second) || second == VEC_PF);
}

static struct event take_exception(struct vcpu *v)
{
    if (v->exc.vector == VEC_PF)
        v->cr2 = v->exc.cr2;
    return (struct event){
        .vector = v->exc.vector,
        .kind = EVENT_EXCEPTION,
        .has_error = v->exc.has_error,
        .error = v->exc.error,
    };
}

void deliver_exception(struct vcpu *v)
{
    struct event first = take_exception(v);
    for (unsigned attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        if (deliver(v, &first) == 0)
            return;
        struct event second = take_exception(v);
        if (first.vector == VEC_DF && (contributory(second.vector) || second.vector == VEC_PF))
            break;
        if (doubles(first.vector, second.vector))
            second = (struct event){.vector = VEC_DF, .kind = EVENT_EXCEPTION, .has_error = true};
        first = second;
    }
    v->shutdown = true;
}

void deliver_interrupt(struct vcpu *v, uint8_t vector)
{
    struct event e = {.vector = vector, .kind = EVENT_EXTERNAL};
    if (deliver(v, &e) != 0)
        deliver_exception(v);
}

int deliver_software(struct vcpu *v, uint8_t vector, enum event_kind kind)
{
    struct event e = {.vector = vector, .kind = kind};
    /* INT3, INTO and INT1 do not depend on IOPL (SDM 3A 20.2.7). */
    if (kind == EVENT_SOFTWARE && vcpu_protected(v) && vcpu_v86(v) && vcpu_iopl(v) < 3)
        return vcpu_raise_error(v, VEC_GP, 0);
    int result = deliver(v, &e);
    if (result == TASK_SWITCHED_FAULT) {
        deliver_exception(v);
        return 0;
    }
    return result;
}
