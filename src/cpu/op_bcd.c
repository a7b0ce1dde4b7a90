/*
 * Decimal arithmetic and SALC, which 64-bit mode lacks. The flags that the manual leaves undefined
 * are what current Intel CPUs were seen to give: SF, ZF and PF of the result in AL; OF and, where
 * nothing else is said, AF and CF clear; AAD's are those of its 8-bit addition.
 */
#include "cpu/op.h"

static int finish(struct vcpu *v, const struct insn *in, uint32_t ax, uint32_t flags)
{
    vcpu_set_reg(v, REG_AX, 2, ax);
    op_set_flags(v, FLAGS_ARITH, flags | op_byte_flags((uint8_t)ax));
    return op_done(v, in);
}

/* AAA and AAS: `step` is what an adjustment adds to AX. */
static int ascii_adjust(struct vcpu *v, const struct insn *in, uint32_t step)
{
    uint32_t ax = vcpu_get_reg(v, REG_AX, 2);
    bool adjust = (ax & 0xF) > 9 || v->host_flags & FLAG_AF;

    if (adjust)
        ax += step;
    return finish(v, in, ax & 0xFF0F, adjust ? FLAG_AF | FLAG_CF : 0);
}

int op_bcd_aaa(struct vcpu *v, const struct insn *in)
{
    return ascii_adjust(v, in, 0x106);
}

int op_bcd_aas(struct vcpu *v, const struct insn *in)
{
    return ascii_adjust(v, in, 0 - 0x106u);
}

static int decimal_adjust(struct vcpu *v, const struct insn *in, bool subtract)
{
    uint32_t ax = vcpu_get_reg(v, REG_AX, 2), al = ax & 0xFF, step = 0, flags = 0;

    if ((al & 0xF) > 9 || v->host_flags & FLAG_AF) {
        step = 6;
        flags = FLAG_AF;
        /* A borrow out of the low digit's adjustment; a carry implies al > 99h. */
        if (subtract && al < 6)
            flags |= FLAG_CF;
    }
    if (al > 0x99 || v->host_flags & FLAG_CF) {
        step += 0x60;
        flags |= FLAG_CF;
    }
    al = subtract ? al - step : al + step;
    return finish(v, in, (ax & 0xFF00) | (al & 0xFF), flags);
}

int op_bcd_daa(struct vcpu *v, const struct insn *in)
{
    return decimal_adjust(v, in, false);
}

int op_bcd_das(struct vcpu *v, const struct insn *in)
{
    return decimal_adjust(v, in, true);
}

int op_bcd_aam(struct vcpu *v, const struct insn *in)
{
    uint32_t al = vcpu_get_reg(v, REG_AX, 1), base = (uint8_t)in->imm;

    if (base == 0)
        return vcpu_raise(v, VEC_DE);
    return finish(v, in, al / base << 8 | al % base, 0);
}

int op_bcd_aad(struct vcpu *v, const struct insn *in)
{
    uint32_t ax = vcpu_get_reg(v, REG_AX, 2), al = ax & 0xFF;
    uint32_t addend = (ax >> 8) * (uint8_t)in->imm & 0xFF, sum = al + addend;
    uint32_t flags = (sum > 0xFF ? FLAG_CF : 0) | ((al ^ addend ^ sum) & FLAG_AF) |
                     (~(al ^ addend) & (al ^ sum) & 0x80 ? FLAG_OF : 0);

    return finish(v, in, sum & 0xFF, flags);
}

/* D6: AL = CF ? FFh : 0, no flags. */
int op_bcd_salc(struct vcpu *v, const struct insn *in)
{
    vcpu_set_reg(v, REG_AX, 1, v->host_flags & FLAG_CF ? 0xFF : 0);
    return op_done(v, in);
}
