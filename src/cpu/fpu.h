/*
 * The guest's x87, MMX, SSE and AVX state. It lives in the host's FPU even while C of cpu/, mmu/
 * and dbt/ runs, which is therefore built with -mgeneral-regs-only. Before any other C is called
 * (devices, stdio, most of the C library), fpu_park puts it into vcpu.fpu_area and gives C a clean
 * FPU; the way back into translated code calls fpu_unpark.
 */
#ifndef CPU_FPU_H
#define CPU_FPU_H

#include "cpu/state.h"

/* Idempotent. Leaves x87 as after FNINIT and MXCSR = 1F80h. */
void fpu_park(struct vcpu *v);
/* Idempotent: loads the guest's state again if it is parked. */
void fpu_unpark(struct vcpu *v);
/* The state after RESET, parked. */
void fpu_reset(struct vcpu *v);

#endif
