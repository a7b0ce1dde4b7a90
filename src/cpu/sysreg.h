/*
 * What sysreg.c offers beside the functions of cpu/emulate.h.
 */
#ifndef CPU_SYSREG_H
#define CPU_SYSREG_H

#include "cpu/state.h"

/* What RDTSC gives now. */
uint64_t sysreg_tsc(const struct vcpu *v);

#endif
