/*
 * Offsets from r15 (struct dbt) that assembly and translated code use. engine.h checks each of them
 * with a static assertion.
 */
#ifndef DBT_LAYOUT_H
#define DBT_LAYOUT_H

#define OFF_REGS       0 /* vcpu.regs[16], enum reg */
#define OFF_RIP        128
#define OFF_HOST_FLAGS 136

#define OFF_JIT       12288
#define OFF_C_SP      (OFF_JIT + 0)
#define OFF_RING_SP   (OFF_JIT + 8)
#define OFF_R14       (OFF_JIT + 16)
#define OFF_BASE      (OFF_JIT + 24)
#define OFF_UBASE     (OFF_JIT + 32)
#define OFF_FRAME     (OFF_JIT + 40) /* 16 registers in the order of enum host_reg */
#define OFF_FRAME_RIP (OFF_JIT + 168)
#define OFF_FRAME_FL  (OFF_JIT + 176)
#define OFF_SINGLE_SP (OFF_JIT + 184)
#define OFF_STUBS     (OFF_JIT + 192) /* enum stub */

#define JUMP_CACHE_BITS    12
#define JUMP_CACHE_ENTRIES (1 << JUMP_CACHE_BITS)
#define OFF_POLL           (JUMP_CACHE_ENTRIES * 8) /* from r14 */

#endif
