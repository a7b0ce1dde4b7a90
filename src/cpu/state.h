/*
 * The architectural state of one virtual CPU, and what it needs to know of its surroundings.
 *
 * Invariants:
 *  - While translated code runs, general registers, arithmetic flags, DF and the FPU are live in the
 *    host CPU; whenever C runs, the general registers and flags are here. The FPU stays live in the
 *    host unless fpu_parked (cpu/fpu.h).
 *  - The upper halves of regs[] are zero for a 32-bit guest.
 *  - Every change of a segment register, CR0, CR3, CR4, EFER, CPL or of EFLAGS.VM/TF goes through a
 *    function of cpu/ that calls vcpu_mode_changed, so that dbt can choose another window and block
 *    key.
 */
#ifndef CPU_STATE_H
#define CPU_STATE_H

#include "base/base.h"

enum reg { REG_AX, REG_CX, REG_DX, REG_BX, REG_SP, REG_BP, REG_SI, REG_DI, REG_COUNT = 16 };

/* The order of the manual's sreg field (SDM 2A, table 2-1). */
enum seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT, SEG_NONE = SEG_COUNT };

enum eflags {
    FLAG_CF = 1u << 0,
    FLAG_PF = 1u << 2,
    FLAG_AF = 1u << 4,
    FLAG_ZF = 1u << 6,
    FLAG_SF = 1u << 7,
    FLAG_TF = 1u << 8,
    FLAG_IF = 1u << 9,
    FLAG_DF = 1u << 10,
    FLAG_OF = 1u << 11,
    FLAG_IOPL = 3u << 12,
    FLAG_NT = 1u << 14,
    FLAG_RF = 1u << 16,
    FLAG_VM = 1u << 17,
    FLAG_AC = 1u << 18,
    FLAG_VIF = 1u << 19,
    FLAG_VIP = 1u << 20,
    FLAG_ID = 1u << 21,
    /* Live in the host's RFLAGS while translated code runs. */
    FLAGS_ARITH = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF,
    FLAGS_HOST = FLAGS_ARITH | FLAG_DF,
};
#define FLAG_IOPL_SHIFT 12

enum cr0 {
    CR0_PE = 1u << 0,
    CR0_MP = 1u << 1,
    CR0_EM = 1u << 2,
    CR0_TS = 1u << 3,
    CR0_ET = 1u << 4,
    CR0_NE = 1u << 5,
    CR0_WP = 1u << 16,
    CR0_AM = 1u << 18,
    CR0_NW = 1u << 29,
    CR0_CD = 1u << 30,
    CR0_PG = 1u << 31,
};

enum cr4 {
    CR4_VME = 1u << 0,
    CR4_PVI = 1u << 1,
    CR4_TSD = 1u << 2,
    CR4_DE = 1u << 3,
    CR4_PSE = 1u << 4,
    CR4_PAE = 1u << 5,
    CR4_MCE = 1u << 6,
    CR4_PGE = 1u << 7,
    CR4_PCE = 1u << 8,
    CR4_OSFXSR = 1u << 9,
    CR4_OSXMMEXCPT = 1u << 10,
    CR4_OSXSAVE = 1u << 18,
};

enum efer { EFER_NXE = 1u << 11 };

enum xcr0 { XCR0_X87 = 1u << 0, XCR0_SSE = 1u << 1, XCR0_AVX = 1u << 2 };

/* Descriptor attributes: bits 8-23 of a descriptor's high dword, shifted to bit 0 (SDM 3A 3.4.5).
 */
enum segment_attr {
    ATTR_TYPE = 0xF,
    ATTR_ACCESSED = 1u << 0,
    ATTR_WRITE = 1u << 1, /* data: writable; code: readable */
    ATTR_DOWN = 1u << 2,  /* data: expand-down; code: conforming */
    ATTR_CODE = 1u << 3,
    ATTR_S = 1u << 4, /* code or data, not system */
    ATTR_DPL = 3u << 5,
    ATTR_P = 1u << 7,
    ATTR_L = 1u << 13,
    ATTR_DB = 1u << 14,
    ATTR_G = 1u << 15,
};
#define ATTR_DPL_SHIFT 5

/* The visible and the hidden part of a segment register. A null selector has attr 0. */
struct segment {
    uint16_t sel;
    uint16_t attr;
    uint32_t base;
    uint32_t limit; /* in bytes, scaled by G: last offset of an expand-up segment */
};

struct table_register {
    uint32_t base;
    uint16_t limit;
};

