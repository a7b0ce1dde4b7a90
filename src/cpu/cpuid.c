/*
 * The guest's CPU: features are those that the host has and the engine supports, in one table
 * below; family, model, stepping, vendor and brand are the host's, since operating systems choose
 * their workarounds by them. It is one logical processor: counts of cores and threads are cut to
 * one, and the topology leaf is absent. There is no hypervisor bit: the guest has a PC, not an
 * interface of ours.
 *
 * The leaves are computed once; cpuid_read adds what depends on the vCPU's control registers.
 */
#include "cpu/cpuid.h"

#include <string.h>

enum {
    /*
     * The switch for everything that needs VEX encodings or state beyond FXSAVE's: to be turned on
     * when the translator copies VEX instructions.
     */
    OFFER_VEX = 1,
    /*
     * With IBRS_ALL and a SPEC_CTRL MSR Linux leaves out its retpolines. The MSR only stores what
     * is written to it, which is no protection between guest rings, so it is off.
     */
    OFFER_SPEC_CTRL = 0,
};

/* What the engine supports, with the condition that it hangs on. Everything else is hidden. */
static const struct {
    uint8_t feature;
    bool offered;
} supported[] = {
    {F_FPU, true},
    {F_DE, true},
    {F_PSE, true},
    {F_TSC, true},
    {F_MSR, true},
    {F_PAE, true},
    {F_CX8, true},
    {F_SEP, true},
    {F_PGE, true},
    {F_CMOV, true},
    {F_PAT, true},
    {F_CLFSH, true},
    {F_MMX, true},
    {F_FXSR, true},
    {F_SSE, true},
    {F_SSE2, true},
    {F_SSE3, true},
    {F_PCLMULQDQ, true},
    {F_SSSE3, true},
    {F_SSE4_1, true},
    {F_SSE4_2, true},
    {F_MOVBE, true},
    {F_POPCNT, true},
    {F_AES, true},
    {F_RDRAND, true},
    {F_RDSEED, true},
    {F_ADX, true},
    {F_SHA, true},
    {F_ERMS, true},
    {F_FSRM, true},
    {F_ABM, true},
    {F_3DNOWPREFETCH, true},
    {F_NX, true},
    {F_RDTSCP, true},
    {F_ARCH_CAPABILITIES, true},
    {F_SPEC_CTRL, OFFER_SPEC_CTRL},
    {F_XSAVE, OFFER_VEX},
    {F_AVX, OFFER_VEX},
    {F_FMA, OFFER_VEX},
    {F_F16C, OFFER_VEX},
    {F_BMI1, OFFER_VEX},
    {F_AVX2, OFFER_VEX},
    {F_BMI2, OFFER_VEX},
    {F_XSAVEOPT, OFFER_VEX},
    {F_XSAVEC, OFFER_VEX},
    {F_XGETBV1, OFFER_VEX},
};

/* Where a feature's bit stands. */
static const struct {
    uint32_t leaf, subleaf;
    uint8_t reg, bit;
} places[F_COUNT] = {
#define EAX                                          0
#define EBX                                          1
#define ECX                                          2
#define EDX                                          3
#define FEATURE(name, leaf, subleaf, reg, bit, help) [F_##name] = {leaf, subleaf, reg, bit},
#include "cpu/features.def"
#undef FEATURE
};

static void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[EAX]), "=b"(out[EBX]), "=c"(out[ECX]), "=d"(out[EDX])
                     : "a"(leaf), "c"(subleaf));
}

