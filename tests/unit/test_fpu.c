/*
 * Parking the FPU, and the instructions that store and load its state: formats of both operand
 * sizes, nothing of the host in them, and nothing changed where they fault.
 *
 * The guest's state is set and read in vcpu.fpu_area, while parked; emulator_bytes parks it again
 * behind each instruction.
 */
#include "emulator.h"

enum { FCW = 0, FSW = 2, FTW = 4, FOP = 6, FIP = 8, FDP = 16, MXCSR = 24, ST = 32, XMM = 160 };
enum { HEADER = 512, YMM = 576, IMAGE = 832 };
enum { BUFFER = 0x8000 };

static uint16_t area16(const struct vcpu *v, unsigned offset)
{
    return (uint16_t)(v->fpu_area[offset] | v->fpu_area[offset + 1] << 8);
}

static void set_area16(struct vcpu *v, unsigned offset, uint16_t value)
{
    v->fpu_area[offset] = (uint8_t)value;
    v->fpu_area[offset + 1] = (uint8_t)(value >> 8);
}

/* A state without any default in it, pointers included; no exception pending. */
static void fill(struct vcpu *v, uint64_t components)
{
    for (unsigned i = 0; i < 128; i++)
        v->fpu_area[ST + i] = i % 16 < 10 ? (uint8_t)(i * 7 + 1) : 0;
    for (unsigned i = 0; i < 128; i++)
        v->fpu_area[XMM + i] = (uint8_t)(i * 5 + 3);
    for (unsigned i = 0; i < 128; i++)
        v->fpu_area[YMM + i] = (uint8_t)(i * 3 + 9);
    set_area16(v, FCW, 0x0C7F);
    set_area16(v, FSW, 0x3A21);
    v->fpu_area[FTW] = 0x7F;
    set_area16(v, FOP, 0x123);
    memset(v->fpu_area + FIP, 0x77, 16);
    memcpy(v->fpu_area + MXCSR, &(uint32_t){0x5F82}, 4);
    memcpy(v->fpu_area + HEADER, &components, 8);
    v->fpu_parked = true;
}

/* Overwrites without a vector register. */
static void scribble(void *at, size_t size)
{
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(0xEE) : "memory");
}

static uint64_t host_xcr0(void)
{
    uint32_t a, b, c = 0, d;
    __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "+c"(c), "=d"(d) : "0"(1));
    if (!(c >> 27 & 1))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (uint64_t)d << 32 | a;
}

/* ---- fpu.c ---- */

static void round_trip(struct vcpu *v, uint64_t components)
{
    static uint8_t before[FPU_AREA_SIZE];
    uint16_t fcw;
    uint32_t mxcsr;
    fill(v, components);
    memcpy(before, v->fpu_area, sizeof before);
    fpu_unpark(v);
    scribble(v->fpu_area, HEADER);
    fpu_park(v);
    __asm__ volatile("fnstcw %0; stmxcsr %1" : "=m"(fcw), "=m"(mxcsr));
    assert_int_equal(fcw, 0x37F);
    assert_int_equal(mxcsr, 0x1F80);
    assert_memory_equal(v->fpu_area, before, 5);
    assert_memory_equal(v->fpu_area + MXCSR, before + MXCSR, 4);
    assert_memory_equal(v->fpu_area + ST, before + ST, 256);
    if (components & XCR0_AVX)
        assert_memory_equal(v->fpu_area + YMM, before + YMM, 128);
}

static void parking_keeps_the_guests_state_and_gives_c_a_clean_one(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    round_trip(v, 3);
    e->model.host_xsave = 0; /* FXSAVE */
    round_trip(v, 3);
}

static void parking_keeps_avx_where_the_guest_has_it(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    uint8_t upper[16], zero[16] = {0};
    if ((host_xcr0() & 7) != 7)
        skip();
    e->model.host_xsave = 7;
    round_trip(v, 7);
    __asm__ volatile("vextractf128 $1, %%ymm7, %0" : "=m"(upper));
    assert_memory_equal(upper, zero, sizeof upper);
}

