/*
 * Innocuous instructions (A_COPY): the same operation on the same registers, its prefixes in
 * canonical order, ESP replaced by r12 and the memory operand by one in the window.
 *
 * AH, CH, DH and BH cannot be named in an instruction with a REX prefix. Where one meets ESP or a
 * computed address, a legacy register is borrowed: RSI, saved in r9.
 */
#include "dbt/translate.h"

enum { HIGH_BORROW = RSI };

struct fields {
    bool esp;  /* a general register operand is ESP (or SP) */
    bool high; /* one is AH, CH, DH or BH */
    bool reg_gpr, rm_gpr, opcode_gpr,
        vvvv_gpr; /* non-byte general registers, by where they are named */
    bool gpr;     /* any kind of general register operand */
    bool sized;   /* an operand's width is the operand size */
};

static struct fields classify(const struct insn *in)
{
    struct fields f = {0};

    for (unsigned i = 0; i < ARRAY_LEN(in->row->operand); i++) {
        const struct operand *o = &in->row->operand[i];
        unsigned reg = NO_REG;
        bool byte = o->width == W_B;

        if (o->width == W_V || o->width == W_Z)
            f.sized = true;
        f.gpr |= o->kind == K_G || o->kind == K_E || o->kind == K_R || o->kind == K_B;
        switch (o->kind) {
        case K_G:
            reg = in->reg;
            f.reg_gpr |= !byte;
            break;
        case K_E:
        case K_R:
            if (in->has_mem)
                break;
            reg = in->rm;
            f.rm_gpr |= !byte;
            break;
        case K_Z:
            reg = in->opcode & 7;
            f.opcode_gpr |= !byte;
            break;
        case K_B:
            reg = in->vex_vvvv;
            f.vvvv_gpr = true;
            break;
        default:
            break;
        }
        if (reg == NO_REG)
            continue;
        if (byte)
            f.high |= reg >= 4;
        else
            f.esp |= reg == REG_SP;
    }
    return f;
}

static struct hop host_opcode(const struct insn *in, const struct fields *f)
{
    struct hop op = {.map = in->map, .opcode = in->opcode, .lock = in->prefixes & PREFIX_LOCK};

    if (in->vex) {
        op.vex = true;
        op.vex_l = in->vex_l;
        /* With general registers, named or not, W = 1 means 64 bits, which a 32-bit CPU ignores. */
        op.vex_w = f->gpr || in->row->w < 0 ? 0 : in->vex_w;
        op.vex_pp = in->vex_pp;
        op.vex_vvvv = f->vvvv_gpr ? (uint8_t)tr_gpr(in->vex_vvvv) : in->vex_vvvv;
        return op;
    }
    switch (in->row->prefix) {
    case ROW_66:
        op.opsize = true;
        break;
    case ROW_NP:
        break;
    case ROW_F3:
    case ROW_F2:
        op.rep = in->row->prefix == ROW_F3 ? 0xF3 : 0xF2;
        op.opsize = f->sized && in->opsize == 2;
        break;
    default:
        op.opsize = in->opsize == 2;
        break;
    }
    return op;
}

static void copy_immediate(struct tr *t)
{
    const struct insn *in = &t->in;

    if (!in->imm_off)
        return;
    if (in->row->operand[3].kind ==
        K_L) { /* bit 7 would name registers that a 32-bit CPU has not */
        emit_byte(&t->e, in->bytes[in->imm_off] & 0x7F);
        return;
    }
    emit_bytes(&t->e, in->bytes + in->imm_off, in->imm_size + in->imm2_size);
}

/* LEA, and what computes an address for nothing: multi-byte NOP, prefetch. */
static void copy_address(struct tr *t, struct hop *op)
{
    const struct insn *in = &t->in;

    if (in->op != OP_LEA)
        return;
    struct hmem m = tr_address(t);
    if (in->addrsize == 4) {
        emit_op_mem(&t->e, op, tr_gpr(in->reg), &m);
        return;
    }
    emit_lea32_mem(&t->e, R_ADDR, &m);
    emit_movzx16(&t->e, R_ADDR, R_ADDR);
    op->opcode = 0x8B;
    emit_op_reg(&t->e, op, tr_gpr(in->reg), R_ADDR);
}