static uint64_t host_xcr0(void)
{
    uint32_t out[4], low, high;
    host_cpuid(1, 0, out);
    if (!(out[ECX] >> 27 & 1))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static void set_feature(struct cpu_model *model, enum feature f)
{
    model->features[f / 64] |= 1ull << (f % 64);
}

/* The host's bit, as far as its highest leaf goes. */
static bool host_has(enum feature f, uint32_t host_basic, uint32_t host_extended)
{
    uint32_t leaf = places[f].leaf, out[4];
    if (leaf > (leaf >> 31 ? host_extended : host_basic))
        return false;
    host_cpuid(leaf, places[f].subleaf, out);
    return out[places[f].reg] >> places[f].bit & 1;
}

/* The bits that the model's features have in a register of a leaf. */
static uint32_t feature_bits(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
                             unsigned reg)
{
    uint32_t bits = 0;
    for (unsigned f = 1; f < F_COUNT; f++) {
        if (places[f].leaf == leaf && places[f].subleaf == subleaf && places[f].reg == reg &&
            cpuid_has(model, f))
            bits |= BIT(places[f].bit);
    }
    return bits;
}

static void add_leaf(struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
                     const uint32_t regs[4])
{
    if (model->leaf_count == CPUID_MAX_LEAVES)
        return;
    model->leaves[model->leaf_count++] = (struct cpuid_leaf){
        leaf, subleaf, regs[EAX], regs[EBX], regs[ECX], regs[EDX],
    };
}

static const struct cpuid_leaf *find_leaf(const struct cpu_model *model, uint32_t leaf,
                                          uint32_t subleaf)
{
    for (unsigned i = 0; i < model->leaf_count; i++) {
        if (model->leaves[i].leaf == leaf && model->leaves[i].subleaf == subleaf)
            return &model->leaves[i];
    }
    return NULL;
}

static void add_host_leaf(struct cpu_model *model, uint32_t leaf)
{
    uint32_t regs[4];
    host_cpuid(leaf, 0, regs);
    add_leaf(model, leaf, 0, regs);
}

/* Caches (SDM 2A, CPUID leaf 4), shared by one logical processor of one core. */
static void add_cache_leaves(struct cpu_model *model)
{
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t regs[4];
        host_cpuid(4, i, regs);
        if (!(regs[EAX] & 0x1F))
            break;
        regs[EAX] &= 0x3FFF;
        add_leaf(model, 4, i, regs);
    }
}

static void add_xsave_leaves(struct cpu_model *model)
{
    uint32_t size = model->xcr0_mask & XCR0_AVX ? 832 : 576;
    uint32_t regs[4] = {[EAX] = (uint32_t)model->xcr0_mask, [EBX] = 576, [ECX] = size};
    add_leaf(model, 0xD, 0, regs);
    memset(regs, 0, sizeof regs);
    regs[EAX] = feature_bits(model, 0xD, 1, EAX);
    add_leaf(model, 0xD, 1, regs);
    if (model->xcr0_mask & XCR0_AVX)
        add_leaf(model, 0xD, 2, (const uint32_t[4]){256, 576, 0, 0});
}

static void add_basic_leaves(struct cpu_model *model, uint32_t host_basic)
{
    uint32_t regs[4], vendor[4];

    host_cpuid(0, 0, vendor);
    vendor[EAX] = model->max_basic;
    add_leaf(model, 0, 0, vendor);

    host_cpuid(1, 0, regs);
    /* One logical processor, APIC ID 0; the CLFLUSH line size is the host's. */
    regs[EBX] = (regs[EBX] & 0xFF00) | 1u << 16;
    regs[ECX] = feature_bits(model, 1, 0, ECX);
    regs[EDX] = feature_bits(model, 1, 0, EDX);
    add_leaf(model, 1, 0, regs);

    if (model->max_basic >= 2)
        add_host_leaf(model, 2);
    if (model->max_basic >= 4 && host_basic >= 4)
        add_cache_leaves(model);
    if (model->max_basic >= 7) {
        memset(regs, 0, sizeof regs);
        for (unsigned reg = EBX; reg <= EDX; reg++)
            regs[reg] = feature_bits(model, 7, 0, reg);
        add_leaf(model, 7, 0, regs);
    }
    if (model->xcr0_mask)
        add_xsave_leaves(model);
    if (model->max_basic >= 0x15)
        add_host_leaf(model, 0x15);
    if (model->max_basic >= 0x16)
        add_host_leaf(model, 0x16);
}

