/*
 * Instructions that store and load the FPU's environment. They are executed on the host's FPU,
 * where the guest's state lives, with a buffer of ours, and the buffer is brought into the form
 * that the guest expects: 16- or 32-bit environments, and no trace of 64-bit mode. Invariants:
 *
 *  - The host's instruction and data pointers and opcode never reach the guest: 0 both ways.
 *  - XMM8-15 and YMM8-15 do not exist: their parts of an image are neither written nor read.
 *  - A store is probed first, since FNSTENV and FNSAVE change the FPU.
 *  - A load is read whole and checked before the FPU changes.
 *  - No x87 exception is raised here: FLDENV, FRSTOR and MMX run only when none is pending.
 */
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/fpu.h"
#include "cpu/op.h"

enum {
    FSW_ES = 1u << 7,
    /* FNSTENV's and FNSAVE's image with a 32-bit operand size (SDM 1 figure 8-9). */
    ENV_SIZE = 28,
    ENV_FIP = 12,
    ENV_FCS = 16,
    ENV_FDP = 20,
    ENV_FDS = 24,
    SAVE_SIZE = 108,
    REGISTERS_SIZE = 80,
    /* FXSAVE's image (SDM 1 10.5.1), and what XSAVE adds (SDM 1 13.4). */
    FX_SIZE = 512,
    FX_FOP = 6,
    FX_MXCSR = 24,
    FX_MXCSR_MASK = 28,
    FX_ST = 32,
    FX_XMM = 160,
    FX_XMM_END = 288,
    XS_BV = 512,
    XS_COMP_BV = 520,
    XS_RESERVED = 528,
    XS_AVX = 576,
    XS_AVX_END = 704,
    XS_SIZE = 832,
    MXCSR_MASK_DEFAULT = 0xFFBF,
};
#define XCOMP_COMPACT (1ull << 63)

/* ---- checks ---- */

/* SDM 3A table 2-2: x87 is #NM by EM and by TS. */
static int check_x87(struct vcpu *v)
{
    if (v->cr0 & (CR0_EM | CR0_TS))
        return vcpu_raise(v, VEC_NM);
    fpu_unpark(v);
    return 0;
}

static int check_pending(struct vcpu *v)
{
    uint16_t fsw;
    __asm__ volatile("fnstsw %0" : "=m"(fsw));
    return fsw & FSW_ES ? vcpu_raise(v, VEC_MF) : 0;
}

int op_fpu_check_mmx(struct vcpu *v)
{
    if (v->cr0 & CR0_EM)
        return vcpu_raise(v, VEC_UD);
    return check_x87(v) == FAULT ? FAULT : check_pending(v);
}

int op_fpu_check_sse(struct vcpu *v)
{
    if (v->cr0 & CR0_EM || !(v->cr4 & CR4_OSFXSR))
        return vcpu_raise(v, VEC_UD);
    return check_x87(v);
}

static int check_xsave(struct vcpu *v)
{
    if (!(v->cr4 & CR4_OSXSAVE))
        return vcpu_raise(v, VEC_UD);
    if (v->cr0 & CR0_TS)
        return vcpu_raise(v, VEC_NM);
    fpu_unpark(v);
    return 0;
}

int op_fpu_check_avx(struct vcpu *v)
{
    const uint64_t needed = XCR0_SSE | XCR0_AVX;
    return (v->xcr0 & needed) == needed ? check_xsave(v) : vcpu_raise(v, VEC_UD);
}

/* The linear address of an operand that must be aligned; `access` as in segment_linear. */
static int aligned_operand(struct vcpu *v, const struct insn *in, unsigned size, unsigned align,
                           unsigned access, uint32_t *gva)
{
    if (segment_linear(v, in->seg, emulate_ea(v, in), size, access, gva) == FAULT)
        return FAULT;
    return *gva & (align - 1) ? op_gp(v) : 0;
}

static bool user(const struct vcpu *v)
{
    return v->cpl == 3;
}

static uint64_t get64(const uint8_t *image, unsigned offset)
{
    uint64_t value;
    memcpy(&value, image + offset, sizeof value);
    return value;
}

static void put64(uint8_t *image, unsigned offset, uint64_t value)
{
    memcpy(image + offset, &value, sizeof value);
}

