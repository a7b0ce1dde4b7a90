/*
 * The CPU that the guest sees: nothing that the host lacks or the engine does not support, one
 * processor, no long mode, and the host's identity.
 */
#include <cpuid.h>

#include "emulator.h"

enum { EAX, EBX, ECX, EDX };

static const struct {
    const char *name;
    uint32_t leaf, subleaf;
    unsigned reg, bit;
} features[F_COUNT] = {
#define FEATURE(name, leaf, subleaf, reg, bit, help) [F_##name] = {#name, leaf, subleaf, reg, bit},
#include "cpu/features.def"
#undef FEATURE
};

static void host(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __cpuid_count(leaf, subleaf, out[EAX], out[EBX], out[ECX], out[EDX]);
}

static bool bit_of(const uint32_t regs[4], unsigned f)
{
    return regs[features[f].reg] >> features[f].bit & 1;
}

static void a_feature_is_offered_exactly_where_its_bit_is_shown(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    for (unsigned f = 1; f < F_COUNT; f++) {
        uint32_t shown[4];
        cpuid_read(v, features[f].leaf, features[f].subleaf, shown);
        /* AMD repeats leaf 1 in leaf 8000_0001h, other features have one place. */
        if (bit_of(shown, f) != cpuid_has(&e->model, f))
            fail_msg("%s", features[f].name);
    }
}

static void nothing_is_offered_that_the_host_lacks(void **state)
{
    struct emulator *e = *state;
    for (unsigned f = 1; f < F_COUNT; f++) {
        uint32_t regs[4];
        host(features[f].leaf, features[f].subleaf, regs);
        if (cpuid_has(&e->model, f) && f != F_ARCH_CAPABILITIES && !bit_of(regs, f))
            fail_msg("%s", features[f].name);
    }
}

static void what_a_32_bit_system_needs_is_offered(void **state)
{
    static const uint8_t needed[] = {F_FPU, F_PSE, F_TSC,  F_MSR, F_PAE,  F_CX8, F_SEP,
                                     F_PGE, F_PAT, F_CMOV, F_MMX, F_FXSR, F_SSE, F_SSE2};
    struct emulator *e = *state;
    for (unsigned i = 0; i < ARRAY_LEN(needed); i++)
        assert_true(cpuid_has(&e->model, needed[i]));
}

static void what_the_engine_does_not_do_is_hidden(void **state)
{
    static const uint8_t hidden[] = {
        F_VME,        F_APIC,     F_MTRR,      F_MCE,       F_MCA,     F_PSE36,
        F_HTT,        F_SS,       F_X2APIC,    F_MONITOR,   F_CX16,    F_PCID,
        F_HYPERVISOR, F_FSGSBASE, F_SMEP,      F_SMAP,      F_INVPCID, F_UMIP,
        F_PKU,        F_SYSCALL,  F_LM,        F_LAHF_LM,   F_PDPE1GB, F_3DNOW,
        F_CET_SS,     F_CET_IBT,  F_SERIALIZE, F_MOVDIR64B, F_XSAVES,  F_SSE4A,
    };
    struct emulator *e = *state;
    for (unsigned i = 0; i < ARRAY_LEN(hidden); i++) {
        if (cpuid_has(&e->model, hidden[i]))
            fail_msg("%s", features[hidden[i]].name);
    }
}

static void identity_and_brand_are_the_hosts(void **state)
{
    static const uint32_t leaves[] = {0x80000002, 0x80000003, 0x80000004};
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    uint32_t ours[4], theirs[4];
    cpuid_read(v, 0, 0, ours);
    host(0, 0, theirs);
    assert_memory_equal(ours + 1, theirs + 1, 12);
    assert_int_equal(ours[EAX], e->model.max_basic);
    assert_true(ours[EAX] <= theirs[EAX]);
    cpuid_read(v, 1, 0, ours);
    host(1, 0, theirs);
    assert_int_equal(ours[EAX], theirs[EAX]);
    assert_int_equal(ours[EBX] >> 24, 0);
    assert_int_equal(ours[EBX] >> 16 & 0xFF, 1);
    for (unsigned i = 0; i < ARRAY_LEN(leaves); i++) {
        cpuid_read(v, leaves[i], 0, ours);
        host(leaves[i], 0, theirs);
        assert_memory_equal(ours, theirs, 16);
    }
}

