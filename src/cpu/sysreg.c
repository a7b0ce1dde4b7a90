/*
 * Control registers and model-specific registers (SDM 3A 2.5, SDM 4). What depends on a CPUID
 * feature exists exactly when the model offers the feature; an MSR that is not listed is #GP(0). A
 * write that faults changes nothing.
 */
#include "cpu/cpuid.h"
#include "cpu/emulate.h"
#include "cpu/sysreg.h"

static int gp(struct vcpu *v)
{
    return vcpu_raise_error(v, VEC_GP, 0);
}

uint64_t sysreg_tsc(const struct vcpu *v)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return ((uint64_t)high << 32 | low) + v->tsc_offset;
}

/* ---- control registers ---- */

static int write_cr0(struct vcpu *v, uint32_t value)
{
    const uint32_t defined =
        CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;
    uint32_t old = v->cr0;

    value = (value & defined) | CR0_ET;
    if ((value & CR0_NW && !(value & CR0_CD)) || (value & CR0_PG && !(value & CR0_PE)))
        return gp(v);
    /* SDM 3A 4.4.1: these changes reload the PDPTEs. */
    if (value & CR0_PG && v->cr4 & CR4_PAE && (old ^ value) & (CR0_PG | CR0_CD | CR0_NW) &&
        v->mem->load_pdptes(v, v->cr3) == FAULT)
        return FAULT;
    v->cr0 = value;
    if ((old ^ value) & (CR0_PG | CR0_WP | CR0_PE))
        v->mem->paging_changed(v, old, v->cr3, v->cr4);
    vcpu_mode_changed(v);
    return 0;
}

static int write_cr3(struct vcpu *v, uint32_t value)
{
    uint32_t old = v->cr3;

    if (v->cr0 & CR0_PG && v->cr4 & CR4_PAE && v->mem->load_pdptes(v, value) == FAULT)
        return FAULT;
    v->cr3 = value;
    v->mem->paging_changed(v, v->cr0, old, v->cr4);
    vcpu_mode_changed(v);
    return 0;
}

static uint32_t cr4_defined(const struct cpu_model *model)
{
    static const struct {
        uint8_t feature;
        uint32_t bits;
    } rows[] = {
        {F_VME, CR4_VME | CR4_PVI}, {F_TSC, CR4_TSD},       {F_DE, CR4_DE},
        {F_PSE, CR4_PSE},           {F_PAE, CR4_PAE},       {F_MCE, CR4_MCE},
        {F_PGE, CR4_PGE},           {F_BASE, CR4_PCE},      {F_FXSR, CR4_OSFXSR},
        {F_SSE, CR4_OSXMMEXCPT},    {F_XSAVE, CR4_OSXSAVE},
    };
    uint32_t bits = 0;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        if (cpuid_has(model, rows[i].feature))
            bits |= rows[i].bits;
    }
    return bits;
}

static int write_cr4(struct vcpu *v, uint32_t value)
{
    const uint32_t paging = CR4_PSE | CR4_PAE | CR4_PGE;
    uint32_t old = v->cr4;

    if (value & ~cr4_defined(v->model))
        return gp(v);
    if (v->cr0 & CR0_PG && value & CR4_PAE && (old ^ value) & paging &&
        v->mem->load_pdptes(v, v->cr3) == FAULT)
        return FAULT;
    v->cr4 = value;
    if ((old ^ value) & paging)
        v->mem->paging_changed(v, v->cr0, v->cr3, old);
    vcpu_mode_changed(v);
    return 0;
}

int sysreg_write_cr(struct vcpu *v, unsigned cr, uint32_t value)
{
    switch (cr) {
    case 0:
        return write_cr0(v, value);
    case 2:
        v->cr2 = value;
        return 0;
    case 3:
        return write_cr3(v, value);
    case 4:
        return write_cr4(v, value);
    default:
        return vcpu_raise(v, VEC_UD);
    }
}

/* ---- model-specific registers ---- */