static void parking_is_idempotent(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    uint8_t fcw_low;
    fill(v, 3);
    fpu_park(v);
    assert_int_equal(area16(v, FCW), 0x0C7F);
    fpu_unpark(v);
    scribble(v->fpu_area, 32);
    fpu_unpark(v); /* would load the scribble */
    fpu_park(v);
    fcw_low = v->fpu_area[FCW];
    assert_int_equal(fcw_low, 0x7F);
    assert_true(v->fpu_parked);
}

static void a_pending_exception_survives_parking_without_being_raised(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    fill(v, 3);
    set_area16(v, FCW, 0x0C7E);
    set_area16(v, FSW, 0xBA81);
    fpu_unpark(v);
    fpu_park(v);
    assert_int_equal(area16(v, FSW), 0xBA81);
}

static void reset_leaves_zeros_in_the_registers(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    fill(v, 3);
    fpu_reset(v);
    fpu_unpark(v);
    fpu_park(v);
    assert_int_equal(area16(v, FCW), 0x0040);
    assert_int_equal(area16(v, FSW), 0);
    assert_int_equal(v->fpu_area[FTW], 0xFF);
    assert_int_equal(area16(v, MXCSR), 0x1F80);
    for (unsigned i = 0; i < 256; i++)
        assert_int_equal(v->fpu_area[ST + i], 0);
}

/* ---- x87 environments ---- */

static void environments_have_both_sizes_and_no_host_pointers(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_BX] = BUFFER;
    fill(v, 3);
    memset(flatmem_byte(&e->w.m, BUFFER), 0x55, 64);
    RUN_OK(e, 2, 0xD9, 0x33);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER), 0xFFFF0C7F);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + 4), 0xFFFF3A21);
    uint32_t tags = flatmem_get32(&e->w.m, BUFFER + 8);
    assert_int_equal(tags >> 14, 0xFFFF << 2 | 3); /* register 7 is empty */
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + 12), 0);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + 16), 0);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + 20), 0);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + 24), 0xFFFF0000);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + 28), 0x55555555);
    assert_int_equal(area16(v, FCW), 0x0C7F | 0x3F);

    fill(v, 3);
    memset(flatmem_byte(&e->w.m, BUFFER), 0x55, 64);
    RUN_OK(e, 3, 0x66, 0xD9, 0x33);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER), 0x3A210C7F);
    assert_int_equal(flatmem_get16(&e->w.m, BUFFER + 4), tags & 0xFFFF);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + 6), 0);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + 10), 0);
    assert_int_equal(flatmem_get16(&e->w.m, BUFFER + 14), 0x5555);

    /* and back */
    fpu_reset(v);
    RUN_OK(e, 3, 0x66, 0xD9, 0x23);
    assert_int_equal(area16(v, FCW), 0x0C7F);
    assert_int_equal(area16(v, FSW), 0x3A21);
    assert_int_equal(v->fpu_area[FTW], 0x7F);
}

static void fnsave_and_frstor_are_inverse_in_both_sizes(void **state)
{
    struct emulator *e = *state;
    for (unsigned narrow = 0; narrow < 2; narrow++) {
        struct vcpu *v = emulator_protected(e, 3);
        uint8_t registers[128];
        unsigned env = narrow ? 14 : 28;
        v->regs[REG_BX] = BUFFER;
        fill(v, 3);
        memcpy(registers, v->fpu_area + ST, sizeof registers);
        memset(flatmem_byte(&e->w.m, BUFFER), 0x55, 128);
        if (narrow)
            RUN_OK(e, 3, 0x66, 0xDD, 0x33);
        else
            RUN_OK(e, 2, 0xDD, 0x33);
        assert_memory_equal(flatmem_byte(&e->w.m, BUFFER + env), registers, 10);
        assert_memory_equal(flatmem_byte(&e->w.m, BUFFER + env + 70), registers + 112, 10);
        assert_int_equal(*flatmem_byte(&e->w.m, BUFFER + env + 80), 0x55);
        assert_int_equal(area16(v, FCW), 0x37F);
        assert_int_equal(v->fpu_area[FTW], 0);
        if (narrow)
            RUN_OK(e, 3, 0x66, 0xDD, 0x23);
        else
            RUN_OK(e, 2, 0xDD, 0x23);
        assert_memory_equal(v->fpu_area + ST, registers, sizeof registers);
        assert_int_equal(area16(v, FCW), 0x0C7F);
        assert_int_equal(area16(v, FSW), 0x3A21);
    }
}

