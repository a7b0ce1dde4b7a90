/*
 * The tests' random numbers: splitmix64. A case is made from (seed, index) alone, so that any case
 * can be made again without those before it.
 */
#ifndef DIFF_RNG_H
#define DIFF_RNG_H

#include "base/base.h"

struct rng {
    uint64_t state;
};

static inline uint64_t rng_u64(struct rng *r)
{
    uint64_t z = r->state += 0x9E3779B97F4A7C15ull;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

static inline uint32_t rng_u32(struct rng *r)
{
    return (uint32_t)(rng_u64(r) >> 32);
}

/* 0 to n - 1. */
static inline uint32_t rng_below(struct rng *r, uint32_t n)
{
    return (uint32_t)((rng_u64(r) >> 32) * n >> 32);
}

/* True in `percent` of a hundred. */
static inline bool rng_chance(struct rng *r, unsigned percent)
{
    return rng_below(r, 100) < percent;
}

static inline struct rng rng_make(uint64_t seed, uint64_t index)
{
    struct rng r = {seed * 0xD1342543DE82EF95ull + index};
    rng_u64(&r);
    r.state ^= index << 32;
    return r;
}

#endif