enum msr {
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1B,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_BIOS_UPDT_TRIG = 0x79,
    MSR_BIOS_SIGN_ID = 0x8B,
    MSR_MTRRCAP = 0xFE,
    MSR_ARCH_CAPABILITIES = 0x10A,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MISC_ENABLE = 0x1A0,
    MSR_MTRR_PHYS_BASE0 = 0x200,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K_80000 = 0x258,
    MSR_MTRR_FIX16K_A0000 = 0x259,
    MSR_MTRR_FIX4K_C0000 = 0x268,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF_TYPE = 0x2FF,
    MSR_EFER = 0xC0000080,
    MSR_TSC_AUX = 0xC0000103,
    MSR_K7_HWCR = 0xC0010015,
    MSR_AMD64_DE_CFG = 0xC0011029,
};

/*
 * SDM 4, IA32_ARCH_CAPABILITIES. The supervisor's pages are not mapped where user code runs, and
 * buffers that leak between host processes are the host kernel's to clear; so nothing is left for
 * the guest to do against RDCL, MDS, TAA, SSB, stale MMIO data, GDS, RFDS and the rest. IBRS_ALL is
 * said only with SPEC_CTRL.
 */
enum {
    ARCH_RDCL_NO = 1u << 0,
    ARCH_IBRS_ALL = 1u << 1,
    ARCH_SKIP_L1DFL = 1u << 3,
    ARCH_SSB_NO = 1u << 4,
    ARCH_MDS_NO = 1u << 5,
    ARCH_PSCHANGE_MC_NO = 1u << 6,
    ARCH_TAA_NO = 1u << 8,
    ARCH_SBDR_SSDP_NO = 1u << 13,
    ARCH_FBSDP_NO = 1u << 14,
    ARCH_PSDP_NO = 1u << 15,
    ARCH_BHI_NO = 1u << 20,
    ARCH_PBRSB_NO = 1u << 24,
    ARCH_GDS_NO = 1u << 26,
    ARCH_RFDS_NO = 1u << 27,
};
#define ARCH_ITS_NO (1ull << 62)

enum {
    MISC_BTS_UNAVAILABLE = 1u << 11,
    MISC_PEBS_UNAVAILABLE = 1u << 12,
    MISC_FAST_STRINGS = 1u << 0,
    MTRR_VARIABLE = 8,
    MTRRCAP_FIX = 1u << 8,
    MTRRCAP_WC = 1u << 10,
    HWCR_TSC_FREQ_SEL = 1u << 24,
    DE_CFG_LFENCE_SERIALIZE = 1u << 1,
};

static uint64_t arch_capabilities(const struct cpu_model *model)
{
    uint64_t value = ARCH_RDCL_NO | ARCH_SKIP_L1DFL | ARCH_SSB_NO | ARCH_MDS_NO |
                     ARCH_PSCHANGE_MC_NO | ARCH_TAA_NO | ARCH_SBDR_SSDP_NO | ARCH_FBSDP_NO |
                     ARCH_PSDP_NO | ARCH_BHI_NO | ARCH_PBRSB_NO | ARCH_GDS_NO | ARCH_RFDS_NO |
                     ARCH_ITS_NO;
    return cpuid_has(model, F_SPEC_CTRL) ? value | ARCH_IBRS_ALL : value;
}

/* Where an MTRR is kept, or NULL if `index` is none. */
static uint64_t *mtrr(struct vcpu *v, uint32_t index)
{
    struct msrs *m = &v->msr;

    if (!cpuid_has(v->model, F_MTRR))
        return NULL;
    if (index >= MSR_MTRR_PHYS_BASE0 && index < MSR_MTRR_PHYS_BASE0 + 2 * MTRR_VARIABLE)
        return &m->mtrr_phys[index - MSR_MTRR_PHYS_BASE0];
    if (index >= MSR_MTRR_FIX4K_C0000 && index < MSR_MTRR_FIX4K_C0000 + 8)
        return &m->mtrr_fixed[3 + index - MSR_MTRR_FIX4K_C0000];
    switch (index) {
    case MSR_MTRR_FIX64K:
        return &m->mtrr_fixed[0];
    case MSR_MTRR_FIX16K_80000:
        return &m->mtrr_fixed[1];
    case MSR_MTRR_FIX16K_A0000:
        return &m->mtrr_fixed[2];
    case MSR_MTRR_DEF_TYPE:
        return &m->mtrr_def_type;
    default:
        return NULL;
    }
}

