/*
 * What segment.c gives to the rest of src/cpu beside the functions of cpu/emulate.h. Every change
 * of a segment register or of the CPL is made here, and tells the engine (vcpu_mode_changed) if it
 * changes what code can see; a reload with the same hidden part does not.
 */
#ifndef CPU_SEGMENT_H
#define CPU_SEGMENT_H

#include "cpu/descriptor.h"
#include "cpu/state.h"

/* True if all of [offset, offset+size) lies within the limit; `size` is not 0. */
bool segment_within(const struct segment *s, uint32_t offset, uint32_t size);
/* Whether a memory operand of CPL 3 that is not aligned is to get #AC (SDM 3A 6.15, #AC). */
bool segment_checks_alignment(const struct vcpu *v);
/* Puts `s` into the register. No checks. */
void segment_set(struct vcpu *v, enum seg seg, const struct segment *s);
/* Loads a null selector. */
void segment_set_null(struct vcpu *v, enum seg seg, uint16_t sel);
void segment_set_cpl(struct vcpu *v, unsigned cpl);
/* CS after a far transfer in protected mode: selector with RPL = `cpl`, and the CPL. */
void segment_set_code(struct vcpu *v, uint16_t sel, const struct descriptor *d, unsigned cpl);

/* Type, privilege and presence of what is loaded into SS for code of `cpl`. The vector of the
   checks that SDM 3A 7.3 and 6.12.1 make #TS is `vector`; absence is #SS. Reads the descriptor, and
   sets its accessed bit. A null selector is `vector`(0). */
int segment_fetch_stack(struct vcpu *v, uint16_t sel, unsigned cpl, enum vector vector,
                        unsigned ext, struct descriptor *d);
/* The same for DS, ES, FS and GS (not for null selectors); absence is #NP. */
int segment_fetch_data(struct vcpu *v, uint16_t sel, unsigned cpl, enum vector vector, unsigned ext,
                       struct descriptor *d);

#endif
