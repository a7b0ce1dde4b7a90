/*
 * What the handlers of emulate() share. A handler executes one instruction at v->rip, with the
 * contract of emulate(): it moves v->rip, or returns FAULT and has changed nothing.
 */
#ifndef CPU_OP_H
#define CPU_OP_H

#include "cpu/decode.h"
#include "cpu/emulate.h"
#include "cpu/state.h"

#define HANDLER(name, function) int function(struct vcpu *v, const struct insn *in);
#include "cpu/handlers.def"
#undef HANDLER

/*
 * EIP behind the instruction. It is not cut to 16 bits in a 16-bit code segment: a CPU that runs
 * past offset FFFFh meets the segment's limit there (SDM 3A 20.1.1); only branches cut it.
 */
static inline uint32_t op_next(const struct vcpu *v, const struct insn *in)
{
    return (uint32_t)v->rip + in->len;
}

static inline int op_done(struct vcpu *v, const struct insn *in)
{
    v->rip = op_next(v, in);
    return 0;
}

static inline int op_gp(struct vcpu *v)
{
    return vcpu_raise_error(v, VEC_GP, 0);
}

/* #GP(0) but at CPL 0. */
static inline int op_privileged(struct vcpu *v)
{
    return v->cpl == 0 ? 0 : op_gp(v);
}

/* #UD in real and virtual-8086 mode, which know no selectors. */
static inline int op_protected(struct vcpu *v)
{
    return vcpu_real_segments(v) ? vcpu_raise(v, VEC_UD) : 0;
}

static inline void op_set_flags(struct vcpu *v, uint32_t mask, uint32_t value)
{
    v->host_flags = (v->host_flags & ~(uint64_t)mask) | (value & mask);
}

/* SF, ZF and PF of a byte. */
uint32_t op_byte_flags(uint8_t value);

/* Whether condition `cc` (the low four bits of a Jcc's opcode) holds. */
bool op_condition(const struct vcpu *v, unsigned cc);

/* Bytes of operand `n`. */
unsigned op_width(const struct insn *in, unsigned n);
/*
 * Operand `n`: general registers, memory, immediates, zero-extended from their width. FAULT if
 * memory is at fault.
 */
int op_read(struct vcpu *v, const struct insn *in, unsigned n, uint32_t *value);
int op_write(struct vcpu *v, const struct insn *in, unsigned n, uint32_t value);
/* ModRM's rm as `size` bytes, whatever the row says of it. */
int op_read_rm(struct vcpu *v, const struct insn *in, unsigned size, uint32_t *value);
int op_write_rm(struct vcpu *v, const struct insn *in, unsigned size, uint32_t value);
/* Faults if `size` bytes at seg:offset cannot be written; gives the linear address. */
int op_probe_write(struct vcpu *v, enum seg seg, uint32_t offset, unsigned size, uint32_t *gva);
/* The I/O privilege check of IN, OUT, INS and OUTS (SDM 1 19.5). */
int op_io_allowed(struct vcpu *v, uint16_t port, unsigned size);
/* The accesses themselves, with the FPU parked. */
uint32_t op_io_read(struct vcpu *v, uint16_t port, unsigned size);
void op_io_write(struct vcpu *v, uint16_t port, unsigned size, uint32_t value);

/*
 * op_fpu.c: what every MMX and SSE instruction checks first: #UD by CR0.EM (SSE: and CR4.OSFXSR =
 * 0), #NM by CR0.TS, #MF if an x87 exception is pending (MMX). The guest's FPU is live afterwards.
 */
int op_fpu_check_mmx(struct vcpu *v);
int op_fpu_check_sse(struct vcpu *v);
/* #UD unless CR4.OSXSAVE and XCR0 allow AVX, #NM by CR0.TS. */
int op_fpu_check_avx(struct vcpu *v);
/* Components of XCR0 that are not in their initial state. */
uint64_t op_fpu_in_use(struct vcpu *v);

#endif