/* A memory type as PAT has them; MTRRs have no UC-minus (SDM 3A 12.11, 12.12). */
static bool memory_type_valid(unsigned type, bool pat)
{
    return type == 0 || type == 1 || (type >= 4 && type <= 6) || (pat && type == 7);
}

static bool mtrr_valid(uint32_t index, uint64_t value)
{
    const uint64_t physical = (1ull << 36) - 1;

    if (index == MSR_MTRR_DEF_TYPE)
        return !(value & ~0xCFFull) && memory_type_valid(value & 0xFF, false);
    if (index >= MSR_MTRR_FIX64K && index < MSR_PAT) {
        for (unsigned i = 0; i < 8; i++) {
            if (!memory_type_valid(value >> 8 * i & 0xFF, false))
                return false;
        }
        return true;
    }
    if (index & 1)
        return !(value & ~(physical & ~0x7FFull));
    return !(value & ~(physical & ~0xF00ull)) && memory_type_valid(value & 0xFF, false);
}

/* MSRs that one maker's CPUs have, and their systems touch without looking. */
static bool read_vendor_msr(const struct vcpu *v, uint32_t index, uint64_t *value)
{
    if (v->model->vendor_intel) {
        switch (index) {
        case MSR_PLATFORM_ID:
            *value = 0;
            return true;
        case MSR_BIOS_SIGN_ID:
            *value = 1ull << 32;
            return true;
        case MSR_MISC_ENABLE:
            *value = v->msr.misc_enable | MISC_BTS_UNAVAILABLE | MISC_PEBS_UNAVAILABLE;
            return true;
        default:
            return false;
        }
    }
    switch (index) {
    case MSR_BIOS_SIGN_ID:
        *value = 0x01000065;
        return true;
    case MSR_K7_HWCR:
        *value = HWCR_TSC_FREQ_SEL;
        return true;
    case MSR_AMD64_DE_CFG:
        *value = DE_CFG_LFENCE_SERIALIZE;
        return true;
    default:
        return false;
    }
}

int sysreg_read_msr(struct vcpu *v, uint32_t index, uint64_t *value)
{
    const struct cpu_model *model = v->model;
    const uint64_t *range;

    switch (index) {
    case MSR_TSC:
        *value = sysreg_tsc(v);
        return 0;
    case MSR_APIC_BASE:
        if (!cpuid_has(model, F_APIC))
            return gp(v);
        *value = v->msr.apic_base;
        return 0;
    case MSR_SPEC_CTRL:
        if (!cpuid_has(model, F_SPEC_CTRL))
            return gp(v);
        *value = v->msr.spec_ctrl;
        return 0;
    case MSR_ARCH_CAPABILITIES:
        if (!cpuid_has(model, F_ARCH_CAPABILITIES))
            return gp(v);
        *value = arch_capabilities(model);
        return 0;
    case MSR_SYSENTER_CS:
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
        if (!cpuid_has(model, F_SEP))
            return gp(v);
        *value = index == MSR_SYSENTER_CS    ? v->msr.sysenter_cs
                 : index == MSR_SYSENTER_ESP ? v->msr.sysenter_esp
                                             : v->msr.sysenter_eip;
        return 0;
    case MSR_PAT:
        if (!cpuid_has(model, F_PAT))
            return gp(v);
        *value = v->msr.pat;
        return 0;
    case MSR_MTRRCAP:
        if (!cpuid_has(model, F_MTRR))
            return gp(v);
        *value = MTRR_VARIABLE | MTRRCAP_FIX | MTRRCAP_WC;
        return 0;
    case MSR_EFER:
        if (!cpuid_has(model, F_NX))
            return gp(v);
        *value = v->efer;
        return 0;
    case MSR_TSC_AUX:
        if (!cpuid_has(model, F_RDTSCP))
            return gp(v);
        *value = v->msr.tsc_aux;
        return 0;
    default:
        range = mtrr(v, index);
        if (range) {
            *value = *range;
            return 0;
        }
        return read_vendor_msr(v, index, value) ? 0 : gp(v);
    }
}

