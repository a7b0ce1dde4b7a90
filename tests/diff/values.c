#include "values.h"

#include <string.h>

#include "cpu/state.h"

uint32_t values_u32(struct rng *r)
{
    static const uint32_t special[] = {
        0,      1,      2,       0x7F,       0x80,       0xFF,       0x100,      0x7FFF,
        0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF8000, 0xFFFFFF80,
        9,      0x99,   0x0F,    0xF0,       0x55555555, 0xAAAAAAAA, 31,         32,
    };
    switch (rng_below(r, 8)) {
    case 0:
        return special[rng_below(r, ARRAY_LEN(special))];
    case 1:
        return rng_u32(r) >> rng_below(r, 32);
    case 2:
        return (1u << rng_below(r, 32)) - rng_below(r, 2);
    case 3:
        return 0u - (rng_u32(r) >> rng_below(r, 32));
    default:
        return rng_u32(r);
    }
}

/* Sign, exponent of `exp_bits`, fraction of `frac_bits`, of a random class. */
static uint64_t float_bits(struct rng *r, unsigned exp_bits, unsigned frac_bits)
{
    uint64_t sign = (uint64_t)rng_below(r, 2) << (exp_bits + frac_bits);
    uint64_t exp_max = (1u << exp_bits) - 1, bias = exp_max >> 1;
    uint64_t frac_mask = (1ull << frac_bits) - 1;
    uint64_t frac = rng_u64(r) & frac_mask;
    switch (rng_below(r, 12)) {
    case 0:
        return sign; /* zero */
    case 1:
        return sign | (frac >> rng_below(r, frac_bits)); /* denormal */
    case 2:
        return sign | exp_max << frac_bits; /* infinity */
    case 3:
        return sign | exp_max << frac_bits | 1ull << (frac_bits - 1) | frac; /* quiet NaN */
    case 4:
        return sign | exp_max << frac_bits | (frac >> 1) | 1; /* signalling NaN */
    case 5:
        return sign | (exp_max - 1) << frac_bits | frac; /* near overflow */
    case 6:
        return sign | 1ull << frac_bits | frac; /* near underflow */
    case 7:                                     /* small integers and halves */
        return sign | (bias + rng_below(r, 6)) << frac_bits |
               (frac & ~(frac_mask >> (1 + rng_below(r, 4))));
    case 8: /* around the limits of integers */
        return sign | (bias + 14 + rng_below(r, 52)) << frac_bits |
               (rng_chance(r, 50)   ? 0
                : rng_chance(r, 50) ? frac_mask
                                    : frac);
    case 9:
        return sign | (bias - 2 + rng_below(r, 4)) << frac_bits | frac;
    default:
        return sign | (rng_u64(r) & exp_max) << frac_bits | frac;
    }
}

uint32_t values_f32(struct rng *r)
{
    return (uint32_t)float_bits(r, 8, 23);
}

uint64_t values_f64(struct rng *r)
{
    return float_bits(r, 11, 52);
}

void values_f80(struct rng *r, uint8_t to[10])
{
    /* The integer bit is explicit: set for normal numbers, sometimes wrong (unnormal, pseudo-...).
     */
    uint64_t top = float_bits(r, 15, 48);
    uint16_t high = (uint16_t)(top >> 48);
    uint64_t mantissa = (top << 15 & ~(1ull << 63)) | (rng_chance(r, 50) ? rng_u64(r) & 0x7FFF : 0);
    bool integer = (high & 0x7FFF) != 0;
    if (rng_chance(r, 4))
        integer = !integer;
    mantissa |= (uint64_t)integer << 63;
    memcpy(to, &mantissa, 8);
    put_u16(to + 8, high);
}

