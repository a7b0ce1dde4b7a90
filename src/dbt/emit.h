/*
 * The emitter: the one place that knows host encodings. One function an operand shape; the opcode
 * is data. Overflow of the buffer is sticky (emit.overflow) and checked once, at the end of a
 * block.
 */
#ifndef DBT_EMIT_H
#define DBT_EMIT_H

#include "base/base.h"

/* Host registers. Their use while translated code runs (docs/translation.md):
   rax-rdi but rsp: the guest's registers of the same name; r12: guest ESP; rsp: return ring. */
enum host_reg {
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    R_ADDR = R8,  /* scratch: effective or linear address; target of indirect jumps */
    R_SEG = R9,   /* scratch: segment base, user window, saved register */
    R_VAL = R10,  /* scratch: a value on its way */
    R_LINK = R11, /* scratch: exit record, shift count */
    R_ESP = R12,
    R_BASE = R13,
    R_CACHE = R14,
    R_CPU = R15,
};

enum { H_NONE = 0xFF };

/* A host memory operand: [base + index * scale + disp], optionally GS-relative, optionally cut to
 * 32 bits. */
struct hmem {
    uint8_t base, index; /* host_reg or H_NONE */
    uint8_t scale;       /* 1, 2, 4, 8 */
    bool gs, addr32;
    int32_t disp;
};

/* An opcode with its prefixes. */
struct hop {
    uint8_t map; /* 0, 1 (0F), 2 (0F 38), 3 (0F 3A) */
    uint8_t opcode;
    uint8_t rep; /* F2h, F3h or 0 */
    bool opsize; /* 66h */
    bool lock;
    bool rex_w;
    bool vex;
    uint8_t vex_l, vex_w, vex_pp, vex_vvvv;
};

struct emit {
    uint8_t *at, *start, *end; /* writable alias */
    bool overflow;
};

static inline uint32_t emit_offset(const struct emit *e)
{
    return (uint32_t)(e->at - e->start);
}

void emit_byte(struct emit *e, uint8_t byte);
void emit_bytes(struct emit *e, const void *bytes, unsigned count);
void emit_u32(struct emit *e, uint32_t value);
void emit_u64(struct emit *e, uint64_t value);

/* op reg, rm and op reg, [mem]; `reg` is also the opcode extension. Immediates follow by
 * emit_bytes. */
void emit_op_reg(struct emit *e, const struct hop *op, unsigned reg, unsigned rm);
void emit_op_mem(struct emit *e, const struct hop *op, unsigned reg, const struct hmem *m);
/* An opcode without ModRM (prefixes, REX.W, map, opcode); `reg` is added to the opcode. */
void emit_op_plain(struct emit *e, const struct hop *op, unsigned reg);

/* Flag-free moves. */
void emit_mov32(struct emit *e, unsigned to, unsigned from);
void emit_mov64(struct emit *e, unsigned to, unsigned from);
void emit_imm32(struct emit *e, unsigned to, uint32_t value);
void emit_imm64(struct emit *e, unsigned to, uint64_t value);
void emit_load(struct emit *e, unsigned to, const struct hmem *m, unsigned size); /* zero-extends */
void emit_load64(struct emit *e, unsigned to, const struct hmem *m);
void emit_store(struct emit *e, const struct hmem *m, unsigned from, unsigned size);
void emit_store_imm(struct emit *e, const struct hmem *m, uint32_t value, unsigned size);
void emit_movzx16(struct emit *e, unsigned to, unsigned from);
void emit_movzx8(struct emit *e, unsigned to, unsigned from);
/* lea to, [base + disp] of 32 or 64 bits. */
void emit_lea32(struct emit *e, unsigned to, unsigned base, int32_t disp);
void emit_lea64(struct emit *e, unsigned to, const struct hmem *m);
/* lea32 of a whole operand (gs and addr32 are ignored). */
void emit_lea32_mem(struct emit *e, unsigned to, const struct hmem *m);

/* Control transfer. The functions with rel32 return the offset of the displacement, for emit_patch.
 */
uint32_t emit_jmp(struct emit *e);
uint32_t emit_call(struct emit *e);
uint32_t emit_jcc(struct emit *e, unsigned condition);
void emit_jmp_mem(struct emit *e, const struct hmem *m);
void emit_call_mem(struct emit *e, const struct hmem *m);
void emit_ret(struct emit *e);
/* jecxz, jrcxz and short jcc to a label that emit_here resolves; the distance must fit eight bits.
 */
uint32_t emit_jecxz(struct emit *e);
uint32_t emit_jrcxz(struct emit *e);
uint32_t emit_jcc8(struct emit *e, unsigned condition);
uint32_t emit_jmp8(struct emit *e);
void emit_here8(struct emit *e, uint32_t label);
/* Makes the rel32 at offset `at` lead to offset `target`. */
void emit_patch(struct emit *e, uint32_t at, uint32_t target);

/* BMI2. */
void emit_shiftx(struct emit *e, unsigned to, unsigned from, unsigned count, bool right);
void emit_pext(struct emit *e, unsigned to, unsigned from, unsigned mask);
void emit_pdep(struct emit *e, unsigned to, unsigned from, unsigned mask);

void emit_pushfq(struct emit *e);
void emit_pop(struct emit *e, unsigned to);

static inline struct hmem hmem_at(unsigned base, int32_t disp)
{
    return (struct hmem){.base = (uint8_t)base, .index = H_NONE, .scale = 1, .disp = disp};
}

/* gs:[reg] with 64-bit addressing; `reg` holds a zero-extended linear address. */
static inline struct hmem hmem_gs(unsigned reg)
{
    return (struct hmem){.base = (uint8_t)reg, .index = H_NONE, .scale = 1, .gs = true};
}

#endif
