/*
 * Far control transfers (SDM 3A 5.8, 7.3; SDM 2 CALL, JMP, RET, IRET, SYSENTER, SYSEXIT) in real,
 * protected and virtual-8086 mode. `opsize` is 2 or 4; `next` is the EIP behind the instruction,
 * which CALL pushes and a task switch saves. Each returns 0 with v->rip at the destination, or
 * FAULT with v->exc set and nothing changed. A fault that a task switch meets in the new task is
 * delivered there, and counts as done (0).
 */
#ifndef CPU_TRANSFER_H
#define CPU_TRANSFER_H

#include "cpu/state.h"

int transfer_jmp_far(struct vcpu *v, uint16_t sel, uint32_t offset, unsigned opsize, uint32_t next);
int transfer_call_far(struct vcpu *v, uint16_t sel, uint32_t offset, unsigned opsize,
                      uint32_t next);
/* `imm` bytes of parameters are dropped from the stack, and from the outer one too. */
int transfer_ret_far(struct vcpu *v, unsigned opsize, uint16_t imm);
/* Ends the blocking of NMIs, even if it faults (SDM 3A 6.7.1). */
int transfer_iret(struct vcpu *v, unsigned opsize, uint32_t next);
int transfer_sysenter(struct vcpu *v);
int transfer_sysexit(struct vcpu *v);

#endif
