#include "dbt/emit.h"

void emit_byte(struct emit *e, uint8_t byte)
{
    if (UNLIKELY(e->at >= e->end)) {
        e->overflow = true;
        return;
    }
    *e->at++ = byte;
}

void emit_bytes(struct emit *e, const void *bytes, unsigned count)
{
    const uint8_t *b = bytes;
    while (count--)
        emit_byte(e, *b++);
}

void emit_u32(struct emit *e, uint32_t value)
{
    emit_bytes(e, &value, 4);
}

void emit_u64(struct emit *e, uint64_t value)
{
    emit_bytes(e, &value, 8);
}

static void emit_vex(struct emit *e, const struct hop *op, bool r, bool x, bool b)
{
    emit_byte(e, 0xC4);
    emit_byte(e, (uint8_t)((r ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | op->map));
    emit_byte(e, (uint8_t)((op->vex_w ? 0x80 : 0) | (~op->vex_vvvv & 15) << 3 |
                           (op->vex_l ? 4 : 0) | op->vex_pp));
    emit_byte(e, op->opcode);
}

/* Prefixes in canonical order, REX, escape bytes, opcode. */
static void emit_opcode(struct emit *e, const struct hop *op, const struct hmem *m, bool r, bool x,
                        bool b, uint8_t opcode)
{
    if (op->lock)
        emit_byte(e, 0xF0);
    if (m && m->addr32)
        emit_byte(e, 0x67);
    if (m && m->gs)
        emit_byte(e, 0x65);
    if (op->vex) {
        emit_vex(e, op, r, x, b);
        return;
    }
    if (op->opsize)
        emit_byte(e, 0x66);
    if (op->rep)
        emit_byte(e, op->rep);
    if (op->rex_w || r || x || b)
        emit_byte(e, (uint8_t)(0x40 | op->rex_w << 3 | r << 2 | x << 1 | b));
    if (op->map >= 1)
        emit_byte(e, 0x0F);
    if (op->map == 2)
        emit_byte(e, 0x38);
    if (op->map == 3)
        emit_byte(e, 0x3A);
    emit_byte(e, opcode);
}

void emit_op_reg(struct emit *e, const struct hop *op, unsigned reg, unsigned rm)
{
    emit_opcode(e, op, NULL, reg & 8, false, rm & 8, op->opcode);
    emit_byte(e, (uint8_t)(0xC0 | (reg & 7) << 3 | (rm & 7)));
}

void emit_op_plain(struct emit *e, const struct hop *op, unsigned reg)
{
    emit_opcode(e, op, NULL, false, false, reg & 8, (uint8_t)(op->opcode + (reg & 7)));
}

void emit_op_mem(struct emit *e, const struct hop *op, unsigned reg, const struct hmem *m)
{
    bool has_base = m->base != H_NONE, has_index = m->index != H_NONE;
    unsigned mod;

    emit_opcode(e, op, m, reg & 8, has_index && (m->index & 8), has_base && (m->base & 8),
                op->opcode);
    if (!has_base)
        mod = 0;
    else if (m->disp == 0 && (m->base & 7) != RBP)
        mod = 0;
    else if (m->disp >= -128 && m->disp <= 127)
        mod = 1;
    else
        mod = 2;
    if (has_index || !has_base || (m->base & 7) == RSP) {
        unsigned scale = m->scale == 8 ? 3 : m->scale == 4 ? 2 : m->scale == 2 ? 1 : 0;
        emit_byte(e, (uint8_t)(mod << 6 | (reg & 7) << 3 | 4));
        emit_byte(e, (uint8_t)(scale << 6 | (has_index ? m->index & 7 : 4) << 3 |
                               (has_base ? m->base & 7 : 5)));
    } else {
        emit_byte(e, (uint8_t)(mod << 6 | (reg & 7) << 3 | (m->base & 7)));
    }
    if (mod == 1)
        emit_byte(e, (uint8_t)m->disp);
    else if (mod == 2 || !has_base)
        emit_u32(e, (uint32_t)m->disp);
}

void emit_mov32(struct emit *e, unsigned to, unsigned from)
{
    emit_op_reg(e, &(struct hop){.opcode = 0x8B}, to, from);
}

void emit_mov64(struct emit *e, unsigned to, unsigned from)
{
    emit_op_reg(e, &(struct hop){.opcode = 0x8B, .rex_w = true}, to, from);
}

void emit_imm32(struct emit *e, unsigned to, uint32_t value)
{
    emit_op_plain(e, &(struct hop){.opcode = 0xB8}, to);
    emit_u32(e, value);
}

void emit_imm64(struct emit *e, unsigned to, uint64_t value)
{
    if (value <= UINT32_MAX) {
        emit_imm32(e, to, (uint32_t)value);
        return;
    }
    emit_op_plain(e, &(struct hop){.opcode = 0xB8, .rex_w = true}, to);
    emit_u64(e, value);
}

void emit_load(struct emit *e, unsigned to, const struct hmem *m, unsigned size)
{
    static const struct hop ops[] = {
        [1] = {.map = 1, .opcode = 0xB6}, [2] = {.map = 1, .opcode = 0xB7}, [4] = {.opcode = 0x8B}};
    emit_op_mem(e, &ops[size], to, m);
}

void emit_load64(struct emit *e, unsigned to, const struct hmem *m)
{
    emit_op_mem(e, &(struct hop){.opcode = 0x8B, .rex_w = true}, to, m);
}

void emit_store(struct emit *e, const struct hmem *m, unsigned from, unsigned size)
{
    static const struct hop ops[] = {
        [1] = {.opcode = 0x88}, [2] = {.opcode = 0x89, .opsize = true}, [4] = {.opcode = 0x89}};
    emit_op_mem(e, &ops[size], from, m);
}

void emit_store_imm(struct emit *e, const struct hmem *m, uint32_t value, unsigned size)
{
    emit_op_mem(e, &(struct hop){.opcode = 0xC7, .opsize = size == 2}, 0, m);
    emit_bytes(e, &value, size == 2 ? 2 : 4);
}

void emit_movzx16(struct emit *e, unsigned to, unsigned from)
{
    emit_op_reg(e, &(struct hop){.map = 1, .opcode = 0xB7}, to, from);
}

void emit_movzx8(struct emit *e, unsigned to, unsigned from)
{
    emit_op_reg(e, &(struct hop){.map = 1, .opcode = 0xB6}, to, from);
}

void emit_lea32(struct emit *e, unsigned to, unsigned base, int32_t disp)
{
    struct hmem m = hmem_at(base, disp);
    emit_lea32_mem(e, to, &m);
}

void emit_lea32_mem(struct emit *e, unsigned to, const struct hmem *m)
{
    struct hmem plain = *m;
    plain.gs = plain.addr32 = false;
    emit_op_mem(e, &(struct hop){.opcode = 0x8D}, to, &plain);
}

void emit_lea64(struct emit *e, unsigned to, const struct hmem *m)
{
    emit_op_mem(e, &(struct hop){.opcode = 0x8D, .rex_w = true}, to, m);
}

static uint32_t emit_rel32(struct emit *e)
{
    emit_u32(e, 0);
    return emit_offset(e) - 4;
}

uint32_t emit_jmp(struct emit *e)
{
    emit_byte(e, 0xE9);
    return emit_rel32(e);
}

uint32_t emit_call(struct emit *e)
{
    emit_byte(e, 0xE8);
    return emit_rel32(e);
}

uint32_t emit_jcc(struct emit *e, unsigned condition)
{
    emit_byte(e, 0x0F);
    emit_byte(e, (uint8_t)(0x80 | condition));
    return emit_rel32(e);
}

void emit_jmp_mem(struct emit *e, const struct hmem *m)
{
    emit_op_mem(e, &(struct hop){.opcode = 0xFF}, 4, m);
}

void emit_call_mem(struct emit *e, const struct hmem *m)
{
    emit_op_mem(e, &(struct hop){.opcode = 0xFF}, 2, m);
}

void emit_ret(struct emit *e)
{
    emit_byte(e, 0xC3);
}

static uint32_t emit_rel8(struct emit *e)
{
    emit_byte(e, 0);
    return emit_offset(e) - 1;
}

uint32_t emit_jecxz(struct emit *e)
{
    emit_byte(e, 0x67);
    emit_byte(e, 0xE3);
    return emit_rel8(e);
}

uint32_t emit_jrcxz(struct emit *e)
{
    emit_byte(e, 0xE3);
    return emit_rel8(e);
}

uint32_t emit_jcc8(struct emit *e, unsigned condition)
{
    emit_byte(e, (uint8_t)(0x70 | condition));
    return emit_rel8(e);
}

uint32_t emit_jmp8(struct emit *e)
{
    emit_byte(e, 0xEB);
    return emit_rel8(e);
}

void emit_here8(struct emit *e, uint32_t label)
{
    if (!e->overflow)
        e->start[label] = (uint8_t)(emit_offset(e) - label - 1);
}

void emit_patch(struct emit *e, uint32_t at, uint32_t target)
{
    uint32_t rel = target - at - 4;
    if (!e->overflow)
        __builtin_memcpy(e->start + at, &rel, 4);
}

void emit_shiftx(struct emit *e, unsigned to, unsigned from, unsigned count, bool right)
{
    struct hop op = {
        .map = 2, .opcode = 0xF7, .vex = true, .vex_vvvv = (uint8_t)count, .vex_pp = right ? 3 : 1};
    emit_op_reg(e, &op, to, from);
}

void emit_pext(struct emit *e, unsigned to, unsigned from, unsigned mask)
{
    struct hop op = {.map = 2, .opcode = 0xF5, .vex = true, .vex_vvvv = (uint8_t)from, .vex_pp = 2};
    emit_op_reg(e, &op, to, mask);
}

void emit_pdep(struct emit *e, unsigned to, unsigned from, unsigned mask)
{
    struct hop op = {.map = 2, .opcode = 0xF5, .vex = true, .vex_vvvv = (uint8_t)from, .vex_pp = 3};
    emit_op_reg(e, &op, to, mask);
}

void emit_pushfq(struct emit *e)
{
    emit_byte(e, 0x9C);
}

void emit_pop(struct emit *e, unsigned to)
{
    emit_op_plain(e, &(struct hop){.opcode = 0x58}, to);
}