enum vector {
    VEC_DE = 0,
    VEC_DB = 1,
    VEC_NMI = 2,
    VEC_BP = 3,
    VEC_OF = 4,
    VEC_BR = 5,
    VEC_UD = 6,
    VEC_NM = 7,
    VEC_DF = 8,
    VEC_TS = 10,
    VEC_NP = 11,
    VEC_SS = 12,
    VEC_GP = 13,
    VEC_PF = 14,
    VEC_MF = 16,
    VEC_AC = 17,
    VEC_MC = 18,
    VEC_XM = 19,
};

/* An exception that an instruction met and that has not been delivered yet. */
struct exception {
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint32_t cr2; /* #PF only; becomes CR2 at delivery */
};

/* Functions that can meet a guest exception return 0, or FAULT with vcpu.exc filled in. */
enum { FAULT = -1 };

struct vcpu;

/*
 * What surrounds the CPU. `opaque` is vcpu.ops_opaque. The functions may use the FPU: they are
 * called with it parked. Sizes are 1, 2 or 4 bytes.
 */
struct vcpu_ops {
    uint32_t (*io_read)(void *opaque, uint16_t port, unsigned size);
    void (*io_write)(void *opaque, uint16_t port, unsigned size, uint32_t value);
    /* The interrupt acknowledge cycle: the vector, or -1 when the line fell meanwhile. */
    int (*irq_ack)(void *opaque);
    /* Runs timers and host input that are due. Called after vcpu.kicked was set. */
    void (*poll)(void *opaque);
    /* Host time as the guest's time-stamp counter, for WRMSR to it; translated RDTSC adds
     * tsc_offset. */
};

/*
 * Guest memory as the CPU sees it, implemented by mmu/. Linear addresses wrap at 4 GiB. `user` says
 * whether the access is made with user rights (CPL 3 and not implicit). All of [gva, gva+size) is
 * checked before anything is read or written. Page faults: FAULT, exc = #PF.
 */
struct vcpu_mem {
    int (*read)(struct vcpu *v, uint32_t gva, void *to, unsigned size, bool user);
    int (*write)(struct vcpu *v, uint32_t gva, const void *from, unsigned size, bool user);
    /* Raises what a write of that range would, and changes nothing but A and D bits. */
    int (*probe_write)(struct vcpu *v, uint32_t gva, unsigned size, bool user);
    /* Instruction fetch rights (NX, SMEP): up to `size` bytes, stops at a page that cannot be read;
       returns the count, or FAULT when not even the first byte can be fetched. */
    int (*fetch)(struct vcpu *v, uint32_t gva, void *to, unsigned size, bool user);
    /* Compares and exchanges a naturally aligned dword, as a locked access does. Returns 0 or
     *FAULT; old is what was found. */
    int (*cmpxchg32)(struct vcpu *v, uint32_t gva, uint32_t *old, uint32_t value, bool user);
    /* CR0.PG/WP, CR3, CR4 or EFER changed (TLB rules of SDM 3A 4.10). `old_*` as before the change.
     */
    void (*paging_changed)(struct vcpu *v, uint32_t old_cr0, uint32_t old_cr3, uint32_t old_cr4);
    void (*invlpg)(struct vcpu *v, uint32_t gva);
    /* Loads the four PDPTEs of PAE paging from `cr3`; FAULT (#GP(0)) for reserved bits. */
    int (*load_pdptes)(struct vcpu *v, uint32_t cr3);
};

enum { FPU_AREA_SIZE = 4096 };

struct vcpu {
    uint64_t regs[REG_COUNT]; /* enum reg */
    uint64_t rip;             /* of the instruction being executed, until it is done */
    /* Flags as host PUSHF gave them: only FLAGS_HOST means anything. */
    uint64_t host_flags;
    /* The other flags: IF, IOPL, NT, VM, AC, TF, RF, VIF, VIP, ID. Never a bit of FLAGS_HOST. */
    uint32_t sys_flags;
    uint8_t cpl;
    /* Interrupts are held off until after the next instruction (MOV SS, POP SS: 2, STI: 1). */
    uint8_t shadow;
    bool halted;
    bool fpu_parked;

    struct segment seg[SEG_COUNT];
    struct segment ldtr, tr;
    struct table_register gdtr, idtr;

    uint32_t cr0, cr2, cr3, cr4;
    uint64_t pdpte[4]; /* as loaded by MOV CR3 with PAE */
    uint32_t dr[8];
    uint64_t efer;
    uint64_t xcr0;       /* enum xcr0 */
    uint64_t tsc_offset; /* guest TSC = host TSC + tsc_offset */
    struct msrs {
        uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
        uint64_t pat, misc_enable, tsc_aux, mtrr_def_type;
        uint64_t mtrr_fixed[11], mtrr_phys[16];
        uint64_t apic_base;
        uint64_t spec_ctrl;
    } msr;