/* ---- FNSTENV, FLDENV, FNSAVE, FRSTOR ---- */

static unsigned env_size(const struct insn *in)
{
    return in->opsize == 2 ? ENV_SIZE / 2 : ENV_SIZE;
}

/*
 * Turns the host's environment into the guest's, in place. Of a dword that holds 16 bits the upper
 * half is FFFFh, as the CPU writes it; the pointers are 0.
 */
static void env_to_guest(uint8_t *env, unsigned opsize)
{
    memset(env + ENV_FIP, 0, ENV_FDS - ENV_FIP + 2);
    if (opsize == 2) {
        for (unsigned i = 0; i < 3; i++)
            memmove(env + 2 * i, env + 4 * i, 2);
        memset(env + 6, 0, 8);
    }
}

static void env_to_host(uint8_t *env, unsigned opsize)
{
    if (opsize == 2) {
        for (unsigned i = 3; i-- > 0;)
            memmove(env + 4 * i, env + 2 * i, 2);
    }
    memset(env + ENV_FIP, 0, ENV_SIZE - ENV_FIP);
}

int op_fpu_fnstenv(struct vcpu *v, const struct insn *in)
{
    uint8_t env[ENV_SIZE];
    uint32_t gva;

    if (check_x87(v) == FAULT ||
        op_probe_write(v, in->seg, emulate_ea(v, in), env_size(in), &gva) == FAULT)
        return FAULT;
    __asm__ volatile("fnstenv %0" : "=m"(env));
    env_to_guest(env, in->opsize);
    if (v->mem->write(v, gva, env, env_size(in), user(v)) == FAULT)
        return FAULT;
    return op_done(v, in);
}

int op_fpu_fldenv(struct vcpu *v, const struct insn *in)
{
    uint8_t env[ENV_SIZE];

    if (check_x87(v) == FAULT || check_pending(v) == FAULT ||
        segment_read(v, in->seg, emulate_ea(v, in), env, env_size(in)) == FAULT)
        return FAULT;
    env_to_host(env, in->opsize);
    __asm__ volatile("fldenv %0" : : "m"(env));
    return op_done(v, in);
}

int op_fpu_fnsave(struct vcpu *v, const struct insn *in)
{
    uint8_t image[SAVE_SIZE];
    unsigned size = env_size(in) + REGISTERS_SIZE;
    uint32_t gva;

    if (check_x87(v) == FAULT || op_probe_write(v, in->seg, emulate_ea(v, in), size, &gva) == FAULT)
        return FAULT;
    __asm__ volatile("fnsave %0" : "=m"(image));
    env_to_guest(image, in->opsize);
    memmove(image + env_size(in), image + ENV_SIZE, REGISTERS_SIZE);
    if (v->mem->write(v, gva, image, size, user(v)) == FAULT)
        return FAULT;
    return op_done(v, in);
}

int op_fpu_frstor(struct vcpu *v, const struct insn *in)
{
    uint8_t image[SAVE_SIZE];
    unsigned size = env_size(in) + REGISTERS_SIZE;

    if (check_x87(v) == FAULT || check_pending(v) == FAULT ||
        segment_read(v, in->seg, emulate_ea(v, in), image, size) == FAULT)
        return FAULT;
    memmove(image + ENV_SIZE, image + env_size(in), REGISTERS_SIZE);
    env_to_host(image, in->opsize);
    __asm__ volatile("frstor %0" : : "m"(image));
    return op_done(v, in);
}

/* ---- FXSAVE, FXRSTOR ---- */

/* Opcode and pointers. */
static void clear_pointers(uint8_t *image)
{
    memset(image + FX_FOP, 0, FX_MXCSR - FX_FOP);
}

static void host_fxsave(uint8_t *image)
{
    __asm__ volatile("fxsave %0" : "=m"(*(uint8_t(*)[FX_SIZE])image));
}

static bool mxcsr_valid(const uint8_t *image)
{
    _Alignas(16) uint8_t host[FX_SIZE];
    uint32_t mxcsr, mask;

    host_fxsave(host);
    memcpy(&mask, host + FX_MXCSR_MASK, sizeof mask);
    memcpy(&mxcsr, image + FX_MXCSR, sizeof mxcsr);
    return !(mxcsr & ~(mask ? mask : MXCSR_MASK_DEFAULT));
}

