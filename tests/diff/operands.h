/*
 * Gives an instruction operands: memory that it can (or, if that is wanted, cannot) reach, a stack,
 * counts, divisors, bit offsets, jump targets. For the first instruction of a case, registers and
 * memory are bent to it; for later ones the registers are given, and only displacement and
 * immediates are free.
 */
#ifndef DIFF_OPERANDS_H
#define DIFF_OPERANDS_H

#include "testcase.h"

struct operands {
    struct rng *rng;
    struct testcase *c;
    const struct native *native;
    struct insn *in;
    struct cpu_state *s;
    uint32_t eip;
    bool pinned; /* not the first instruction */
    bool fault;
};

/* False if the instruction does not suit the state that is given. */
bool operands_set(struct operands *o);

#endif