void values_fill(struct rng *r, uint8_t *to, uint32_t size)
{
    for (uint32_t at = 0; at + 16 <= size; at += 16) {
        uint8_t chunk[16];
        unsigned kind = rng_below(r, 6);
        uint64_t v;
        for (unsigned i = 0; i < 16; i += 8) {
            v = kind == 0   ? values_f64(r)
                : kind == 1 ? values_f32(r) | (uint64_t)values_f32(r) << 32
                : kind == 2 ? values_u32(r) | (uint64_t)values_u32(r) << 32
                            : rng_u64(r);
            memcpy(chunk + i, &v, 8);
        }
        if (kind == 3)
            values_f80(r, chunk);
        memcpy(to + at, chunk, 16);
    }
}

static uint16_t random_fcw(struct rng *r)
{
    uint16_t fcw = 0x7F;
    if (rng_chance(r, 12))
        fcw = 0x40 | (uint16_t)rng_below(r, 64);
    return (uint16_t)(fcw | rng_below(r, 4) << 8 | rng_below(r, 8) << 10);
}

/* Exception flags, with the summary bits that they and the masks give. */
static uint16_t random_fsw(struct rng *r, uint16_t fcw)
{
    uint16_t fsw = (uint16_t)(rng_u32(r) & 0x7F00);
    if (rng_chance(r, 30))
        fsw |= rng_u32(r) & 0x7F;
    if (!rng_chance(r, 10))
        fsw &= (uint16_t)(fcw | ~0x3F);
    if (fsw & ~fcw & 0x3F)
        fsw |= 0x8080;
    return fsw;
}

uint32_t values_mxcsr(struct rng *r)
{
    uint32_t mxcsr = 0x1F80;
    if (rng_chance(r, 15))
        mxcsr = rng_below(r, 64) << 7;
    mxcsr |= rng_below(r, 4) << 13;
    if (rng_chance(r, 25))
        mxcsr |= 0x8000;
    if (rng_chance(r, 25))
        mxcsr |= 0x40;
    return mxcsr | (rng_chance(r, 30) ? rng_below(r, 64) : 0);
}

void values_fxsave(struct rng *r, uint8_t to[512])
{
    uint16_t fcw = random_fcw(r);
    memset(to, 0, 512);
    put_u16(to, fcw);
    put_u16(to + 2, random_fsw(r, fcw));
    to[4] = rng_chance(r, 60) ? 0xFF : rng_chance(r, 40) ? 0 : (uint8_t)rng_u32(r);
    put_u32(to + 24, values_mxcsr(r));
    for (unsigned i = 0; i < 8; i++) {
        if (rng_chance(r, 80)) {
            values_f80(r, to + 32 + 16 * i);
        } else {
            uint64_t v = rng_u64(r);
            memcpy(to + 32 + 16 * i, &v, 8);
            put_u16(to + 40 + 16 * i, 0xFFFF);
        }
    }
    values_fill(r, to + 160, 128);
}

void values_fsave(struct rng *r, uint8_t to[108])
{
    uint16_t fcw = random_fcw(r);
    memset(to, 0, 108);
    put_u16(to, fcw);
    put_u16(to + 4, random_fsw(r, fcw));
    put_u16(to + 8, rng_chance(r, 50) ? 0 : rng_u32(r));
    for (unsigned i = 0; i < 8; i++)
        values_f80(r, to + 28 + 10 * i);
}

void values_state(struct rng *r, struct cpu_state *s, bool avx)
{
    memset(s, 0, sizeof *s);
    for (unsigned i = 0; i < 8; i++)
        s->gpr[i] = values_u32(r);
    s->eflags = 2 | FLAG_IF | (rng_u32(r) & FLAGS_ARITH);
    if (rng_chance(r, 25))
        s->eflags |= FLAG_DF;
    if (rng_chance(r, 5))
        s->eflags |= FLAG_NT;
    if (rng_chance(r, 5))
        s->eflags |= FLAG_ID;
    values_fxsave(r, s->fpu);
    s->fpu[XSAVE_HEADER] = 7;
    if (avx)
        values_fill(r, s->fpu + XSAVE_YMM, 128);
}
