#include "rows.h"

static enum row_use use_of_op(unsigned op)
{
    switch (op) {
    case OP_DAA:
    case OP_DAS:
    case OP_AAA:
    case OP_AAS:
    case OP_AAM:
    case OP_AAD:
    case OP_SALC:
    case OP_XLAT:
    case OP_CLD:
    case OP_STD:
    case OP_PUSH:
    case OP_POP:
    case OP_PUSHA:
    case OP_POPA:
    case OP_ENTER:
    case OP_LEAVE:
    case OP_MOVS:
    case OP_CMPS:
    case OP_STOS:
    case OP_LODS:
    case OP_SCAS:
    case OP_JCC:
    case OP_LOOPNE:
    case OP_LOOPE:
    case OP_LOOP:
    case OP_JCXZ:
    case OP_JMP_NEAR:
    case OP_JMP_IND:
    case OP_CALL_NEAR:
    case OP_CALL_IND:
    case OP_RET_NEAR:
    case OP_UD0:
    case OP_UD1:
    case OP_UD2:
    case OP_PUSHF:
    case OP_BOUND:
    case OP_FLDENV:
    case OP_FNSTENV:
    case OP_FRSTOR:
    case OP_FNSAVE:
    case OP_FXSAVE:
    case OP_FXRSTOR:
        return ROW_FREE;
    case OP_POPF:
    case OP_INT1:
    case OP_INT3:
    case OP_INTO:
    case OP_IRET:
    case OP_ARPL:
    case OP_LAR:
    case OP_LSL:
    case OP_VERR:
    case OP_VERW:
    case OP_MOV_SREG_TO:
    case OP_MOV_SREG_FROM:
    case OP_PUSH_SREG:
    case OP_POP_SREG:
    case OP_LES:
    case OP_LDS:
    case OP_LSS:
    case OP_LFS:
    case OP_LGS:
    case OP_CALL_FAR:
    case OP_CALL_FAR_IND:
    case OP_JMP_FAR:
    case OP_JMP_FAR_IND:
    case OP_RET_FAR:
        return ROW_USER;
    default:
        return ROW_SKIP;
    }
}

enum row_use rows_use(const struct decode_row *row, const struct cpu_model *model)
{
    if ((row->attr & A_MODE64) || !cpuid_has(model, (enum feature)row->feature))
        return ROW_SKIP;
    if ((row->attr & A_AVX) && !(model->xcr0_mask & 4))
        return ROW_SKIP;
    if (!row->vex && row->w == 1)
        return ROW_SKIP;
    if (row->op == OP_RDRAND || row->op == OP_RDSEED || row->op == OP_SYSRET)
        return ROW_SKIP;
    if (row->attr & (A_PRIV | A_IOPL))
        return ROW_USER;
    if (row->map == 1 && row->opcode == 0xF7) /* MASKMOVQ, MASKMOVDQU */
        return ROW_FREE;
    return row->attr & A_COPY ? ROW_FREE : use_of_op(row->op);
}