static void there_is_one_processor_with_36_bit_addresses(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    uint32_t regs[4];
    for (uint32_t i = 0; i < 8; i++) {
        cpuid_read(v, 4, i, regs);
        assert_int_equal(regs[EAX] >> 14, 0);
    }
    cpuid_read(v, 0xB, 0, regs);
    if (e->model.max_basic >= 0xB)
        assert_int_equal(regs[EBX], 0);
    cpuid_read(v, 0x80000008, 0, regs);
    assert_int_equal(regs[EAX], 32 << 8 | 36);
    assert_int_equal(regs[ECX], 0);
}

static void leaves_beyond_the_last_answer_as_the_makers_do(void **state)
{
    static const uint32_t beyond[] = {0x100, 0x40000000, 0x80000009, 0xC0000000, 0xFFFFFFFF};
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    for (unsigned i = 0; i < ARRAY_LEN(beyond); i++) {
        uint32_t regs[4], last[4] = {0};
        cpuid_read(v, beyond[i], 0, regs);
        if (e->model.vendor_intel)
            cpuid_read(v, e->model.max_basic, 0, last);
        assert_memory_equal(regs, last, sizeof regs);
    }
}

static void cpuid_is_executed_in_every_ring_from_eax_and_ecx(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    uint32_t regs[4];
    v->regs[REG_AX] = 7;
    RUN_OK(e, 2, 0x0F, 0xA2);
    cpuid_read(v, 7, 0, regs);
    assert_int_equal(v->regs[REG_BX], regs[EBX]);
    assert_int_equal(v->regs[REG_DX], regs[EDX]);
    v->regs[REG_AX] = 7;
    v->regs[REG_CX] = 1;
    RUN_OK(e, 2, 0x0F, 0xA2);
    assert_int_equal(v->regs[REG_BX] | v->regs[REG_AX], 0);
}

static void osxsave_follows_cr4(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    uint32_t regs[4];
    cpuid_read(v, 1, 0, regs);
    assert_false(regs[ECX] >> 27 & 1);
    v->cr4 = CR4_OSXSAVE;
    cpuid_read(v, 1, 0, regs);
    assert_true(regs[ECX] >> 27 & 1);
}

static void arch_capabilities_say_that_no_page_table_isolation_is_needed(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 0);
    v->regs[REG_CX] = 0x10A;
    if (!cpuid_has(&e->model, F_ARCH_CAPABILITIES)) {
        RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x32);
        return;
    }
    RUN_OK(e, 2, 0x0F, 0x32);
    assert_true(v->regs[REG_AX] & 1);                                              /* RDCL_NO */
    assert_int_equal(v->regs[REG_AX] >> 1 & 1, cpuid_has(&e->model, F_SPEC_CTRL)); /* IBRS_ALL */
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_feature_is_offered_exactly_where_its_bit_is_shown),
        TEST(nothing_is_offered_that_the_host_lacks),
        TEST(what_a_32_bit_system_needs_is_offered),
        TEST(what_the_engine_does_not_do_is_hidden),
        TEST(identity_and_brand_are_the_hosts),
        TEST(there_is_one_processor_with_36_bit_addresses),
        TEST(leaves_beyond_the_last_answer_as_the_makers_do),
        TEST(cpuid_is_executed_in_every_ring_from_eax_and_ecx),
        TEST(osxsave_follows_cr4),
        TEST(arch_capabilities_say_that_no_page_table_isolation_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