static void loads_wait_for_a_pending_exception_and_stores_do_not(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->regs[REG_BX] = BUFFER;
    fill(v, 3);
    set_area16(v, FCW, 0x0C7E);
    set_area16(v, FSW, 0xBA81);
    RUN_FAULTS(e, VEC_MF, -1, 0xD9, 0x23);
    RUN_FAULTS(e, VEC_MF, -1, 0xDD, 0x23);
    v->cr4 = CR4_OSFXSR;
    RUN_FAULTS(e, VEC_MF, -1, 0x0F, 0xF7, 0xC8);
    assert_int_equal(area16(v, FSW), 0xBA81);
    RUN_OK(e, 3, 0x0F, 0xAE, 0x03);
    RUN_OK(e, 2, 0xD9, 0x33);
    assert_int_equal(flatmem_get16(&e->w.m, BUFFER + 4), 0xBA81);
    /* An environment with an exception in it loads, and another one over it. */
    flatmem_put16(&e->w.m, BUFFER, 0x0C7E);
    RUN_OK(e, 2, 0xD9, 0x23);
    assert_int_equal(area16(v, FSW) & 0x80, 0x80);
}

static void em_and_ts_are_checked_first(void **state)
{
    static const struct {
        uint8_t bytes[3];
        int em, ts; /* vectors */
    } cases[] = {
        {{0xD9, 0x33}, VEC_NM, VEC_NM},       {{0xD9, 0x23}, VEC_NM, VEC_NM},
        {{0xDD, 0x33}, VEC_NM, VEC_NM},       {{0xDD, 0x23}, VEC_NM, VEC_NM},
        {{0x0F, 0xAE, 0x03}, VEC_NM, VEC_NM}, {{0x0F, 0xAE, 0x0B}, VEC_NM, VEC_NM},
        {{0x0F, 0xF7, 0xC8}, VEC_UD, VEC_NM},
    };
    struct emulator *e = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        const uint8_t *b = cases[i].bytes;
        struct vcpu *v = emulator_protected(e, 3);
        v->regs[REG_BX] = 0x80000001; /* would fault */
        v->cr4 = CR4_OSFXSR;
        v->cr0 |= CR0_EM;
        RUN_FAULTS(e, cases[i].em, -1, b[0], b[1], b[2]);
        v->cr0 ^= CR0_EM | CR0_TS;
        RUN_FAULTS(e, cases[i].ts, -1, b[0], b[1], b[2]);
        v->cr0 &= ~CR0_TS;
        v->cr4 = 0;
    }
    struct vcpu *v = emulator_protected(e, 3);
    RUN_FAULTS(e, VEC_UD, -1, 0x66, 0x0F, 0xF7, 0xC1); /* OSFXSR = 0 */
    v->cr4 = CR4_OSFXSR;
    v->regs[REG_DI] = 0x80000000;
    RUN_FAULTS(e, VEC_PF, 6, 0x66, 0x0F, 0xF7, 0xC1);
}

static void a_store_that_faults_changes_neither_memory_nor_fpu(void **state)
{
    static const struct {
        uint8_t bytes[3];
        unsigned size;
    } cases[] = {{{0xD9, 0x33}, 28}, {{0xDD, 0x33}, 108}, {{0x0F, 0xAE, 0x03}, 288}};
    struct emulator *e = *state;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct vcpu *v = emulator_protected(e, 3);
        v->regs[REG_BX] = BUFFER;
        fill(v, 3);
        flatmem_fault(&e->w.m, BUFFER + cases[i].size - 1, BUFFER + cases[i].size - 1,
                      FLATMEM_WRITE, true);
        RUN_FAULTS(e, VEC_PF, 7, cases[i].bytes[0], cases[i].bytes[1], cases[i].bytes[2]);
        assert_int_equal(flatmem_get32(&e->w.m, BUFFER), 0);
        assert_int_equal(area16(v, FCW), 0x0C7F);
        assert_int_equal(v->fpu_area[FTW], 0x7F);
    }
}