static int write_efer(struct vcpu *v, uint64_t value)
{
    uint64_t old = v->efer;

    if (!cpuid_has(v->model, F_NX) || value & ~(uint64_t)EFER_NXE)
        return gp(v);
    v->efer = value;
    if (old != value)
        v->mem->paging_changed(v, v->cr0, v->cr3, v->cr4);
    vcpu_mode_changed(v);
    return 0;
}

static int write_pat(struct vcpu *v, uint64_t value)
{
    if (!cpuid_has(v->model, F_PAT))
        return gp(v);
    for (unsigned i = 0; i < 8; i++) {
        if (!memory_type_valid(value >> 8 * i & 0xFF, true))
            return gp(v);
    }
    v->msr.pat = value;
    return 0;
}

static int write_vendor_msr(struct vcpu *v, uint32_t index, uint64_t value)
{
    if (index == MSR_BIOS_SIGN_ID || index == MSR_BIOS_UPDT_TRIG)
        return 0;
    if (v->model->vendor_intel && index == MSR_MISC_ENABLE) {
        v->msr.misc_enable = value & MISC_FAST_STRINGS;
        return 0;
    }
    if (!v->model->vendor_intel && (index == MSR_K7_HWCR || index == MSR_AMD64_DE_CFG))
        return 0;
    return gp(v);
}

int sysreg_write_msr(struct vcpu *v, uint32_t index, uint64_t value)
{
    const struct cpu_model *model = v->model;
    uint64_t *range;

    switch (index) {
    case MSR_TSC:
        v->tsc_offset += value - sysreg_tsc(v);
        return 0;
    case MSR_APIC_BASE:
        /* The page's address, the enable bit; BSP is fixed (SDM 3A 11.4.4). */
        if (!cpuid_has(model, F_APIC) || value & ~0xFFFFFF900ull)
            return gp(v);
        v->msr.apic_base = (value & ~0x100ull) | (v->msr.apic_base & 0x100);
        return 0;
    case MSR_SPEC_CTRL:
        if (!cpuid_has(model, F_SPEC_CTRL) || value & ~7ull)
            return gp(v);
        v->msr.spec_ctrl = value;
        return 0;
    case MSR_PRED_CMD:
        return cpuid_has(model, F_SPEC_CTRL) && !(value & ~1ull) ? 0 : gp(v);
    case MSR_SYSENTER_CS:
    case MSR_SYSENTER_ESP:
    case MSR_SYSENTER_EIP:
        if (!cpuid_has(model, F_SEP))
            return gp(v);
        value &= 0xFFFFFFFFu;
        if (index == MSR_SYSENTER_CS)
            v->msr.sysenter_cs = value;
        else if (index == MSR_SYSENTER_ESP)
            v->msr.sysenter_esp = value;
        else
            v->msr.sysenter_eip = value;
        return 0;
    case MSR_PAT:
        return write_pat(v, value);
    case MSR_EFER:
        return write_efer(v, value);
    case MSR_TSC_AUX:
        if (!cpuid_has(model, F_RDTSCP) || value >> 32)
            return gp(v);
        v->msr.tsc_aux = value;
        return 0;
    default:
        range = mtrr(v, index);
        if (range) {
            if (!mtrr_valid(index, value))
                return gp(v);
            *range = value;
            return 0;
        }
        return write_vendor_msr(v, index, value);
    }
}
