/*
 * Compares how a case ended on both sides: registers, flags but for undefined ones, FPU state but
 * for its instruction and data pointers, memory, and the exception that ended it.
 */
#ifndef DIFF_COMPARE_H
#define DIFF_COMPARE_H

#include "testcase.h"

/* name, text */
#define DIFFERENCES(X)                                                                             \
    X(STOP, "did not end in a HLT")                                                                \
    X(VECTOR, "vector")                                                                            \
    X(ERROR, "error code")                                                                         \
    X(CR2, "cr2")                                                                                  \
    X(EIP, "eip")                                                                                  \
    X(GPR, "registers")                                                                            \
    X(FLAGS, "flags")                                                                              \
    X(SEGMENT, "segments")                                                                         \
    X(X87, "x87")                                                                                  \
    X(MXCSR, "mxcsr")                                                                              \
    X(XMM, "xmm")                                                                                  \
    X(YMM, "ymm")                                                                                  \
    X(MEMORY, "memory")                                                                            \
    X(CRASH, "the engine crashed")                                                                 \
    X(HANG, "the engine hung")

enum difference_bit {
#define X(name, text) DIFF_BIT_##name,
    DIFFERENCES(X)
#undef X
};

enum difference {
#define X(name, text) DIFF_##name = 1u << DIFF_BIT_##name,
    DIFFERENCES(X)
#undef X
};

/* Set of enum difference; with `print`, both values of each, one a line. */
unsigned compare_outcome(const struct testcase *c, const struct guest *g,
                         const struct outcome *native, const struct outcome *guest, uint32_t undef,
                         bool print);
/* Adds the pages that differ, even where that is allowed, to `dirty`. */
unsigned compare_memory(const struct testcase *c, const struct guest *g,
                        const struct outcome *native, uint32_t *dirty, bool print);
void compare_print_names(unsigned differences);

#endif
