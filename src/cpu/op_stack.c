/*
 * PUSH, POP and their kin, near calls, returns and jumps. ESP moves under the stack's address size
 * (SS.B), and changes only when nothing can fault any more. A near branch to an offset beyond the
 * limit of CS faults on the branch, not at its target (SDM 2A, JMP).
 */
#include "cpu/op.h"
#include "cpu/stack.h"

static void commit(struct vcpu *v, const struct stack *st)
{
    v->regs[REG_SP] = st->esp;
}

static int push(struct vcpu *v, const struct insn *in, uint32_t value)
{
    struct stack st = stack_current(v);
    if (stack_push(v, &st, &value, 1, in->opsize) == FAULT)
        return FAULT;
    commit(v, &st);
    return 0;
}

int op_stack_push(struct vcpu *v, const struct insn *in)
{
    uint32_t value;
    if (op_read(v, in, 0, &value) == FAULT || push(v, in, value) == FAULT)
        return FAULT;
    return op_done(v, in);
}

/* A memory operand based on ESP is addressed with ESP after the pop (SDM 2B, POP). */
int op_stack_pop(struct vcpu *v, const struct insn *in)
{
    struct stack st = stack_current(v);
    uint64_t old = v->regs[REG_SP];
    uint32_t value;

    if (stack_pop(v, &st, &value, 1, in->opsize) == FAULT)
        return FAULT;
    commit(v, &st);
    if (op_write(v, in, 0, value) == FAULT) {
        v->regs[REG_SP] = old;
        return FAULT;
    }
    return op_done(v, in);
}

int op_stack_pusha(struct vcpu *v, const struct insn *in)
{
    struct stack st = stack_current(v);
    uint32_t values[8], sp = stack_offset(&st, 0);

    for (unsigned r = 0; r < 8; r++)
        values[r] = vcpu_reg32(v, r);
    /* SDM 2B, PUSHA: these wrap in the middle of a value. (With 1, 3 or 5 not even the fault can be
       delivered, which makes the shutdown that the manual tells of.) */
    if (vcpu_real_segments(v) && in->opsize == 2 && sp >= 7 && sp <= 15 && sp & 1)
        return op_gp(v);
    if (stack_push(v, &st, values, 8, in->opsize) == FAULT)
        return FAULT;
    commit(v, &st);
    return op_done(v, in);
}

int op_stack_popa(struct vcpu *v, const struct insn *in)
{
    struct stack st = stack_current(v);
    uint32_t values[8];

    if (stack_pop(v, &st, values, 8, in->opsize) == FAULT)
        return FAULT;
    commit(v, &st);
    for (unsigned r = 0; r < 8; r++) {
        if (r != REG_SP)
            vcpu_set_reg(v, r, in->opsize, values[7 - r]);
    }
    return op_done(v, in);
}

/* Virtual-8086 mode with IOPL < 3: #GP(0) for PUSHF, POPF, INT n and IRET. */
static bool v86_sensitive(const struct vcpu *v)
{
    return vcpu_v86(v) && vcpu_iopl(v) < 3;
}

int op_stack_pushf(struct vcpu *v, const struct insn *in)
{
    if (v86_sensitive(v))
        return op_gp(v);
    if (push(v, in, vcpu_eflags(v) & ~(FLAG_VM | FLAG_RF)) == FAULT)
        return FAULT;
    return op_done(v, in);
}

/*
 * SDM 2B, POPF, table 4-21: IF changes if CPL <= IOPL, IOPL only at CPL 0 (and so neither in
 * virtual-8086 mode, CPL 3, but IF with IOPL 3); RF is cleared; VM, VIF and VIP stay.
 */
int op_stack_popf(struct vcpu *v, const struct insn *in)
{
    uint32_t writable = FLAGS_HOST | FLAG_TF | FLAG_NT, value;
    struct stack st = stack_current(v);

    if (v86_sensitive(v))
        return op_gp(v);
    if (stack_pop(v, &st, &value, 1, in->opsize) == FAULT)
        return FAULT;
    commit(v, &st);
    if (in->opsize == 4)
        writable |= FLAG_AC | FLAG_ID;
    if (v->cpl == 0)
        writable |= FLAG_IOPL;
    if (v->cpl <= vcpu_iopl(v))
        writable |= FLAG_IF;
    vcpu_set_eflags(v, (vcpu_eflags(v) & ~(writable | FLAG_RF)) | (value & writable));
    return op_done(v, in);
}

/* The segment register that PUSH and POP name: fixed in the row. */
static enum seg segment_operand(const struct insn *in)
{
    return (enum seg)in->row->operand[0].reg;
}

/* With a 32-bit operand size the selector is pushed zero-extended, one of the two ways that SDM 2B
   (PUSH) allows. */
int op_stack_push_sreg(struct vcpu *v, const struct insn *in)
{
    if (push(v, in, v->seg[segment_operand(in)].sel) == FAULT)
        return FAULT;
    return op_done(v, in);
}

int op_stack_pop_sreg(struct vcpu *v, const struct insn *in)
{
    enum seg seg = segment_operand(in);
    struct stack st = stack_current(v);
    uint32_t value;

    if (stack_pop(v, &st, &value, 1, in->opsize) == FAULT ||
        segment_load(v, seg, (uint16_t)value) == FAULT)
        return FAULT;
    commit(v, &st);
    if (seg == SEG_SS)
        v->shadow = 2;
    return op_done(v, in);
}

/*
 * ENTER copies level-1 frame pointers from the old frame, which may overlap what it pushes: so all
 * that it reads and writes is probed first, and then done in the order of SDM 2A (ENTER). The last
 * probe is for the new top of the stack, which is not written.
 */