/* SDM 2A (FXSAVE): EM and TS both are #NM. XMM and MXCSR are stored whatever CR4.OSFXSR. */
int op_fpu_fxsave(struct vcpu *v, const struct insn *in)
{
    _Alignas(16) uint8_t image[FX_SIZE];
    uint32_t gva;

    if (check_x87(v) == FAULT || aligned_operand(v, in, FX_SIZE, 16, ACCESS_WRITE, &gva) == FAULT ||
        v->mem->probe_write(v, gva, FX_SIZE, user(v)) == FAULT)
        return FAULT;
    host_fxsave(image);
    clear_pointers(image);
    if (v->mem->write(v, gva, image, FX_XMM_END, user(v)) == FAULT)
        return FAULT;
    return op_done(v, in);
}

int op_fpu_fxrstor(struct vcpu *v, const struct insn *in)
{
    _Alignas(16) uint8_t image[FX_SIZE], guest[FX_SIZE];
    uint32_t gva;

    if (check_x87(v) == FAULT || aligned_operand(v, in, FX_SIZE, 16, ACCESS_READ, &gva) == FAULT ||
        v->mem->read(v, gva, guest, FX_SIZE, user(v)) == FAULT)
        return FAULT;
    if (v->cr4 & CR4_OSFXSR && !mxcsr_valid(guest))
        return op_gp(v);
    host_fxsave(image);
    memcpy(image, guest, FX_MXCSR);
    memcpy(image + FX_ST, guest + FX_ST, FX_XMM - FX_ST);
    if (v->cr4 & CR4_OSFXSR) {
        memcpy(image + FX_MXCSR, guest + FX_MXCSR, 4);
        memcpy(image + FX_XMM, guest + FX_XMM, FX_XMM_END - FX_XMM);
    }
    clear_pointers(image);
    __asm__ volatile("fxrstor %0" : : "m"(image));
    return op_done(v, in);
}

/* ---- XSAVE, XSAVEOPT, XSAVEC, XRSTOR ---- */

static uint64_t requested(const struct vcpu *v)
{
    uint64_t mask = (uint64_t)vcpu_reg32(v, REG_DX) << 32 | vcpu_reg32(v, REG_AX);
    return mask & v->xcr0;
}

/* What an image of these components takes; AVX is the last one, and stands at the same place in the
   compacted form. */
static unsigned image_size(uint64_t mask)
{
    return mask & XCR0_AVX ? XS_SIZE : XS_AVX;
}

/* All of the host's state that a guest can have; components in their initial state are written so.
 */
static void host_xsave(uint8_t *image)
{
    memset(image + XS_BV, 0, XS_AVX - XS_BV);
    __asm__ volatile("xsave %0"
                     : "+m"(*(uint8_t(*)[XS_SIZE])image)
                     : "a"(XCR0_X87 | XCR0_SSE | XCR0_AVX), "d"(0));
    clear_pointers(image);
}

uint64_t op_fpu_in_use(struct vcpu *v)
{
    _Alignas(64) uint8_t image[XS_SIZE];

    fpu_unpark(v);
    host_xsave(image);
    return get64(image, XS_BV) & v->xcr0;
}

struct part {
    uint64_t components; /* any of them */
    uint16_t start, end;
};

static const struct part parts[] = {
    {XCR0_X87, 0, FX_MXCSR},        {XCR0_SSE | XCR0_AVX, FX_MXCSR, FX_ST},
    {XCR0_X87, FX_ST, FX_XMM},      {XCR0_SSE, FX_XMM, FX_XMM_END},
    {XCR0_AVX, XS_AVX, XS_AVX_END},
};

static int write_image(struct vcpu *v, uint32_t gva, const uint8_t *image, uint64_t mask)
{
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        const struct part *p = &parts[i];
        if (p->components & mask &&
            v->mem->write(v, gva + p->start, image + p->start, p->end - p->start, user(v)) == FAULT)
            return FAULT;
    }
    return 0;
}