static void add_extended_leaves(struct cpu_model *model, uint32_t host_extended)
{
    uint32_t regs[4];
    bool intel = model->vendor_intel;

    host_cpuid(0x80000000u, 0, regs);
    regs[EAX] = model->max_extended;
    add_leaf(model, 0x80000000u, 0, regs);

    host_cpuid(0x80000001u, 0, regs);
    regs[ECX] = feature_bits(model, 0x80000001u, 0, ECX);
    regs[EDX] = feature_bits(model, 0x80000001u, 0, EDX);
    /* AMD repeats here what leaf 1 says (APM 3 E.4.2). */
    if (!intel)
        regs[EDX] |= feature_bits(model, 1, 0, EDX) & 0x0183F3FF;
    add_leaf(model, 0x80000001u, 0, regs);

    for (uint32_t leaf = 0x80000002u; leaf <= 0x80000006u && leaf <= host_extended; leaf++)
        add_host_leaf(model, leaf);

    /* Of leaf 8000_0007h only the invariant TSC, of 8000_0008h only the address sizes. */
    if (host_extended >= 0x80000007u) {
        host_cpuid(0x80000007u, 0, regs);
        add_leaf(model, 0x80000007u, 0, (const uint32_t[4]){[EDX] = regs[EDX] & BIT(8)});
    }
    if (host_extended >= 0x80000008u) {
        uint32_t physical = cpuid_has(model, F_PAE) ? 36 : 32;
        add_leaf(model, 0x80000008u, 0, (const uint32_t[4]){[EAX] = 32u << 8 | physical});
    }
}

void cpuid_init(struct cpu_model *model)
{
    uint32_t regs[4], host_basic, host_extended;
    uint64_t xcr0 = host_xcr0();

    memset(model, 0, sizeof *model);
    host_cpuid(0, 0, regs);
    host_basic = regs[EAX];
    model->vendor_intel = regs[EBX] == 0x756E6547 && regs[EDX] == 0x49656E69 &&
                          regs[ECX] == 0x6C65746E; /* GenuineIntel */
    host_cpuid(0x80000000u, 0, regs);
    host_extended = regs[EAX];

    for (unsigned i = 0; i < ARRAY_LEN(supported); i++) {
        enum feature f = supported[i].feature;
        if (supported[i].offered && host_has(f, host_basic, host_extended))
            set_feature(model, f);
    }
    /*
     * ARCH_CAPABILITIES is ours to offer on any Intel family that may have it: what it says of
     * Meltdown and its kin holds of user windows, which map no supervisor page, whatever the host.
     */
    if (model->vendor_intel && host_basic >= 7)
        set_feature(model, F_ARCH_CAPABILITIES);

    if (cpuid_has(model, F_XSAVE) && (xcr0 & 3) == 3)
        model->xcr0_mask = xcr0 & (cpuid_has(model, F_AVX) ? 7 : 3);
    model->host_xsave = (xcr0 & 3) == 3 ? xcr0 & (cpuid_has(model, F_AVX) ? 7 : 3) : 0;

    /* The TSC's frequency is given where the host gives all of it; otherwise there is no such leaf.
     */
    model->max_basic = min_u32(host_basic, model->xcr0_mask ? 0xD : 7);
    if (host_basic >= 0x15) {
        host_cpuid(0x15, 0, regs);
        if (regs[EAX] && regs[EBX] && regs[ECX])
            model->max_basic = min_u32(host_basic, 0x16);
    }
    model->max_extended = min_u32(host_extended, 0x80000008u);
    add_basic_leaves(model, host_basic);
    add_extended_leaves(model, host_extended);
}

void cpuid_read(const struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    const struct cpu_model *model = v->model;
    const struct cpuid_leaf *found;

    memset(out, 0, 4 * sizeof out[0]);
    /* Beyond the last leaf, Intel's CPUs answer with the last basic one (SDM 2A, CPUID). */
    if (leaf > (leaf >> 31 ? model->max_extended : model->max_basic)) {
        if (!model->vendor_intel)
            return;
        leaf = model->max_basic;
    }
    /* Only some leaves look at ECX. */
    if (leaf != 4 && leaf != 7 && leaf != 0xD)
        subleaf = 0;
    found = find_leaf(model, leaf, subleaf);
    if (!found)
        return;
    out[EAX] = found->eax;
    out[EBX] = found->ebx;
    out[ECX] = found->ecx;
    out[EDX] = found->edx;
    if (leaf == 1 && v->cr4 & CR4_OSXSAVE)
        out[ECX] |= BIT(27);
    if (leaf == 0xD && subleaf <= 1)
        out[EBX] = v->xcr0 & XCR0_AVX ? 832 : 576;
}
