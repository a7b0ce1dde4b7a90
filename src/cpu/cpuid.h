/*
 * The CPU that the guest sees: an honest 32-bit one, made of what the host has and the engine
 * supports.
 */
#ifndef CPU_CPUID_H
#define CPU_CPUID_H

#include "cpu/decode.h"

struct cpuid_leaf {
    uint32_t leaf, subleaf;
    uint32_t eax, ebx, ecx, edx;
};

enum { CPUID_MAX_LEAVES = 32 };

struct cpu_model {
    uint64_t features[(F_COUNT + 63) / 64];
    struct cpuid_leaf leaves[CPUID_MAX_LEAVES];
    unsigned leaf_count;
    uint32_t max_basic, max_extended;
    bool vendor_intel;   /* else AMD or one that follows it */
    uint64_t xcr0_mask;  /* components that XCR0 may enable; 0 where XSAVE is hidden */
    uint64_t host_xsave; /* components that fpu_park saves */
};

/* Builds the default model from the host's CPUID. */
void cpuid_init(struct cpu_model *model);
/* What CPUID gives for (eax, ecx), out[] = eax, ebx, ecx, edx; dynamic bits (OSXSAVE) from `v`. */
void cpuid_read(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4]);

static inline bool cpuid_has(const struct cpu_model *model, enum feature f)
{
    return f == F_BASE || (model->features[f / 64] >> (f % 64) & 1);
}

#endif