/* ---- FXSAVE, FXRSTOR ---- */

static void fxsave_writes_288_bytes_without_pointers(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->cr4 = CR4_OSFXSR;
    v->regs[REG_BX] = BUFFER;
    fill(v, 3);
    memset(flatmem_byte(&e->w.m, BUFFER), 0x55, 512);
    RUN_OK(e, 3, 0x0F, 0xAE, 0x03);
    assert_int_equal(flatmem_get16(&e->w.m, BUFFER), 0x0C7F);
    assert_int_equal(flatmem_get16(&e->w.m, BUFFER + 4), 0x7F);
    for (unsigned i = FOP; i < MXCSR; i++)
        assert_int_equal(*flatmem_byte(&e->w.m, BUFFER + i), 0);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + MXCSR), 0x5F82);
    assert_memory_equal(flatmem_byte(&e->w.m, BUFFER + ST), v->fpu_area + ST, 256);
    for (unsigned i = 288; i < 512; i++)
        assert_int_equal(*flatmem_byte(&e->w.m, BUFFER + i), 0x55);
    fpu_reset(v);
    RUN_OK(e, 3, 0x0F, 0xAE, 0x0B);
    assert_memory_equal(flatmem_byte(&e->w.m, BUFFER + ST), v->fpu_area + ST, 256);
    assert_int_equal(area16(v, FCW), 0x0C7F);
    assert_int_equal(area16(v, MXCSR), 0x5F82);
}

static void fxrstor_refuses_misalignment_and_reserved_mxcsr_bits(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->cr4 = CR4_OSFXSR;
    v->regs[REG_BX] = BUFFER + 8;
    fill(v, 3);
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0xAE, 0x03);
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0xAE, 0x0B);
    v->regs[REG_BX] = BUFFER;
    flatmem_put16(&e->w.m, BUFFER, 0x37F);
    flatmem_put32(&e->w.m, BUFFER + MXCSR, 0x10000);
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0xAE, 0x0B);
    assert_int_equal(area16(v, FCW), 0x0C7F);
    assert_int_equal(area16(v, MXCSR), 0x5F82);
    v->cr4 = 0; /* without OSFXSR it is not loaded, nor XMM */
    RUN_OK(e, 3, 0x0F, 0xAE, 0x0B);
    assert_int_equal(area16(v, FCW), 0x37F);
    assert_int_equal(area16(v, MXCSR), 0x5F82);
    assert_int_equal(v->fpu_area[XMM], 3);
}

static void maskmov_writes_the_selected_bytes(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = emulator_protected(e, 3);
    v->cr4 = CR4_OSFXSR;
    v->regs[REG_DI] = BUFFER;
    v->seg[SEG_FS].base = 0x1000;
    fill(v, 3);
    set_area16(v, FSW, 0); /* mm1 is st1 */
    for (unsigned i = 0; i < 16; i++) {
        v->fpu_area[ST + 16 + i % 8] = v->fpu_area[XMM + 16 + i] = (uint8_t)(0x10 + i);
        v->fpu_area[ST + i % 8] = v->fpu_area[XMM + i] = i & 1 ? 0xFF : 0x7F;
    }
    RUN_OK(e, 3, 0x0F, 0xF7, 0xC8);
    for (unsigned i = 0; i < 9; i++)
        assert_int_equal(*flatmem_byte(&e->w.m, BUFFER + i), i < 8 && i & 1 ? 0x18 + i : 0);
    RUN_OK(e, 5, 0x64, 0x66, 0x0F, 0xF7, 0xC8);
    for (unsigned i = 0; i < 17; i++)
        assert_int_equal(*flatmem_byte(&e->w.m, BUFFER + 0x1000 + i), i & 1 ? 0x10 + i : 0);
}

