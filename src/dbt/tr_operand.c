/*
 * Memory operands. In the plain case (flat segment, 32-bit address, window of the current
 * privilege) the guest's ModRM operand becomes the same operand under GS and the address-size
 * prefix, so that the CPU itself cuts the address to 32 bits. Else the address is computed into r8d
 * first.
 */
#include "dbt/translate.h"

bool tr_flat(const struct tr *t, unsigned seg)
{
    switch (seg) {
    case SEG_DS:
        return t->key & KEY_DS_FLAT;
    case SEG_ES:
        return t->key & KEY_ES_FLAT;
    case SEG_SS:
        return t->key & KEY_SS_FLAT;
    default:
        return false;
    }
}

struct hmem tr_address(struct tr *t)
{
    const struct insn *in = &t->in;
    struct hmem m = {
        .base = H_NONE, .index = H_NONE, .scale = in->scale, .disp = (int32_t)in->disp};

    if (in->base != NO_REG)
        m.base = (uint8_t)tr_gpr(in->base);
    if (in->index != NO_REG)
        m.index = in->index;
    if (in->base == REG_SP)
        m.disp += t->pend;
    return m;
}

static void compute_offset(struct tr *t)
{
    struct hmem m = tr_address(t);

    if (m.base == H_NONE && m.index == H_NONE)
        emit_imm32(&t->e, R_ADDR, (uint32_t)m.disp);
    else
        emit_lea32_mem(&t->e, R_ADDR, &m);
    if (t->in.addrsize == 2)
        emit_movzx16(&t->e, R_ADDR, R_ADDR);
}

struct hmem tr_linear(struct tr *t, unsigned seg, unsigned size, bool write, unsigned operand)
{
    struct emit *e = &t->e;

    if (!tr_flat(t, seg)) {
        size_t probes =
            write ? offsetof(struct dbt, jit.probe_write) : offsetof(struct dbt, jit.probe_read);
        struct hmem probe = tr_jit(probes + 8 * seg);
        struct hmem last = {.base = R_SEG, .index = R_ADDR, .scale = 1, .disp = (int32_t)size - 1};
        struct hmem base = tr_jit(offsetof(struct dbt, cpu.seg) + seg * sizeof(struct segment) +
                                  offsetof(struct segment, base));
        struct hmem sum = {.base = R_SEG, .index = R_ADDR, .scale = 1};

        emit_load64(e, R_SEG, &probe);
        tr_site(t, SITE_PROBE, operand);
        emit_load(e, R_SEG, &last, 1);
        emit_load(e, R_SEG, &base, 4);
        emit_lea32_mem(e, R_ADDR, &sum);
    }
    if (t->user & BIT(operand)) {
        struct hmem ubase = tr_jit(OFF_UBASE);
        emit_load64(e, R_SEG, &ubase);
        return (struct hmem){.base = R_SEG, .index = R_ADDR, .scale = 1};
    }
    return hmem_gs(R_ADDR);
}

struct hmem tr_operand(struct tr *t, unsigned size, bool write)
{
    const struct insn *in = &t->in;

    if (t->single)
        return hmem_at(R_CPU, (int32_t)offsetof(struct dbt, cpu.bounce) + t->single_offset);
    if (in->addrsize == 4 && tr_flat(t, in->seg) && !(t->user & 1)) {
        struct hmem m = tr_address(t);
        m.gs = m.addr32 = true;
        return m;
    }
    compute_offset(t);
    return tr_linear(t, in->seg, size, write, 0);
}

bool tr_stack_is_flat(const struct tr *t)
{
    return (t->key & (KEY_SS_FLAT | KEY_STACK32)) == (KEY_SS_FLAT | KEY_STACK32);
}

struct hmem tr_stack(struct tr *t, int32_t disp)
{
    if (t->user & 2) {
        struct hmem ubase = tr_jit(OFF_UBASE);
        emit_lea32(&t->e, R_ADDR, R_ESP, disp + t->pend);
        emit_load64(&t->e, R_SEG, &ubase);
        return (struct hmem){.base = R_SEG, .index = R_ADDR, .scale = 1};
    }
    return (struct hmem){.base = R_ESP,
                         .index = H_NONE,
                         .scale = 1,
                         .gs = true,
                         .addr32 = true,
                         .disp = disp + t->pend};
}