static int xsave_operand(struct vcpu *v, const struct insn *in, uint32_t *gva)
{
    unsigned size = image_size(requested(v));

    if (check_xsave(v) == FAULT || aligned_operand(v, in, size, 64, ACCESS_WRITE, gva) == FAULT)
        return FAULT;
    return v->mem->probe_write(v, *gva, size, user(v));
}

/* XSAVE, and XSAVEOPT, which may leave components unwritten but need not. */
int op_fpu_xsave(struct vcpu *v, const struct insn *in)
{
    _Alignas(64) uint8_t image[XS_SIZE];
    uint64_t mask = requested(v), bv;
    uint32_t gva;

    if (xsave_operand(v, in, &gva) == FAULT ||
        v->mem->read(v, gva + XS_BV, &bv, sizeof bv, user(v)) == FAULT)
        return FAULT;
    host_xsave(image);
    bv = (bv & ~mask) | (get64(image, XS_BV) & mask);
    if (write_image(v, gva, image, mask) == FAULT ||
        v->mem->write(v, gva + XS_BV, &bv, sizeof bv, user(v)) == FAULT)
        return FAULT;
    return op_done(v, in);
}

/* Components in their initial state are not written; MXCSR goes with SSE (SDM 1 13.10). */
int op_fpu_xsavec(struct vcpu *v, const struct insn *in)
{
    _Alignas(64) uint8_t image[XS_SIZE];
    uint64_t mask = requested(v), header[2];
    uint32_t gva;

    if (xsave_operand(v, in, &gva) == FAULT)
        return FAULT;
    host_xsave(image);
    header[0] = get64(image, XS_BV) & mask;
    header[1] = mask | XCOMP_COMPACT;
    if (write_image(v, gva, image, header[0]) == FAULT ||
        v->mem->write(v, gva + XS_BV, header, sizeof header, user(v)) == FAULT)
        return FAULT;
    return op_done(v, in);
}

/* The header of an image to be loaded (SDM 1 13.8.1, 13.8.2). */
static bool header_valid(const struct vcpu *v, const uint8_t *guest)
{
    uint64_t bv = get64(guest, XS_BV), comp = get64(guest, XS_COMP_BV);

    for (unsigned i = XS_RESERVED; i < XS_AVX; i++) {
        if (guest[i])
            return false;
    }
    if (!(comp & XCOMP_COMPACT))
        return comp == 0 && !(bv & ~v->xcr0);
    return cpuid_has(v->model, F_XSAVEC) && !(comp & ~XCOMP_COMPACT & ~v->xcr0) && !(bv & ~comp);
}

int op_fpu_xrstor(struct vcpu *v, const struct insn *in)
{
    _Alignas(64) uint8_t image[XS_SIZE], guest[XS_SIZE];
    uint64_t mask = requested(v), bv, load, with_mxcsr;
    uint32_t gva;
    bool compact;

    if (check_xsave(v) == FAULT ||
        aligned_operand(v, in, image_size(mask), 64, ACCESS_READ, &gva) == FAULT ||
        v->mem->read(v, gva, guest, image_size(mask), user(v)) == FAULT)
        return FAULT;
    if (!header_valid(v, guest))
        return op_gp(v);
    bv = get64(guest, XS_BV);
    compact = get64(guest, XS_COMP_BV) & XCOMP_COMPACT;
    load = mask & bv;
    /* The standard form loads MXCSR even where SSE and AVX become initial. */
    with_mxcsr = compact ? load & XCR0_SSE : mask & (XCR0_SSE | XCR0_AVX);
    if (with_mxcsr && !mxcsr_valid(guest))
        return op_gp(v);

    host_xsave(image);
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        const struct part *p = &parts[i];
        if (p->start == FX_MXCSR ? with_mxcsr : p->components & load)
            memcpy(image + p->start, guest + p->start, p->end - p->start);
    }
    if (compact && mask & XCR0_SSE && !with_mxcsr)
        memcpy(image + FX_MXCSR, (const uint8_t[4]){0x80, 0x1F}, 4);
    clear_pointers(image);
    put64(image, XS_BV, load);
    __asm__ volatile("xrstor %0" : : "m"(image), "a"((uint32_t)mask), "d"(0));
    return op_done(v, in);
}