    struct exception exc;
    /* Set by delivery when a fault met a double fault: the guest is to be reset (SDM 3A 6.15, #DF).
     */
    bool shutdown;

    bool irq_line; /* INTR, a level, set by the machine */
    bool nmi_pending, nmi_blocked;
    /* Set from signal handlers and other threads; asks for ops->poll at the next safe point. */
    volatile bool kicked;
    /* Set with kicked: the run loop is to return to its caller. */
    volatile bool stop;

    const struct cpu_model *model; /* borrowed; CPUID (cpu/cpuid.h) */
    const struct vcpu_ops *ops;    /* borrowed */
    void *ops_opaque;              /* borrowed */
    const struct vcpu_mem *mem;    /* borrowed */
    struct mmu *mmu; /* borrowed; the argument of mem's functions, by way of the vcpu */

    /* Set by vcpu_mode_changed, taken by dbt. */
    bool mode_dirty;

    /* The guest's x87, MMX, SSE and AVX state while parked, in XSAVE format. */
    _Alignas(64) uint8_t fpu_area[FPU_AREA_SIZE];
    /* Memory operand of an instruction that is executed alone (dbt/single.h), congruent modulo 64.
     */
    _Alignas(64) uint8_t bounce[4096];
};

/* The state after RESET (SDM 3A 9.1), keeping model, ops, mem and mmu. */
void vcpu_reset(struct vcpu *v);

static inline void vcpu_mode_changed(struct vcpu *v)
{
    v->mode_dirty = true;
}

static inline uint32_t vcpu_eflags(const struct vcpu *v)
{
    return ((uint32_t)v->host_flags & FLAGS_HOST) | v->sys_flags | 2;
}

/* Sets all of EFLAGS, without any privilege check. */
static inline void vcpu_set_eflags(struct vcpu *v, uint32_t flags)
{
    uint32_t sys = flags & (FLAG_TF | FLAG_IF | FLAG_IOPL | FLAG_NT | FLAG_RF | FLAG_VM | FLAG_AC |
                            FLAG_VIF | FLAG_VIP | FLAG_ID);
    if ((sys ^ v->sys_flags) & (FLAG_TF | FLAG_VM | FLAG_AC))
        vcpu_mode_changed(v);
    v->host_flags = flags & FLAGS_HOST;
    v->sys_flags = sys;
}

static inline unsigned vcpu_iopl(const struct vcpu *v)
{
    return (v->sys_flags & FLAG_IOPL) >> FLAG_IOPL_SHIFT;
}

static inline bool vcpu_protected(const struct vcpu *v)
{
    return v->cr0 & CR0_PE;
}

static inline bool vcpu_v86(const struct vcpu *v)
{
    return v->sys_flags & FLAG_VM;
}

/* Real or virtual-8086 mode: segments are 16 * selector. */
static inline bool vcpu_real_segments(const struct vcpu *v)
{
    return !vcpu_protected(v) || vcpu_v86(v);
}

static inline uint32_t vcpu_reg32(const struct vcpu *v, enum reg r)
{
    return (uint32_t)v->regs[r];
}

/* Writes the low `size` bytes (1: AL-BL then AH-BH as in ModRM; 2; 4) of a general register. */
static inline void vcpu_set_reg(struct vcpu *v, unsigned r, unsigned size, uint32_t value)
{
    if (size == 4) {
        v->regs[r] = value;
    } else if (size == 2) {
        v->regs[r] = (v->regs[r] & 0xFFFF0000u) | (value & 0xFFFF);
    } else {
        unsigned shift = r & 4 ? 8 : 0;
        v->regs[r & 3] = (v->regs[r & 3] & ~(0xFFull << shift) & 0xFFFFFFFFu) |
                         (uint64_t)(value & 0xFF) << shift;
    }
}

static inline uint32_t vcpu_get_reg(const struct vcpu *v, unsigned r, unsigned size)
{
    if (size == 1)
        return (uint8_t)(v->regs[r & 3] >> (r & 4 ? 8 : 0));
    return (uint32_t)v->regs[r] & (uint32_t)width_mask(size);
}

static inline int vcpu_raise(struct vcpu *v, enum vector vector)
{
    v->exc = (struct exception){.vector = vector};
    return FAULT;
}

static inline int vcpu_raise_error(struct vcpu *v, enum vector vector, uint32_t error)
{
    v->exc = (struct exception){.vector = vector, .has_error = true, .error = error};
    return FAULT;
}

#endif
