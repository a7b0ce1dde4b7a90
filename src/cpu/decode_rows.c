/*
 * cpu/opcodes.def as a table. The macros here give the letters of the rows their meaning; see the
 * head of opcodes.def for what they stand for.
 */
#include "cpu/decode.h"

/* ---- encodings: opcode, map, prefix, vex, L, W ---- */

#define ENC_x(h)        0x##h, 0, ROW_ANY, false, -1, -1
#define ENC_F3_(h)      0x##h, 0, ROW_F3, false, -1, -1
#define ENC_x0F(h)      0x##h, 1, ROW_ANY, false, -1, -1
#define ENC_x0F_W0(h)   0x##h, 1, ROW_ANY, false, -1, 0
#define ENC_x0F_W1(h)   0x##h, 1, ROW_ANY, false, -1, 1
#define ENC_NP_0F(h)    0x##h, 1, ROW_NP, false, -1, -1
#define ENC_P66_0F(h)   0x##h, 1, ROW_66, false, -1, -1
#define ENC_F3_0F(h)    0x##h, 1, ROW_F3, false, -1, -1
#define ENC_F2_0F(h)    0x##h, 1, ROW_F2, false, -1, -1
#define ENC_NFX_0F(h)   0x##h, 1, ROW_NFX, false, -1, -1
#define ENC_NP_0F38(h)  0x##h, 2, ROW_NP, false, -1, -1
#define ENC_P66_0F38(h) 0x##h, 2, ROW_66, false, -1, -1
#define ENC_F3_0F38(h)  0x##h, 2, ROW_F3, false, -1, -1
#define ENC_F2_0F38(h)  0x##h, 2, ROW_F2, false, -1, -1
#define ENC_NFX_0F38(h) 0x##h, 2, ROW_NFX, false, -1, -1
#define ENC_NP_0F3A(h)  0x##h, 3, ROW_NP, false, -1, -1
#define ENC_P66_0F3A(h) 0x##h, 3, ROW_66, false, -1, -1

#define VEX_L0  0
#define VEX_L1  1
#define VEX_LIG -1
#define VEX_W0  0
#define VEX_W1  1
#define VEX_WIG -1

#define ENC_VNP_0F(h, l, w)   0x##h, 1, ROW_NP, true, VEX_##l, VEX_##w
#define ENC_V66_0F(h, l, w)   0x##h, 1, ROW_66, true, VEX_##l, VEX_##w
#define ENC_VF3_0F(h, l, w)   0x##h, 1, ROW_F3, true, VEX_##l, VEX_##w
#define ENC_VF2_0F(h, l, w)   0x##h, 1, ROW_F2, true, VEX_##l, VEX_##w
#define ENC_VNP_0F38(h, l, w) 0x##h, 2, ROW_NP, true, VEX_##l, VEX_##w
#define ENC_V66_0F38(h, l, w) 0x##h, 2, ROW_66, true, VEX_##l, VEX_##w
#define ENC_VF3_0F38(h, l, w) 0x##h, 2, ROW_F3, true, VEX_##l, VEX_##w
#define ENC_VF2_0F38(h, l, w) 0x##h, 2, ROW_F2, true, VEX_##l, VEX_##w
#define ENC_V66_0F3A(h, l, w) 0x##h, 3, ROW_66, true, VEX_##l, VEX_##w
#define ENC_VF2_0F3A(h, l, w) 0x##h, 3, ROW_F2, true, VEX_##l, VEX_##w

/* ---- ModRM: how, ext, mod, rm ---- */

#define MRM___    MODRM_NONE, -1, -1, -1
#define MRM_rm    MODRM_RM, -1, -1, -1
#define MRM_m     MODRM_RM, -1, 0, -1
#define MRM_r     MODRM_RM, -1, 3, -1
#define MRM_reg   MODRM_REG, -1, -1, -1
#define MRM_g(n)  MODRM_RM, n, -1, -1
#define MRM_gm(n) MODRM_RM, n, 0, -1
#define MRM_gr(n) MODRM_RM, n, 3, -1
#define MRM_b(h)  MODRM_RM, 0x##h >> 3 & 7, 3, 0x##h & 7

/* ---- operands: kind, width, register ---- */