/* ---- XSAVE ---- */

/* A model with XSAVE, whatever the default one offers; false if the host has none. */
static bool offer_xsave(struct emulator *e)
{
    static const uint8_t offered[] = {F_XSAVE, F_XSAVEOPT, F_XSAVEC, F_XGETBV1};
    struct vcpu *v = emulator_protected(e, 0);
    if ((host_xcr0() & 7) != 7)
        return false;
    for (unsigned i = 0; i < ARRAY_LEN(offered); i++)
        e->model.features[offered[i] / 64] |= 1ull << offered[i] % 64;
    e->model.xcr0_mask = e->model.host_xsave = 7;
    v->cr4 = CR4_OSXSAVE | CR4_OSFXSR;
    v->xcr0 = 7;
    v->regs[REG_BX] = BUFFER;
    v->regs[REG_AX] = 0xFFFFFFFF;
    v->regs[REG_DX] = 0xFFFFFFFF;
    fill(v, 7);
    return true;
}

static void xcr0_takes_what_the_model_has(void **state)
{
    static const struct {
        uint64_t value;
        bool ok;
    } cases[] = {{7, true},  {3, true},  {1, true},     {5, false},
                 {2, false}, {0, false}, {0x207, false}};
    struct emulator *e = *state;
    struct vcpu *v = &e->w.v;
    if (!offer_xsave(e))
        skip();
    v->regs[REG_CX] = 0;
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        v->regs[REG_DX] = 0;
        v->regs[REG_AX] = cases[i].value;
        if (cases[i].ok)
            RUN_OK(e, 3, 0x0F, 0x01, 0xD1);
        else
            RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0x01, 0xD1);
    }
    RUN_OK(e, 3, 0x0F, 0x01, 0xD0);
    assert_int_equal(v->regs[REG_AX], 1);
    v->cr4 &= ~CR4_OSXSAVE;
    RUN_FAULTS(e, VEC_UD, -1, 0x0F, 0x01, 0xD0);
    RUN_FAULTS(e, VEC_UD, -1, 0x0F, 0x01, 0xD1);
    RUN_FAULTS(e, VEC_UD, -1, 0x0F, 0xAE, 0x23);
}

static void xsave_writes_the_requested_components_only(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = &e->w.v;
    if (!offer_xsave(e))
        skip();
    memset(flatmem_byte(&e->w.m, BUFFER), 0x55, IMAGE);
    flatmem_put32(&e->w.m, BUFFER + HEADER, 0x80000001);
    v->regs[REG_AX] = 6;
    RUN_OK(e, 3, 0x0F, 0xAE, 0x23);
    assert_int_equal(flatmem_get16(&e->w.m, BUFFER), 0x5555);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + MXCSR), 0x5F82);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + ST), 0x55555555);
    assert_memory_equal(flatmem_byte(&e->w.m, BUFFER + XMM), v->fpu_area + XMM, 128);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + 288), 0x55555555);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + HEADER), 0x80000007);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + HEADER + 8), 0x55555555);
    assert_memory_equal(flatmem_byte(&e->w.m, BUFFER + YMM), v->fpu_area + YMM, 128);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + 704), 0x55555555);
}

static void xrstor_loads_and_initializes(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = &e->w.v;
    if (!offer_xsave(e))
        skip();
    RUN_OK(e, 3, 0x0F, 0xAE, 0x23);
    fpu_reset(v);
    RUN_OK(e, 3, 0x0F, 0xAE, 0x2B);
    assert_memory_equal(v->fpu_area + ST, flatmem_byte(&e->w.m, BUFFER + ST), 256);
    assert_memory_equal(v->fpu_area + YMM, flatmem_byte(&e->w.m, BUFFER + YMM), 128);
    assert_int_equal(area16(v, FCW), 0x0C7F);
    /* x87 in its initial state, SSE kept, AVX not asked for */
    flatmem_put32(&e->w.m, BUFFER + HEADER, 2);
    v->regs[REG_AX] = 3;
    RUN_OK(e, 3, 0x0F, 0xAE, 0x2B);
    assert_int_equal(v->fpu_area[XMM + 1], 8);
    assert_int_equal(v->fpu_area[YMM + 1], 12);
    assert_true(!(v->fpu_area[HEADER] & 1) || area16(v, FCW) == 0x37F);
}

