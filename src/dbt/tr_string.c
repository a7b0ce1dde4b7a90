/*
 * String instructions, which cannot override ES: rdi and rsi are moved into the window for their
 * duration. A fault cuts all registers to 32 bits, which takes them out again
 * (docs/translation.md).
 */
#include "dbt/translate.h"

static void into_window(struct tr *t, unsigned reg, unsigned operand)
{
    struct hmem m = {
        .base = t->user & BIT(operand) ? R_SEG : R_BASE, .index = (uint8_t)reg, .scale = 1};
    emit_lea64(&t->e, reg, &m);
}

void tr_string(struct tr *t)
{
    const struct insn *in = &t->in;
    struct emit *e = &t->e;
    bool source = in->op == OP_MOVS || in->op == OP_LODS || in->op == OP_CMPS;
    bool dest = in->op != OP_LODS;

    /* A kick may come before the first element of a repeated one, and nothing may in a shadow. */
    bool open = t->in_shadow && (in->prefixes & (PREFIX_REP | PREFIX_REPNE));

    if (open || in->addrsize != 4 || t->mixed || (source && !tr_flat(t, in->seg)) ||
        (dest && !tr_flat(t, SEG_ES))) {
        tr_callout(t);
        return;
    }
    if (t->user & 3) {
        struct hmem ubase = tr_jit(OFF_UBASE);
        emit_load64(e, R_SEG, &ubase);
    }
    if (source)
        into_window(t, RSI, 0);
    if (dest)
        into_window(t, RDI, 1);
    tr_site(t, SITE_MEM, source && dest ? OPERAND_BOTH : dest ? 1 : 0);
    struct hop op = {.opcode = in->opcode, .opsize = (in->opcode & 1) && in->opsize == 2};
    if (in->prefixes & (PREFIX_REP | PREFIX_REPNE))
        op.rep = in->prefixes & PREFIX_REP ? 0xF3 : 0xF2;
    emit_op_plain(e, &op, 0);
    if (source)
        emit_mov32(e, RSI, RSI);
    if (dest)
        emit_mov32(e, RDI, RDI);
}

void tr_xlat(struct tr *t)
{
    struct emit *e = &t->e;
    struct hmem sum = {.base = RBX, .index = R_ADDR, .scale = 1};

    if (t->mixed) {
        tr_callout(t);
        return;
    }
    emit_movzx8(e, R_ADDR, RAX);
    emit_lea32_mem(e, R_ADDR, &sum);
    if (t->in.addrsize == 2)
        emit_movzx16(e, R_ADDR, R_ADDR);
    struct hmem m = tr_linear(t, t->in.seg, 1, false, 0);
    tr_site(t, SITE_MEM, 0);
    emit_op_mem(e, &(struct hop){.opcode = 0x8A}, RAX, &m);
}