#define OPD_   K_NONE, W_NONE, 0
#define OPD_Eb K_E, W_B, 0
#define OPD_Ew K_E, W_W, 0
#define OPD_Ed K_E, W_D, 0
#define OPD_Ev K_E, W_V, 0
#define OPD_Ey K_E, W_Y, 0
#define OPD_Ez K_E, W_Z, 0
#define OPD_Gb K_G, W_B, 0
#define OPD_Gw K_G, W_W, 0
#define OPD_Gd K_G, W_D, 0
#define OPD_Gv K_G, W_V, 0
#define OPD_Gy K_G, W_Y, 0
#define OPD_Rv K_R, W_V, 0
#define OPD_Ry K_R, W_Y, 0
#define OPD_By K_B, W_Y, 0
#define OPD_Zb K_Z, W_B, 0
#define OPD_Zv K_Z, W_V, 0

#define OPD_M      K_M, W_NONE, 0
#define OPD_Mb     K_M, W_B, 0
#define OPD_Mw     K_M, W_W, 0
#define OPD_Md     K_M, W_D, 0
#define OPD_Mq     K_M, W_Q, 0
#define OPD_Mdq    K_M, W_DQ, 0
#define OPD_Mx     K_M, W_X, 0
#define OPD_Mv     K_M, W_V, 0
#define OPD_My     K_M, W_Y, 0
#define OPD_Mp     K_M, W_P, 0
#define OPD_Ma     K_M, W_A, 0
#define OPD_Ms     K_M, W_S, 0
#define OPD_Mt     K_M, W_T, 0
#define OPD_M64    K_M, W_64, 0
#define OPD_Menv   K_M, W_ENV, 0
#define OPD_Mfsave K_M, W_FSAVE, 0
#define OPD_Mfx    K_M, W_FX, 0
#define OPD_Mxs    K_M, W_XS, 0
#define OPD_VMd    K_VM, W_D, 0
#define OPD_VMq    K_VM, W_Q, 0

#define OPD_Sw K_S, W_W, 0
#define OPD_Cy K_C, W_Y, 0
#define OPD_Dy K_D, W_Y, 0

#define OPD_Pd K_P, W_D, 0
#define OPD_Pq K_P, W_Q, 0
#define OPD_Qd K_Q, W_D, 0
#define OPD_Qq K_Q, W_Q, 0
#define OPD_Nq K_N, W_Q, 0

#define OPD_Vd  K_V, W_D, 0
#define OPD_Vq  K_V, W_Q, 0
#define OPD_Vdq K_V, W_DQ, 0
#define OPD_Vx  K_V, W_X, 0
#define OPD_Vh  K_V, W_8W, 0
#define OPD_Wb  K_W, W_B, 0
#define OPD_Ww  K_W, W_W, 0
#define OPD_Wd  K_W, W_D, 0
#define OPD_Wq  K_W, W_Q, 0
#define OPD_Wdq K_W, W_DQ, 0
#define OPD_Wx  K_W, W_X, 0
#define OPD_Wh  K_W, W_8W, 0
#define OPD_Wf  K_W, W_4W, 0
#define OPD_We  K_W, W_2W, 0
#define OPD_Ud  K_U, W_D, 0
#define OPD_Uq  K_U, W_Q, 0
#define OPD_Udq K_U, W_DQ, 0
#define OPD_Ux  K_U, W_X, 0
#define OPD_Hd  K_H, W_D, 0
#define OPD_Hq  K_H, W_Q, 0
#define OPD_Hdq K_H, W_DQ, 0
#define OPD_Hx  K_H, W_X, 0
#define OPD_Lx  K_L, W_X, 0

#define OPD_Ib K_I, W_B, 0
#define OPD_Iw K_I, W_W, 0
#define OPD_Iz K_I, W_Z, 0
#define OPD_Iv K_I, W_V, 0
#define OPD_Jb K_J, W_B, 0
#define OPD_Jz K_J, W_Z, 0
#define OPD_Ap K_A, W_P, 0
#define OPD_Ob K_O, W_B, 0
#define OPD_Ov K_O, W_V, 0
#define OPD_Xb K_X, W_B, 0
#define OPD_Xv K_X, W_V, 0
#define OPD_Xz K_X, W_Z, 0
#define OPD_Yb K_Y, W_B, 0
#define OPD_Yv K_Y, W_V, 0
#define OPD_Yz K_Y, W_Z, 0
#define OPD_Fv K_F, W_V, 0
#define OPD_1  K_ONE, W_NONE, 0

