/*
 * What both sides start from and end with.
 */
#ifndef DIFF_OUTCOME_H
#define DIFF_OUTCOME_H

#include "base/base.h"

/* The XSAVE image in the standard form: legacy region, header, upper halves of YMM. */
enum { XSAVE_HEADER = 512, XSAVE_YMM = 576, XSAVE_SIZE = 832 };

struct cpu_state {
    uint32_t gpr[8]; /* in the order of enum reg */
    uint32_t eip, eflags;
    uint16_t sel[6]; /* in the order of enum seg */
    _Alignas(64) uint8_t fpu[XSAVE_SIZE];
};

/* How a run ended: always by an exception, of which the end marker's is the usual one. */
struct outcome {
    struct cpu_state state;
    uint8_t vector;
    bool has_error; /* guest only: whether an error code was pushed; natively by the vector */
    uint32_t error;
    uint32_t cr2; /* #PF only */
};

/* Linux's selectors, and the guest's at CPL 3. */
enum { SEL_CS = 0x23, SEL_DS = 0x2B, SEL_BASED = 0x07 };

static inline uint16_t get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t get_u32(const uint8_t *p)
{
    return get_u16(p) | (uint32_t)get_u16(p + 2) << 16;
}

static inline void put_u16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline void put_u32(uint8_t *p, uint32_t value)
{
    put_u16(p, value);
    put_u16(p + 2, value >> 16);
}

#endif
