/*
 * PUSH, POP, LEAVE on a flat 32-bit stack: explicit stores and loads through r12. Their adjustments
 * of ESP are gathered in tr.pend, so that a run of them shares one LEA.
 */
#include "dbt/translate.h"

void tr_push(struct tr *t)
{
    const struct insn *in = &t->in;
    struct emit *e = &t->e;
    unsigned size = in->opsize, kind = in->row->operand[0].kind;
    int32_t down = -(int32_t)size;
    unsigned from = R_VAL;

    if (!tr_stack_is_flat(t) || t->mixed) {
        tr_callout(t);
        return;
    }
    if (kind == K_I) {
        struct hmem m = tr_stack(t, down);
        tr_site(t, SITE_MEM, 1);
        emit_store_imm(e, &m, (uint32_t)in->imm, size);
        t->pend += down;
        return;
    }
    if (in->has_mem) {
        struct hmem m = tr_operand(t, size, false);
        tr_site(t, SITE_MEM, 0);
        emit_load(e, R_VAL, &m, size);
    } else {
        unsigned reg = kind == K_Z ? in->opcode & 7 : in->rm;
        if (reg == REG_SP)
            emit_lea32(e, R_VAL, R_ESP, t->pend);
        else
            from = reg;
    }
    struct hmem m = tr_stack(t, down);
    tr_site(t, SITE_MEM, 1);
    emit_store(e, &m, from, size);
    t->pend += down;
}

void tr_pop(struct tr *t)
{
    const struct insn *in = &t->in;
    struct emit *e = &t->e;
    unsigned size = in->opsize;
    unsigned reg = in->has_mem ? NO_REG : in->row->operand[0].kind == K_Z ? in->opcode & 7 : in->rm;

    if (!tr_stack_is_flat(t) || t->mixed || (reg == REG_SP && size != 4)) {
        tr_callout(t);
        return;
    }
    struct hmem m = tr_stack(t, 0);
    tr_site(t, SITE_MEM, 1);
    if (reg == NO_REG) {
        emit_load(e, R_VAL, &m, size);
        t->pend += (int32_t)size; /* before the address is computed (SDM 2B, POP) */
        struct hmem to = tr_operand(t, size, true);
        tr_site(t, SITE_MEM, 0);
        emit_store(e, &to, R_VAL, size);
    } else if (reg == REG_SP) {
        emit_load(e, R_ESP, &m, 4);
        t->pend = 0;
    } else {
        emit_op_mem(e, &(struct hop){.opcode = 0x8B, .opsize = size == 2}, reg, &m);
        t->pend += (int32_t)size;
    }
}

void tr_leave(struct tr *t)
{
    struct emit *e = &t->e;

    if (!tr_stack_is_flat(t) || t->mixed || t->in.opsize != 4) {
        tr_callout(t);
        return;
    }
    struct hmem m = {.base = RBP, .index = H_NONE, .scale = 1, .gs = true, .addr32 = true};
    if (t->user & 2) {
        struct hmem ubase = tr_jit(OFF_UBASE);
        emit_load64(e, R_SEG, &ubase);
        m = (struct hmem){.base = R_SEG, .index = RBP, .scale = 1};
    }
    tr_site(t, SITE_MEM, 1);
    emit_load(e, R_VAL, &m, 4);
    emit_lea32(e, R_ESP, RBP, 4);
    emit_mov32(e, RBP, R_VAL);
    t->pend = 0;
}
