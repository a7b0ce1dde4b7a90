/*
 * Which flags one instruction sets, leaves undefined and reads. A row speaks for all instructions
 * of its encoding; immediate counts and REP prefixes say more.
 */
#include "cpu/decode.h"

static struct insn_flags shift_flags(const struct insn *in, struct insn_flags f)
{
    /* The count is masked to 5 bits, 6 with a 64-bit operand (SDM 2B, SAL/SAR/SHL/SHR). */
    unsigned count = in->imm & (in->opsize == 8 ? 63 : 31);
    unsigned bits = in->row->operand[0].width == W_B ? 8 : 8 * in->opsize;
    bool through_carry = in->op == OP_RCL || in->op == OP_RCR;
    if (count == 0)
        return (struct insn_flags){0, 0, 0};
    if (through_carry && count % (bits + 1) == 0)
        return f;
    f.read &= through_carry ? FLAG_CF : 0;
    if (count == 1)
        f.undef &= ~FLAG_OF;
    if (count <= bits)
        f.undef &= ~FLAG_CF;
    if ((in->op == OP_SHLD || in->op == OP_SHRD) && count <= bits)
        f.undef &= FLAG_AF | FLAG_OF;
    return f;
}

struct insn_flags decode_flags(const struct insn *in)
{
    const struct decode_row *row = in->row;
    struct insn_flags f = {row->flags_set, row->flags_undef, row->flags_read};
    switch (in->op) {
    case OP_ROL:
    case OP_ROR:
    case OP_RCL:
    case OP_RCR:
    case OP_SHL:
    case OP_SHR:
    case OP_SAR:
    case OP_SHLD:
    case OP_SHRD:
        if (in->imm_size)
            return shift_flags(in, f);
        break;
    case OP_CMPS:
    case OP_SCAS:
        if (!(in->prefixes & (PREFIX_REP | PREFIX_REPNE)))
            f.read = FLAG_DF;
        break;
    default:
        break;
    }
    return f;
}