static void xrstor_checks_the_header(void **state)
{
    static const struct {
        unsigned offset;
        uint32_t value;
        bool ok;
    } cases[] = {
        {HEADER, 8, false},
        {HEADER + 4, 1, false},
        {HEADER + 8, 1, false},
        {HEADER + 16, 1, false},
        {HEADER + 60, 1, false},
        {MXCSR, 0x20000, false},
        {HEADER + 12, 1u << 31, false}, /* compacted, but XSTATE_BV has more than XCOMP_BV */
        {HEADER, 0, true},
    };
    struct emulator *e = *state;
    struct vcpu *v = &e->w.v;
    if (!offer_xsave(e))
        skip();
    RUN_OK(e, 3, 0x0F, 0xAE, 0x23);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t old = flatmem_get32(&e->w.m, BUFFER + cases[i].offset);
        flatmem_put32(&e->w.m, BUFFER + cases[i].offset, cases[i].value);
        if (cases[i].ok)
            RUN_OK(e, 3, 0x0F, 0xAE, 0x2B);
        else
            RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0xAE, 0x2B);
        if (!cases[i].ok)
            assert_int_equal(area16(v, FCW), 0x0C7F);
        flatmem_put32(&e->w.m, BUFFER + cases[i].offset, old);
    }
    v->regs[REG_BX] = BUFFER + 16;
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0xAE, 0x2B);
    RUN_FAULTS(e, VEC_GP, 0, 0x0F, 0xAE, 0x23);
}

static void xsavec_compacts_and_leaves_out_what_is_initial(void **state)
{
    struct emulator *e = *state;
    struct vcpu *v = &e->w.v;
    if (!offer_xsave(e))
        skip();
    v->fpu_area[HEADER] = 3; /* AVX in its initial state */
    memset(flatmem_byte(&e->w.m, BUFFER), 0x55, IMAGE);
    RUN_OK(e, 3, 0x0F, 0xC7, 0x23);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + HEADER), 3);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + HEADER + 8), 7);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + HEADER + 12), 1u << 31);
    assert_int_equal(flatmem_get32(&e->w.m, BUFFER + YMM), 0x55555555);
    memset(flatmem_byte(&e->w.m, BUFFER + HEADER + 16), 0, 48);
    fpu_reset(v);
    RUN_OK(e, 3, 0x0F, 0xAE, 0x2B);
    assert_int_equal(v->fpu_area[XMM + 1], 8);
    assert_int_equal(area16(v, FCW), 0x0C7F);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(parking_keeps_the_guests_state_and_gives_c_a_clean_one),
        TEST(parking_keeps_avx_where_the_guest_has_it),
        TEST(parking_is_idempotent),
        TEST(a_pending_exception_survives_parking_without_being_raised),
        TEST(reset_leaves_zeros_in_the_registers),
        TEST(environments_have_both_sizes_and_no_host_pointers),
        TEST(fnsave_and_frstor_are_inverse_in_both_sizes),
        TEST(loads_wait_for_a_pending_exception_and_stores_do_not),
        TEST(em_and_ts_are_checked_first),
        TEST(a_store_that_faults_changes_neither_memory_nor_fpu),
        TEST(fxsave_writes_288_bytes_without_pointers),
        TEST(fxrstor_refuses_misalignment_and_reserved_mxcsr_bits),
        TEST(maskmov_writes_the_selected_bytes),
        TEST(xcr0_takes_what_the_model_has),
        TEST(xsave_writes_the_requested_components_only),
        TEST(xrstor_loads_and_initializes),
        TEST(xrstor_checks_the_header),
        TEST(xsavec_compacts_and_leaves_out_what_is_initial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