int op_stack_enter(struct vcpu *v, const struct insn *in)
{
    struct stack st = stack_current(v), top = st;
    unsigned size = in->opsize, level = in->imm2 & 0x1F;
    uint32_t alloc = (uint32_t)in->imm & 0xFFFF, frame, gva, value;
    uint32_t mask = st.ss.attr & ATTR_DB ? 0xFFFFFFFF : 0xFFFF;
    uint32_t bp = vcpu_reg32(v, REG_BP);
    unsigned pushes = level == 0 ? 1 : level + 1;

    for (unsigned i = 1; i <= pushes; i++) {
        if (op_probe_write(v, SEG_SS, stack_offset(&st, -(int32_t)(i * size)), size, &gva) == FAULT)
            return FAULT;
    }
    for (unsigned i = 1; i < level; i++) {
        if (segment_read(v, SEG_SS, (bp - i * size) & mask, &value, size) == FAULT)
            return FAULT;
    }
    stack_drop(&top, 0 - pushes * size - alloc);
    if (op_probe_write(v, SEG_SS, stack_offset(&top, 0), size, &gva) == FAULT)
        return FAULT;

    value = bp;
    if (stack_push(v, &st, &value, 1, size) == FAULT)
        return FAULT;
    frame = st.esp;
    for (unsigned i = 1; i < level; i++) {
        value = 0;
        if (segment_read(v, SEG_SS, (bp - i * size) & mask, &value, size) == FAULT ||
            stack_push(v, &st, &value, 1, size) == FAULT)
            return FAULT;
    }
    if (level && stack_push(v, &st, &frame, 1, size) == FAULT)
        return FAULT;
    vcpu_set_reg(v, REG_BP, size, frame);
    commit(v, &top);
    return op_done(v, in);
}

int op_stack_leave(struct vcpu *v, const struct insn *in)
{
    struct stack st = stack_current(v);
    uint32_t value;

    /* The stack's address size says how much of EBP becomes the pointer. */
    stack_drop(&st, vcpu_reg32(v, REG_BP) - st.esp);
    if (stack_pop(v, &st, &value, 1, in->opsize) == FAULT)
        return FAULT;
    commit(v, &st);
    vcpu_set_reg(v, REG_BP, in->opsize, value);
    return op_done(v, in);
}

/* ---- near branches ---- */

static int check_target(struct vcpu *v, const struct insn *in, uint32_t *target)
{
    *target &= (uint32_t)width_mask(in->opsize);
    return *target > v->seg[SEG_CS].limit ? op_gp(v) : 0;
}

static int jump(struct vcpu *v, const struct insn *in, uint32_t target)
{
    if (check_target(v, in, &target) == FAULT)
        return FAULT;
    v->rip = target;
    return 0;
}

static int call(struct vcpu *v, const struct insn *in, uint32_t target)
{
    if (check_target(v, in, &target) == FAULT || push(v, in, op_next(v, in)) == FAULT)
        return FAULT;
    v->rip = target;
    return 0;
}

static int branch(struct vcpu *v, const struct insn *in, bool taken)
{
    return taken ? jump(v, in, op_next(v, in) + (uint32_t)in->imm) : op_done(v, in);
}

int op_stack_call_near(struct vcpu *v, const struct insn *in)
{
    return call(v, in, op_next(v, in) + (uint32_t)in->imm);
}

int op_stack_call_ind(struct vcpu *v, const struct insn *in)
{
    uint32_t target;
    return op_read_rm(v, in, in->opsize, &target) == FAULT ? FAULT : call(v, in, target);
}

int op_stack_jmp_near(struct vcpu *v, const struct insn *in)
{
    return branch(v, in, true);
}

int op_stack_jmp_ind(struct vcpu *v, const struct insn *in)
{
    uint32_t target;
    return op_read_rm(v, in, in->opsize, &target) == FAULT ? FAULT : jump(v, in, target);
}

int op_stack_ret_near(struct vcpu *v, const struct insn *in)
{
    struct stack st = stack_current(v);
    uint32_t target;

    if (stack_pop(v, &st, &target, 1, in->opsize) == FAULT || jump(v, in, target) == FAULT)
        return FAULT;
    if (in->imm_size)
        stack_drop(&st, (uint32_t)in->imm & 0xFFFF);
    commit(v, &st);
    return 0;
}

int op_stack_jcc(struct vcpu *v, const struct insn *in)
{
    return branch(v, in, op_condition(v, in->opcode));
}

/* The counter has the address size; it changes only if the branch does not fault. */
static int loop(struct vcpu *v, const struct insn *in, bool condition)
{
    uint32_t count = vcpu_get_reg(v, REG_CX, in->addrsize) - 1;
    bool taken = condition && (count & (uint32_t)width_mask(in->addrsize)) != 0;

    if (branch(v, in, taken) == FAULT)
        return FAULT;
    vcpu_set_reg(v, REG_CX, in->addrsize, count);
    return 0;
}

int op_stack_loop(struct vcpu *v, const struct insn *in)
{
    return loop(v, in, true);
}

int op_stack_loope(struct vcpu *v, const struct insn *in)
{
    return loop(v, in, v->host_flags & FLAG_ZF);
}

int op_stack_loopne(struct vcpu *v, const struct insn *in)
{
    return loop(v, in, !(v->host_flags & FLAG_ZF));
}

int op_stack_jcxz(struct vcpu *v, const struct insn *in)
{
    return branch(v, in, vcpu_get_reg(v, REG_CX, in->addrsize) == 0);
}
