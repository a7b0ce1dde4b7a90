/*
 * Instructions executed in C: the sensitive ones, and every other one whose effect is more than one
 * plain memory operand (stack, strings, far transfers), for the cases that translated code does not
 * cover inline. emulate() is exact: it makes all checks, in the manual's order, and commits nothing
 * before the last thing that can fault (REP strings commit an element at a time).
 *
 * Built with -mgeneral-regs-only: the guest's FPU state is live.
 */
#ifndef CPU_EMULATE_H
#define CPU_EMULATE_H

#include "cpu/decode.h"
#include "cpu/state.h"

/*
 * Executes `in`, which stands at v->rip, and moves v->rip behind it or to where it jumps.
 * Returns 0 when done, FAULT with v->exc set and nothing changed (v->rip still at the instruction),
 * or EMULATE_UNKNOWN when `in` is of the kind that the host executes (row attribute A_COPY). A REP
 * string may return 0 with v->rip unchanged, when an interrupt is pending between elements.
 */
int emulate(struct vcpu *v, const struct insn *in);
enum { EMULATE_UNKNOWN = 1 };

/* ---- operands ---- */

/* Offset of the memory operand, cut to the address size. */
uint32_t emulate_ea(const struct vcpu *v, const struct insn *in);

/* ---- segmentation (SDM 3A ch. 3, 5): segment.c ---- */

enum access { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_EXEC = 4 };

/*
 * Checks an access of `size` bytes at seg:offset and gives its linear address. `access` is a set of
 * enum access. FAULT with #GP(0), or #SS(0) for SS.
 */
int segment_linear(struct vcpu *v, enum seg seg, uint32_t offset, unsigned size, unsigned access,
                   uint32_t *gva);
/* Reads or writes memory at seg:offset with the CPL's rights; segment and page faults as above. */
int segment_read(struct vcpu *v, enum seg seg, uint32_t offset, void *to, unsigned size);
int segment_write(struct vcpu *v, enum seg seg, uint32_t offset, const void *from, unsigned size);
/* Loads a data segment register or SS as MOV and POP do (never CS). */
int segment_load(struct vcpu *v, enum seg seg, uint16_t selector);
/* What real and virtual-8086 mode do: base = 16 * selector. */
void segment_load_real(struct vcpu *v, enum seg seg, uint16_t selector);

/* ---- exceptions and interrupts (SDM 3A ch. 6): deliver.c ---- */

enum event_kind {
    EVENT_EXCEPTION,          /* a fault or trap of the CPU: v->rip is the value to push */
    EVENT_EXTERNAL,           /* an interrupt from the pins */
    EVENT_SOFTWARE,           /* INT n: gate DPL is checked; v->rip is behind the instruction */
    EVENT_SOFTWARE_EXCEPTION, /* INT3, INTO, BOUND-free traps: as SOFTWARE */
    EVENT_ICEBP,              /* INT1 */
};

/*
 * Delivers v->exc, with v->rip at the faulting instruction (faults) or behind it (traps). Faults
 * met on the way become double faults by class, and a triple fault sets v->shutdown. Never fails
 * otherwise.
 */
void deliver_exception(struct vcpu *v);
/* Delivers an interrupt from the pins. */
void deliver_interrupt(struct vcpu *v, uint8_t vector);
/* INT n and kin, v->rip already behind the instruction: 0, or FAULT with v->exc set, nothing
 * changed. */
int deliver_software(struct vcpu *v, uint8_t vector, enum event_kind kind);

/* ---- system registers (SDM 3A ch. 2): sysreg.c ---- */

int sysreg_write_cr(struct vcpu *v, unsigned cr, uint32_t value);
int sysreg_read_msr(struct vcpu *v, uint32_t index, uint64_t *value);
int sysreg_write_msr(struct vcpu *v, uint32_t index, uint64_t value);

#endif