#define OPD_STi K_ST, W_T, 0
#define OPD_AL  K_GPR, W_B, REG_AX
#define OPD_AX  K_GPR, W_W, REG_AX
#define OPD_rAX K_GPR, W_V, REG_AX
#define OPD_zAX K_GPR, W_Z, REG_AX
#define OPD_CL  K_GPR, W_B, REG_CX
#define OPD_DX  K_GPR, W_W, REG_DX
#define OPD_ES  K_SREG, W_W, SEG_ES
#define OPD_CS  K_SREG, W_W, SEG_CS
#define OPD_SS  K_SREG, W_W, SEG_SS
#define OPD_DS  K_SREG, W_W, SEG_DS
#define OPD_FS  K_SREG, W_W, SEG_FS
#define OPD_GS  K_SREG, W_W, SEG_GS

#define OPERANDS(...)              OPERANDS_(__VA_ARGS__, , , , )
#define OPERANDS_(a, b, c, d, ...) OPD_##a, OPD_##b, OPD_##c, OPD_##d

/* ---- flags: set, undefined, read ---- */

#define FLG___      0
#define FLG_O       FLAG_OF
#define FLG_S       FLAG_SF
#define FLG_Z       FLAG_ZF
#define FLG_A       FLAG_AF
#define FLG_P       FLAG_PF
#define FLG_C       FLAG_CF
#define FLG_D       FLAG_DF
#define FLG_AC      (FLAG_AF | FLAG_CF)
#define FLG_OA      (FLAG_OF | FLAG_AF)
#define FLG_OAC     (FLAG_OF | FLAG_AF | FLAG_CF)
#define FLG_OC      (FLAG_OF | FLAG_CF)
#define FLG_OS      (FLAG_OF | FLAG_SF)
#define FLG_OSZ     (FLAG_OF | FLAG_SF | FLAG_ZF)
#define FLG_OSA     (FLAG_OF | FLAG_SF | FLAG_AF)
#define FLG_OSAP    (FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF)
#define FLG_OSAPC   (FLAG_OF | FLAG_SF | FLAG_AF | FLAG_PF | FLAG_CF)
#define FLG_OSZP    (FLAG_OF | FLAG_SF | FLAG_ZF | FLAG_PF)
#define FLG_OSZAP   (FLAGS_ARITH & ~FLAG_CF)
#define FLG_SAP     (FLAG_SF | FLAG_AF | FLAG_PF)
#define FLG_AP      (FLAG_AF | FLAG_PF)
#define FLG_SZAP    (FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF)
#define FLG_SZAPC   (FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF)
#define FLG_ZC      (FLAG_ZF | FLAG_CF)
#define FLG_OSZAPC  FLAGS_ARITH
#define FLG_OSZAPCD FLAGS_HOST

#define FL___                  0, 0, 0
#define FL_F(set, undef, read) FLG_##set, FLG_##undef, FLG_##read

/* ---- rows ---- */

#define ROW(...) ROW_(__VA_ARGS__)
#define ROW_(name, h, m, pfx, v, l, w_, mrm, e, mo, r, k1, w1, r1, k2, w2, r2, k3, w3, r3, k4, w4, \
             r4, at, fs, fu, fr, feat)                                                             \
    {.opcode = (h),                                                                                \
     .map = (m),                                                                                   \
     .prefix = (pfx),                                                                              \
     .ext = (e),                                                                                   \
     .mod = (mo),                                                                                  \
     .rm = (r),                                                                                    \
     .vex = (v),                                                                                   \
     .op = (name),                                                                                 \
     .operand = {{k1, w1, r1}, {k2, w2, r2}, {k3, w3, r3}, {k4, w4, r4}},                          \
     .attr =                                                                                       \
         (at) | ((fs)&FLAGS_ARITH ? A_SETS_FLAGS : 0u) | ((fr)&FLAGS_ARITH ? A_READS_FLAGS : 0u),  \
     .flags_set = (fs),                                                                            \
     .flags_undef = (fu),                                                                          \
     .flags_read = (fr),                                                                           \
     .feature = (feat),                                                                            \
     .modrm = (mrm),                                                                               \
     .vex_l = (l),                                                                                 \
     .w = (w_)},

#define MNEMONIC(name)
#define OP(name, encoding, mrm, operands, attributes, flags, feature)                              \
    ROW(OP_##name, ENC_##encoding, MRM_##mrm, OPERANDS operands, (attributes), FL_##flags,         \
        F_##feature)

const struct decode_row decode_rows[] = {
#include "cpu/opcodes.def"
};

const unsigned decode_row_count = ARRAY_LEN(decode_rows);