static void copy_high_memory(struct tr *t, const struct hop *op, struct hmem m)
{
    struct emit *e = &t->e;
    struct hmem at = {.base = HIGH_BORROW, .index = H_NONE, .scale = 1, .gs = m.gs};

    if (m.addr32)
        emit_lea32_mem(e, R_ADDR, &m);
    else if (!m.gs)
        emit_lea64(
            e, R_ADDR,
            &(struct hmem){.base = m.base, .index = m.index, .scale = m.scale, .disp = m.disp});
    emit_mov64(e, R_SEG, HIGH_BORROW);
    emit_mov64(e, HIGH_BORROW, R_ADDR);
    tr_site(t, SITE_MEM, 0);
    if (!t->single && t->site_count)
        t->sites[t->site_count - 1].borrowed = HIGH_BORROW;
    emit_op_mem(e, op, t->in.reg, &at);
    copy_immediate(t);
    emit_mov64(e, HIGH_BORROW, R_SEG);
}

static void copy_memory(struct tr *t, struct hop *op, const struct fields *f)
{
    const struct insn *in = &t->in;
    bool write = in->row->attr & A_MEM_WRITE;
    struct hmem m = tr_operand(t, in->mem_size, write);

    if (translate_has_bit_offset(in) && m.gs)
        m.addr32 = true;
    if (f->high && (m.base != H_NONE && m.base >= R8)) {
        copy_high_memory(t, op, m);
        return;
    }
    unsigned reg = f->reg_gpr ? tr_gpr(in->reg) : in->reg;
    if (in->moffs) {
        op->opcode = (uint8_t)((in->opcode & 1) | (in->opcode & 2 ? 0x88 : 0x8A));
        reg = RAX;
    }
    tr_site(t, SITE_MEM, 0);
    emit_op_mem(&t->e, op, reg, &m);
    if (!in->moffs)
        copy_immediate(t);
}

static void copy_registers(struct tr *t, struct hop *op, const struct fields *f)
{
    const struct insn *in = &t->in;
    unsigned reg = f->reg_gpr ? tr_gpr(in->reg) : in->reg;
    unsigned rm = f->rm_gpr ? tr_gpr(in->rm) : in->rm;

    if (f->high && f->esp) {
        emit_mov64(&t->e, R_SEG, HIGH_BORROW);
        emit_mov32(&t->e, HIGH_BORROW, R_ESP);
        emit_op_reg(&t->e, op, reg == R_ESP ? HIGH_BORROW : reg, rm == R_ESP ? HIGH_BORROW : rm);
        copy_immediate(t);
        emit_mov32(&t->e, R_ESP, HIGH_BORROW);
        emit_mov64(&t->e, HIGH_BORROW, R_SEG);
        return;
    }
    tr_site(t, SITE_MEM, 0); /* divide errors, x87 and SIMD exceptions */
    emit_op_reg(&t->e, op, reg, rm);
    copy_immediate(t);
}

static void copy_opcode(struct tr *t, struct hop *op, const struct fields *f)
{
    const struct insn *in = &t->in;
    unsigned reg = f->opcode_gpr ? tr_gpr(in->opcode & 7) : in->opcode & 7;

    if (in->map == 0 &&
        (in->opcode & 0xF0) == 0x40) { /* INC and DEC r: REX prefixes in 64-bit mode */
        op->opcode = 0xFF;
        emit_op_reg(&t->e, op, in->opcode & 8 ? 1 : 0, reg);
        return;
    }
    bool named = false;
    for (unsigned i = 0; i < ARRAY_LEN(in->row->operand); i++)
        named |= in->row->operand[i].kind == K_Z;
    if (!named)
        reg = 0;
    else
        op->opcode &= 0xF8;
    tr_site(t, SITE_MEM, 0); /* FWAIT */
    emit_op_plain(&t->e, op, reg);
    copy_immediate(t);
}

void tr_copy(struct tr *t)
{
    const struct insn *in = &t->in;
    struct fields f = classify(in);
    struct hop op = host_opcode(in, &f);

    if (f.esp)
        tr_commit_esp(t);
    if (in->map == 0 && in->opcode == 0x82 && !in->vex)
        op.opcode = 0x80;
    if (in->row->attr & A_NO_ACCESS) {
        if (in->has_mem)
            copy_address(t, &op);
        return;
    }
    if (in->has_mem)
        copy_memory(t, &op, &f);
    else if (in->has_modrm)
        copy_registers(t, &op, &f);
    else
        copy_opcode(t, &op, &f);
}
