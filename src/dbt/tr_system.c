/*
 * Sensitive instructions that are frequent enough to be inline: what reads the flags and the
 * segment registers, and CLI and STI at CPL 0. They use BMI2's PEXT and PDEP, which leave the flags
 * alone; hosts without go by way of C.
 */
#include "dbt/translate.h"

static struct hmem sys_flags(void)
{
    return tr_jit(offsetof(struct dbt, cpu.sys_flags));
}

/* Clears the bits of `reg` that are not in `mask`. */
static void keep_bits(struct emit *e, unsigned reg, unsigned scratch, uint32_t mask)
{
    emit_imm32(e, scratch, mask);
    emit_pext(e, reg, reg, scratch);
    emit_pdep(e, reg, reg, scratch);
}

/* Virtual-8086 mode and CPL > IOPL have rules of their own: C knows them. */
static bool flags_are_plain(const struct tr *t)
{
    return t->d->bmi2 && (t->key & (KEY_PROTECTED | KEY_V86)) == KEY_PROTECTED;
}

void tr_pushf(struct tr *t)
{
    struct emit *e = &t->e;
    struct hmem sys = sys_flags(), sum = {.base = R_VAL, .index = R_ADDR, .scale = 1, .disp = 2};

    if (!flags_are_plain(t) || !tr_stack_is_flat(t) || t->mixed || t->in.opsize != 4) {
        tr_callout(t);
        return;
    }
    emit_pushfq(e); /* below the ring's top, where nothing is */
    emit_pop(e, R_VAL);
    keep_bits(e, R_VAL, R_SEG, FLAGS_HOST);
    emit_load(e, R_ADDR, &sys, 4);
    keep_bits(e, R_ADDR, R_SEG, ~(FLAG_RF | FLAG_VM));
    emit_lea32_mem(e, R_VAL, &sum);
    struct hmem m = tr_stack(t, -4);
    tr_site(t, SITE_MEM, 1);
    emit_store(e, &m, R_VAL, 4);
    t->pend -= 4;
}

static void set_if(struct tr *t, bool on)
{
    struct emit *e = &t->e;
    struct hmem sys = sys_flags();

    emit_load(e, R_ADDR, &sys, 4);
    keep_bits(e, R_ADDR, R_SEG, ~FLAG_IF);
    if (on)
        emit_lea32(e, R_ADDR, R_ADDR, FLAG_IF);
    emit_store(e, &sys, R_ADDR, 4);
}

void tr_cli(struct tr *t)
{
    if (!flags_are_plain(t) || (t->key & KEY_CPL))
        tr_callout(t);
    else
        set_if(t, false);
}

/*
 * STI is in C when an interrupt is pending, so that it is taken behind the next instruction. Else
 * there is nothing for the shadow to hold off, but a kick might come: so STI polls itself, and the
 * next instruction, in the same block, does not.
 */
void tr_sti(struct tr *t)
{
    struct emit *e = &t->e;
    struct hmem pending = tr_jit(offsetof(struct dbt, cpu.irq_line));

    _Static_assert(offsetof(struct vcpu, nmi_pending) == offsetof(struct vcpu, irq_line) + 1,
                   "both are read at once");
    if (!flags_are_plain(t) || (t->key & KEY_CPL) || t->last_in_page) {
        tr_callout(t);
        return;
    }
    tr_commit_esp(t);
    tr_poll(t);
    emit_mov64(e, R_SEG, RCX);
    emit_load(e, RCX, &pending, 2);
    uint32_t none = emit_jecxz(e);
    emit_mov64(e, RCX, R_SEG);
    tr_callout(t);
    uint32_t done = emit_jmp8(e);
    emit_here8(e, none);
    emit_mov64(e, RCX, R_SEG);
    set_if(t, true);
    emit_here8(e, done);
    t->shadow = true;
}

static struct hmem selector(unsigned seg)
{
    return tr_jit(offsetof(struct dbt, cpu.seg) + seg * sizeof(struct segment) +
                  offsetof(struct segment, sel));
}

void tr_push_sreg(struct tr *t)
{
    struct emit *e = &t->e;
    int32_t size = t->in.opsize;

    if (!tr_stack_is_flat(t) || t->mixed) {
        tr_callout(t);
        return;
    }
    struct hmem from = selector(t->in.row->operand[0].reg);
    emit_load(e, R_VAL, &from, 2);
    struct hmem m = tr_stack(t, -size);
    tr_site(t, SITE_MEM, 1);
    emit_store(e, &m, R_VAL, (unsigned)size);
    t->pend -= size;
}

void tr_mov_sreg_to(struct tr *t)
{
    const struct insn *in = &t->in;
    struct emit *e = &t->e;

    if (in->reg > SEG_GS || t->mixed) {
        tr_callout(t);
        return;
    }
    struct hmem from = selector(in->reg);
    if (in->has_mem) {
        emit_load(e, R_VAL, &from, 2);
        struct hmem m = tr_operand(t, 2, true);
        tr_site(t, SITE_MEM, 0);
        emit_store(e, &m, R_VAL, 2);
        return;
    }
    if (in->rm == REG_SP)
        tr_commit_esp(t);
    if (in->opsize == 2)
        emit_op_mem(e, &(struct hop){.opcode = 0x8B, .opsize = true}, tr_gpr(in->rm), &from);
    else
        emit_load(e, tr_gpr(in->rm), &from, 2);
}
