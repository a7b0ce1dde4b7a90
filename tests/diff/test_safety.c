/*
 * What a hostile guest must not be able to do: reach host memory outside its window, have the host
 * execute an encoding that was never allowed, or let its own DF, MXCSR or x87 state reach the C of
 * devices.
 *
 * Accesses are made with addresses that leave the window unless the engine cuts them to 32 bits.
 * Canaries stand in the guard halves around the window, where nothing else may be, and must
 * survive; what the guest reads must be its own memory or a page fault at the address that a bare
 * machine gives.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/fpu.h"
#include "guest.h"

enum { CODE_AT = 0x100, MMIO_GPA = 0x800000, TOP_GPA = 0x3F0000, ZERO_GPA = 0x3F1000 };
#define CODE     (CODE_GVA + CODE_AT)
#define DATA     0x30000000u
#define MMIO_GVA 0x60000000u

struct seen {
    unsigned calls;
    bool direction, alignment;
    uint32_t mxcsr;
    uint16_t control, status, tag;
};

struct fixture {
    struct cpu_model model;
    struct memory memory;
    struct guest guest;
    struct vcpu_ops ops;
    struct seen seen; /* by C that the guest calls */
};

/* ---- what C sees ---- */

static void look(struct fixture *f)
{
    struct seen *s = &f->seen;
    uint64_t flags;
    uint32_t mxcsr;
    struct {
        uint32_t word[7];
    } env;
    __asm__ volatile("pushfq; pop %0" : "=r"(flags));
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    __asm__ volatile("fnstenv %0; fldenv %0" : "+m"(env));
    s->calls++;
    s->direction |= flags >> 10 & 1;
    s->alignment |= flags >> 18 & 1;
    if ((mxcsr & ~0x3Fu) != 0x1F80) /* C may have set the sticky flags itself */
        s->mxcsr = mxcsr;
    if ((env.word[0] & 0xFFFF) != 0x37F)
        s->control = (uint16_t)env.word[0];
    if (env.word[1] & 0xFFFF)
        s->status = (uint16_t)env.word[1];
    if ((env.word[2] & 0xFFFF) != 0xFFFF)
        s->tag = (uint16_t)~env.word[2];
}

static uint32_t io_read(void *opaque, uint16_t port, unsigned size)
{
    (void)port;
    (void)size;
    look(opaque);
    return 0x5A5A5A5A;
}

static void io_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    (void)port;
    (void)size;
    (void)value;
    look(opaque);
}

static uint32_t mmio_read(void *opaque, uint32_t gpa, unsigned size)
{
    (void)gpa;
    (void)size;
    look(opaque);
    return 0xA5A5A5A5;
}

static void mmio_write(void *opaque, uint32_t gpa, unsigned size, uint32_t value)
{
    (void)gpa;
    (void)size;
    (void)value;
    look(opaque);
}

static int irq_ack(void *opaque)
{
    (void)opaque;
    return -1;
}

static void poll(void *opaque)
{
    look(opaque);
}

/* ---- set-up ---- */

/* The engine installs its handlers once a process, and cmocka its own before each test. */
static struct sigaction engine_actions[5];

static void engine_signals(bool save)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (unsigned i = 0; i < ARRAY_LEN(signals); i++)
        sigaction(signals[i], save ? NULL : &engine_actions[i], save ? &engine_actions[i] : NULL);
}

static struct fixture *make(const uint8_t *hidden, unsigned hidden_count)
{
    struct fixture *f = calloc(1, sizeof *f);
    static const struct dbt_options options;
    assert_non_null(f);
    cpuid_init(&f->model);
    for (unsigned i = 0; i < hidden_count; i++)
        f->model.features[hidden[i] / 64] &= ~(1ull << hidden[i] % 64);
    assert_true(memory_init(&f->memory, NULL, 1));
    assert_true(guest_init(&f->guest, &f->model, &f->memory, &options));
    f->ops = (struct vcpu_ops){
        .io_read = io_read, .io_write = io_write, .irq_ack = irq_ack, .poll = poll};
    f->guest.v->ops = &f->ops;
    f->guest.v->ops_opaque = f;
    struct mmu_io io = {.read = mmio_read, .write = mmio_write, .opaque = f};
    mmu_set_io(f->guest.mmu, &io);
    guest_map(&f->guest, 0xFFFFF000, TOP_GPA);
    guest_map(&f->guest, 0, ZERO_GPA);
    guest_map(&f->guest, MMIO_GVA, MMIO_GPA);
    return f;
}

static int setup(void **state)
{
    *state = make(NULL, 0);
    return 0;
}

static int setup_poor(void **state)
{
    static const uint8_t hidden[] = {F_ABM,    F_BMI1,  F_POPCNT,    F_RDRAND, F_RDSEED,
                                     F_RDTSCP, F_MOVBE, F_SSE4_1,    F_AES,    F_ADX,
                                     F_SHA,    F_SSSE3, F_PCLMULQDQ, F_SSE4_2};
    *state = make(hidden, ARRAY_LEN(hidden));
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    guest_fini(&f->guest);
    memory_fini(&f->memory);
    free(f);
    return 0;
}

static struct cpu_state start(void)
{
    struct cpu_state s;
    memset(&s, 0, sizeof s);
    s.eip = CODE;
    s.eflags = 0x202;
    s.gpr[REG_SP] = 0xBFFF2000;
    s.sel[SEG_CS] = SEL_CS;
    s.sel[SEG_DS] = s.sel[SEG_ES] = s.sel[SEG_SS] = s.sel[SEG_FS] = SEL_DS;
    s.sel[SEG_GS] = SEL_BASED;
    put_u16(s.fpu, 0x37F);
    put_u32(s.fpu + 24, 0x1F80);
    s.fpu[XSAVE_HEADER] = 3;
    return s;
}

/* Runs `code` until it faults or is through, in each of the two modes that hostile code runs in. */
static void run(struct fixture *f, enum variant variant, const void *code, unsigned len,
                const struct cpu_state *from, struct outcome *out)
{
    uint8_t bytes[64];
    assert_true(len < sizeof bytes);
    memset(bytes, variant == VARIANT_KERNEL ? 0xF4 : END_MARKER, sizeof bytes);
    memcpy(bytes, code, len);
    if (f->guest.variant != variant)
        guest_set_variant(&f->guest, variant);
    guest_write(&f->guest, CODE, bytes, sizeof bytes);
    engine_signals(false);
    assert_true(guest_run(&f->guest, from, out));
}

static const enum variant modes[] = {VARIANT_USER, VARIANT_KERNEL};

/* ---- the window ---- */

struct canary {
    uint8_t *at;
    uint8_t byte;
};

enum { STRIDE_SHIFT = 33 };

/* Places in the guards before and behind the window; not the page right behind it, which an access
   of several bytes at its last address may touch and find unmapped. */
static unsigned place_canaries(uint64_t base, struct canary *c)
{
    static const int64_t at[] = {
        -0x1000,     -0x2000,     -0x10000000, -0x10001000, 0x100001000, 0x10FFFF000,
        0x110000000, 0x10FFFE000, 0x17FFFF000, 0x180000000, 0x1FFFFF000,
    };
    unsigned n = 0;
    for (unsigned i = 0; i < ARRAY_LEN(at); i++) {
        uint8_t *p = (uint8_t *)(base + (uint64_t)at[i]);
        void *got = mmap(p, PAGE_SIZE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        assert_ptr_equal(got, p); /* nothing else may be there */
        memset(p, 0xC0 + (int)i, PAGE_SIZE);
        c[n++] = (struct canary){p, (uint8_t)(0xC0 + i)};
    }
    return n;
}

static void check_canaries(const struct canary *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        for (unsigned k = 0; k < PAGE_SIZE; k++)
            assert_int_equal(c[i].at[k], c[i].byte);
    }
}

static void remove_canaries(const struct canary *c, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        munmap(c[i].at, PAGE_SIZE);
}

struct access {
    const char *name;
    uint8_t code[12];
    unsigned len;
    uint32_t eax, ecx, ebx, esi, edi;
    uint32_t cr2; /* where the page fault is due; 0: none, the access is within the guest's pages */
};

static const struct access accesses[] = {
    {"bts up", {0x0F, 0xAB, 0x08}, 3, 0xFFFFF000, 0x7FFFFFFF, 0, 0, 0, 0x0FFFEFFC},
    {"bts down", {0x0F, 0xAB, 0x08}, 3, 0x1000, 0x80000000, 0, 0, 0, 0xF0001000},
    {"lock btc", {0xF0, 0x0F, 0xBB, 0x08}, 4, 0x800, 0x80000000, 0, 0, 0, 0xF0000800},
    {"btr up", {0x0F, 0xB3, 0x08}, 3, 0xFFFFFFFC, 0x7FFFFFFF, 0, 0, 0, 0x0FFFFFF8},
    {"bt up", {0x0F, 0xA3, 0x08}, 3, 0xFFFFFFFC, 0x7FFFFFFF, 0, 0, 0, 0x0FFFFFF8},
    {"bt down", {0x0F, 0xA3, 0x08}, 3, 0, 0x80000000, 0, 0, 0, 0xF0000000},
    {"btsw", {0x66, 0x0F, 0xAB, 0x08}, 4, 0x300, 0x8000, 0, 0, 0, 0xFFFFF300 & 0},
    {"scaled", {0x89, 0x84, 0xCB, 0, 0, 0, 0x80}, 7, 0, 0x70000000, 0xFFFF0000, 0, 0, 0xFFFF0000},
    {"scaled up",
     {0x89, 0x84, 0xCB, 0xFF, 0xFF, 0xFF, 0x7F},
     7,
     0,
     0xFFFFFFFF,
     0x7FFFF000,
     0,
     0,
     0xFFFFEFF7},
    {"negative", {0x89, 0x83, 0, 0, 0, 0x80}, 6, 0, 0, 0x1000, 0, 0, 0x80001000},
    {"moffs", {0xA3, 0xF0, 0xEF, 0xFF, 0xFF}, 5, 0, 0, 0, 0, 0, 0xFFFFEFF0},
    {"xlat", {0xD7}, 1, 0xFF, 0, 0xFFFFFFFF, 0, 0, 0},
    {"xlat far", {0xD7}, 1, 0xFF, 0, 0x8FFFFFFF, 0, 0, 0x900000FE},
    {"maskmovq", {0x0F, 0xF7, 0xC0}, 3, 0, 0, 0, 0, 0xFFFFEFF0, 0xFFFFEFF0},
    {"maskmovdqu", {0x66, 0x0F, 0xF7, 0xC0}, 4, 0, 0, 0, 0, 0x70000008, 0x70000008},
    {"jmp", {0xFF, 0xE0}, 2, 0xFFFFEF00, 0, 0, 0, 0, 0xFFFFEF00},
    {"call", {0xFF, 0xD0}, 2, 0x7FFFFFFF, 0, 0, 0, 0, 0x7FFFFFFF},
};

static void put_mask(struct cpu_state *s)
{
    memset(s->fpu + 32, 0xFF, 10);  /* mm0 */
    memset(s->fpu + 160, 0xFF, 16); /* xmm0 */
}

static void test_no_address_leaves_the_window(void **state)
{
    struct fixture *f = *state;
    struct canary canaries[16];
    struct outcome out;
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
        struct cpu_state s = start();
        run(f, modes[m], "\x90", 1, &s, &out);
        f->guest.v->cpl = modes[m] == VARIANT_USER ? 3 : 0;
        uint64_t base = window_base(mmu_window(f->guest.v));
        assert_int_equal(base & 0xFFFFFFFF, 0);
        unsigned n = place_canaries(base, canaries);
        for (unsigned i = 0; i < ARRAY_LEN(accesses); i++) {
            const struct access *a = &accesses[i];
            s = start();
            put_mask(&s);
            s.gpr[REG_AX] = a->eax;
            s.gpr[REG_CX] = a->ecx;
            s.gpr[REG_BX] = a->ebx;
            s.gpr[REG_SI] = a->esi;
            s.gpr[REG_DI] = a->edi;
            for (unsigned again = 0; again < 3; again++) {
                run(f, modes[m], a->code, a->len, &s, &out);
                if (a->cr2 ? out.vector != VEC_PF || out.cr2 != a->cr2 : out.vector != VEC_BP)
                    fail_msg("%s: vector %u at %08x, cr2 %08x", a->name, out.vector, out.state.eip,
                             out.cr2);
            }
        }
        check_canaries(canaries, n);
        remove_canaries(canaries, n);
    }
}

static void test_gathers_stay_in_the_window(void **state)
{
    static const struct {
        uint8_t code[6];
        uint32_t base, index, cr2;
    } gathers[] = {
        {{0xC4, 0xE2, 0x69, 0x90, 0x04, 0xC8}, 0xFFFFEFFC, 0x10000000, 0x7FFFEFFC}, /* dd, *8 */
        {{0xC4, 0xE2, 0x69, 0x90, 0x04, 0xC8}, 0x1000, 0x90000000, 0x80001000},
        {{0xC4, 0xE2, 0x69, 0x90, 0x04, 0x08}, 0xFFFFF000, 0x7FFFFFFF, 0x7FFFEFFF}, /* dd, *1 */
        {{0xC4, 0xE2, 0xE9, 0x90, 0x04, 0x08}, 0xFFFFF000, 0x7FFFFFFF, 0x7FFFEFFF}, /* dq, *1 */
    };
    struct fixture *f = *state;
    if (!cpuid_has(&f->model, F_AVX2))
        skip();
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
        for (unsigned i = 0; i < ARRAY_LEN(gathers); i++) {
            struct outcome out;
            struct cpu_state s = start();
            s.gpr[REG_AX] = gathers[i].base;
            for (unsigned k = 0; k < 16; k += 4) {
                put_u32(s.fpu + 176 + k, gathers[i].index); /* xmm1 */
                put_u32(s.fpu + 192 + k, 0x80000000);       /* xmm2 */
            }
            run(f, modes[m], gathers[i].code, 6, &s, &out);
            if (out.vector != VEC_PF || out.cr2 != gathers[i].cr2)
                fail_msg("gather %u: vector %u, cr2 %08x", i, out.vector, out.cr2);
        }
    }
}

static void test_strings_wrap_at_4_gib(void **state)
{
    static const struct {
        const char *name;
        uint8_t code[4];
        unsigned len;
        bool down;
        unsigned element;
    } strings[] = {
        {"stosb", {0xF3, 0xAA}, 2, false, 1},     {"stosd", {0xF3, 0xAB}, 2, false, 4},
        {"stosb down", {0xF3, 0xAA}, 2, true, 1}, {"stosd down", {0xF3, 0xAB}, 2, true, 4},
        {"movsb", {0xF3, 0xA4}, 2, false, 1},     {"movsw", {0xF3, 0x66, 0xA5}, 3, false, 2},
        {"movsd down", {0xF3, 0xA5}, 2, true, 4},
    };
    struct fixture *f = *state;
    const uint8_t *ram = mmu_ram(f->guest.mmu);
    uint8_t zero[PAGE_SIZE] = {0};
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
        for (unsigned i = 0; i < ARRAY_LEN(strings); i++) {
            unsigned e = strings[i].element, count = 64 / e;
            struct outcome out;
            struct cpu_state s = start();
            mmu_phys_write(f->guest.mmu, TOP_GPA, zero, PAGE_SIZE);
            mmu_phys_write(f->guest.mmu, ZERO_GPA, zero, PAGE_SIZE);
            uint8_t pattern[64];
            memset(pattern, 0x77, sizeof pattern);
            mmu_phys_write(f->guest.mmu, layout_regions[REGION_DATA].gpa, pattern, 64);
            s.gpr[REG_AX] = 0x77777777;
            s.gpr[REG_CX] = count;
            s.gpr[REG_DI] = strings[i].down ? 32 - e : 0xFFFFFFE0;
            s.gpr[REG_SI] = DATA + (strings[i].down ? 64 - e : 0);
            s.eflags |= strings[i].down ? FLAG_DF : 0;
            run(f, modes[m], strings[i].code, strings[i].len, &s, &out);
            if (out.vector != VEC_BP || out.state.gpr[REG_CX] != 0)
                fail_msg("%s: vector %u, cr2 %08x, %u left", strings[i].name, out.vector, out.cr2,
                         out.state.gpr[REG_CX]);
            assert_int_equal(out.state.gpr[REG_DI], strings[i].down ? 0xFFFFFFE0 - e : 32);
            assert_memory_equal(ram + TOP_GPA + PAGE_SIZE - 32, pattern, 32);
            assert_memory_equal(ram + ZERO_GPA, pattern, 32);
            assert_memory_equal(ram + TOP_GPA, zero, PAGE_SIZE - 32);
            assert_memory_equal(ram + ZERO_GPA + 32, zero, PAGE_SIZE - 32);
        }
    }
}

static void test_operands_that_cross_4_gib_stay_in_the_guest(void **state)
{
    static const struct {
        uint8_t code[8];
        unsigned len;
    } crossing[] = {
        {{0x89, 0x07}, 2},             /* mov [edi], eax */
        {{0x66, 0x89, 0x07}, 3},       /* mov [edi], ax */
        {{0x0F, 0x11, 0x07}, 3},       /* movups [edi], xmm0 */
        {{0xDD, 0x37}, 2},             /* fnsave [edi] */
        {{0xF0, 0x01, 0x07}, 3},       /* lock add [edi], eax */
        {{0x0F, 0xAB, 0x07}, 3},       /* bts [edi], eax */
        {{0x66, 0x0F, 0xF7, 0xC0}, 4}, /* maskmovdqu */
        {{0xDB, 0x3F}, 2},             /* fstp tword [edi] */
    };
    struct fixture *f = *state;
    struct outcome out;
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
        for (unsigned i = 0; i < ARRAY_LEN(crossing); i++) {
            struct cpu_state s = start();
            put_mask(&s);
            s.gpr[REG_DI] = 0xFFFFFFFF;
            run(f, modes[m], crossing[i].code, crossing[i].len, &s, &out);
            /* SDM 3A 5.3: whether such an access faults depends on the CPU. */
            if (out.vector != VEC_BP && out.vector != VEC_GP && out.vector != VEC_PF)
                fail_msg("%02x %02x: vector %u", crossing[i].code[0], crossing[i].code[1],
                         out.vector);
        }
    }
}

/* The device and inode of the mapping at `host`, as /proc/self/maps writes them. */
static bool mapping_of(uint64_t host, char id[64])
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    bool found = false;
    while (maps && !found && fgets(line, sizeof line, maps)) {
        uint64_t from, to;
        char rights[8], offset[32], device[16], inode[24];
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %31s %15s %23s", &from, &to, rights, offset,
                   device, inode) == 6 &&
            from <= host && host < to) {
            snprintf(id, 64, "%s %s", device, inode);
            found = true;
        }
    }
    if (maps)
        fclose(maps);
    return found;
}

static void test_only_guest_ram_is_mapped_in_a_stride(void **state)
{
    struct fixture *f = *state;
    struct outcome out;
    struct cpu_state s = start();
    char ram[64] = "", line[512];
    unsigned inside = 0;
    assert_true(mapping_of((uint64_t)mmu_ram(f->guest.mmu), ram));
    for (unsigned m = 0; m < VARIANT_COUNT; m++) {
        run(f, (enum variant)m, "\xA1\0\0\0\x30\xA3\0\x10\0\x30\x50\x58", 12, &s, &out);
        assert_int_equal(out.vector, VEC_BP);
        /* Memory that C takes while windows exist must not come to lie in them. */
        for (unsigned i = 0; i < 64; i++) {
            void *p = malloc(1 << 20);
            assert_non_null(p);
            memset(p, 1, 1 << 20);
            free(p);
        }
        f->guest.v->cpl = m == VARIANT_USER || m == VARIANT_PAE ? 3 : m == VARIANT_KERNEL ? 0 : 1;
        uint64_t base = window_base(mmu_window(f->guest.v));
        assert_true(base >= 0x300000000000 && base < 0x500000000000);
        FILE *maps = fopen("/proc/self/maps", "r");
        assert_non_null(maps);
        while (fgets(line, sizeof line, maps)) {
            uint64_t from, to;
            char rights[8], offset[32], device[16], inode[24], id[64];
            if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %31s %15s %23s", &from, &to, rights,
                       offset, device, inode) != 6 ||
                to <= base || from >= base + (1ull << STRIDE_SHIFT))
                continue;
            snprintf(id, sizeof id, "%s %s", device, inode);
            if (from < base || to > base + (1ull << 32) || strcmp(id, ram) || rights[2] == 'x')
                fail_msg("in the stride of window %" PRIx64 ": %s", base, line);
            inside++;
        }
        fclose(maps);
    }
    assert_true(inside > 0);
}

/* ---- encodings ---- */

struct encoding {
    const char *name;
    uint8_t code[10];
    unsigned len;
};

static const struct encoding undefined[] = {
    {"syscall", {0x0F, 0x05}, 2},
    {"sysret", {0x0F, 0x07}, 2},
    {"wrpkru", {0x0F, 0x01, 0xEF}, 3},
    {"rdpkru", {0x0F, 0x01, 0xEE}, 3},
    {"rdfsbase", {0xF3, 0x0F, 0xAE, 0xC0}, 4},
    {"rdgsbase", {0xF3, 0x0F, 0xAE, 0xC8}, 4},
    {"wrfsbase", {0xF3, 0x0F, 0xAE, 0xD0}, 4},
    {"wrgsbase", {0xF3, 0x0F, 0xAE, 0xD8}, 4},
    {"movdir64b", {0x66, 0x0F, 0x38, 0xF8, 0x00}, 5},
    {"enqcmd", {0xF2, 0x0F, 0x38, 0xF8, 0x00}, 5},
    {"xsaves", {0x0F, 0xC7, 0x28}, 3},
    {"xrstors", {0x0F, 0xC7, 0x18}, 3},
    {"vmcall", {0x0F, 0x01, 0xC1}, 3},
    {"vmmcall", {0x0F, 0x01, 0xD9}, 3},
    {"vmfunc", {0x0F, 0x01, 0xD4}, 3},
    {"getsec", {0x0F, 0x37}, 2},
    {"enclu", {0x0F, 0x01, 0xD7}, 3},
    {"rdpid", {0xF3, 0x0F, 0xC7, 0xF8}, 4},
    {"clui", {0xF3, 0x0F, 0x01, 0xEE}, 4},
    {"senduipi", {0xF3, 0x0F, 0xC7, 0xF0}, 4},
    {"setssbsy", {0xF3, 0x0F, 0x01, 0xE8}, 4},
    {"incssp", {0xF3, 0x0F, 0xAE, 0xE8}, 4},
    {"umonitor", {0xF3, 0x0F, 0xAE, 0xF0}, 4},
    {"tpause", {0x66, 0x0F, 0xAE, 0xF0}, 4},
    {"ptwrite", {0xF3, 0x0F, 0xAE, 0xE0}, 4},
    {"xbegin", {0xC7, 0xF8, 0, 0, 0, 0}, 6},
    {"xabort", {0xC6, 0xF8, 0}, 3},
    {"evex vaddps", {0x62, 0xF1, 0x7C, 0x48, 0x58, 0xC1}, 6},
    {"evex vmovups", {0x62, 0xF1, 0x7C, 0x48, 0x10, 0xC0}, 6},
    {"xop", {0x8F, 0xE9, 0x78, 0x80, 0xC0}, 5},
    {"3dnow", {0x0F, 0x0F, 0xC0, 0x9E}, 4},
    {"tileloadd", {0xC4, 0xE2, 0x7B, 0x4B, 0x04, 0x20}, 6},
    {"tilerelease", {0xC4, 0xE2, 0x78, 0x49, 0xC0}, 5},
    {"kmovw", {0xC5, 0xF8, 0x92, 0xC0}, 4},
    {"lock nop", {0xF0, 0x90}, 2},
    {"lock mov", {0xF0, 0x89, 0x00}, 3},
    {"lock add reg", {0xF0, 0x01, 0xC0}, 3},
    {"ud0", {0x0F, 0xFF, 0xC0}, 3},
    {"ud1", {0x0F, 0xB9, 0xC0}, 3},
    {"ud2", {0x0F, 0x0B}, 2},
    {"lea reg", {0x8D, 0xC0}, 2},
    {"mov cs", {0x8E, 0xC8}, 2},
    {"les reg", {0x0F, 0xB4, 0xC0}, 3},
    {"0f 04", {0x0F, 0x04}, 2},
    {"0f 24", {0x0F, 0x24, 0xC0}, 3},
    {"0f a6", {0x0F, 0xA6, 0xC0}, 3},
    {"0f 38 ff", {0x0F, 0x38, 0xFF, 0xC0}, 4},
    {"0f 3a ff", {0x0F, 0x3A, 0xFF, 0xC0, 0}, 5},
};

/* Undefined where XSAVE is hidden. */
static const struct encoding extended[] = {
    {"xsave", {0x0F, 0xAE, 0x20}, 3},    {"xrstor", {0x0F, 0xAE, 0x28}, 3},
    {"xsaveopt", {0x0F, 0xAE, 0x30}, 3}, {"xsavec", {0x0F, 0xC7, 0x20}, 3},
    {"xgetbv", {0x0F, 0x01, 0xD0}, 3},
};

static void expect_ud(struct fixture *f, const struct encoding *e, unsigned n)
{
    struct outcome out;
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
        for (unsigned i = 0; i < n; i++) {
            struct cpu_state s = start();
            s.gpr[REG_AX] = 60; /* what SYSCALL would do: exit */
            s.gpr[REG_DI] = 77;
            run(f, modes[m], e[i].code, e[i].len, &s, &out);
            if (out.vector != VEC_UD || out.state.eip != CODE ||
                memcmp(out.state.gpr, s.gpr, sizeof s.gpr))
                fail_msg("%s at CPL %d: vector %u, eip %08x", e[i].name,
                         modes[m] == VARIANT_USER ? 3 : 0, out.vector, out.state.eip);
        }
    }
}

static void test_what_is_not_on_the_list_is_undefined(void **state)
{
    struct fixture *f = *state;
    expect_ud(f, undefined, ARRAY_LEN(undefined));
    if (!cpuid_has(&f->model, F_XSAVE))
        expect_ud(f, extended, ARRAY_LEN(extended));
}

static void test_vex_is_undefined_where_avx_is_hidden(void **state)
{
    static const struct encoding vex[] = {
        {"vzeroupper", {0xC5, 0xF8, 0x77}, 3},
        {"vaddps", {0xC5, 0xF0, 0x58, 0xC1}, 4},
        {"vpgatherdd", {0xC4, 0xE2, 0x69, 0x90, 0x04, 0x08}, 6},
        {"andn", {0xC4, 0xE2, 0x70, 0xF2, 0xC1}, 5},
    };
    struct fixture *f = *state;
    if (cpuid_has(&f->model, F_AVX))
        skip();
    expect_ud(f, vex, ARRAY_LEN(vex));
}

static void test_hidden_features_are_undefined_or_keep_their_older_meaning(void **state)
{
    static const struct encoding hidden[] = {
        {"popcnt", {0xF3, 0x0F, 0xB8, 0xC1}, 4},
        {"rdrand", {0x0F, 0xC7, 0xF0}, 3},
        {"rdseed", {0x0F, 0xC7, 0xF8}, 3},
        {"rdtscp", {0x0F, 0x01, 0xF9}, 3},
        {"movbe", {0x0F, 0x38, 0xF0, 0x00}, 4},
        {"pminsb", {0x66, 0x0F, 0x38, 0x38, 0xC1}, 5},
        {"ptest", {0x66, 0x0F, 0x38, 0x17, 0xC1}, 5},
        {"aesenc", {0x66, 0x0F, 0x38, 0xDC, 0xC1}, 5},
        {"adcx", {0x66, 0x0F, 0x38, 0xF6, 0xC1}, 5},
        {"sha1msg1", {0x0F, 0x38, 0xC9, 0xC1}, 4},
        {"pshufb", {0x0F, 0x38, 0x00, 0xC1}, 4},
        {"pclmulqdq", {0x66, 0x0F, 0x3A, 0x44, 0xC1, 0}, 6},
        {"crc32", {0xF2, 0x0F, 0x38, 0xF0, 0xC1}, 5},
    };
    struct fixture *f = *state;
    expect_ud(f, hidden, ARRAY_LEN(hidden));
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
        struct outcome out;
        struct cpu_state s = start();
        s.gpr[REG_CX] = 0x00010100;
        run(f, modes[m], "\xF3\x0F\xBD\xC1", 4, &s, &out); /* lzcnt eax, ecx */
        assert_int_equal(out.vector, VEC_BP);
        assert_int_equal(out.state.gpr[REG_AX], 16); /* BSR; LZCNT gives 15 */
        s.gpr[REG_CX] = 0;
        s.gpr[REG_AX] = 0x1234;
        run(f, modes[m], "\xF3\x0F\xBC\xC1", 4, &s, &out); /* tzcnt eax, ecx */
        assert_int_equal(out.state.gpr[REG_AX], 0x1234);   /* BSF; TZCNT gives 32 */
        assert_true(out.state.eflags & FLAG_ZF);
    }
}

/* ---- the state that C runs with ---- */

/* DF = 1, MXCSR without masks and with another rounding, x87 full and with another control word. */
static struct cpu_state hostile(void)
{
    struct cpu_state s = start();
    s.eflags |= FLAG_DF;
    put_u16(s.fpu, 0x0C40);
    put_u16(s.fpu + 2, 0x2800);
    s.fpu[4] = 0xFF;
    put_u32(s.fpu + 24, 0xE055);
    memset(s.fpu + 32, 0x5A, 128);
    memset(s.fpu + 160, 0xA5, 128);
    s.gpr[REG_DX] = 0x1234;
    return s;
}

static void check_seen(struct fixture *f, const char *name, unsigned calls)
{
    const struct seen *s = &f->seen;
    if (s->calls != calls || s->direction || s->alignment || s->mxcsr || s->control || s->status ||
        s->tag)
        fail_msg("%s: %u calls, DF %d, AC %d, MXCSR %x, FCW %x, FSW %x, tags %x", name, s->calls,
                 s->direction, s->alignment, s->mxcsr, s->control, s->status, s->tag);
    memset(&f->seen, 0, sizeof f->seen);
}

static void check_kept(const char *name, const struct cpu_state *from, const struct outcome *out)
{
    if (out->vector != VEC_BP || !(out->state.eflags & FLAG_DF) ||
        memcmp(out->state.fpu, from->fpu, 6) || memcmp(out->state.fpu + 24, from->fpu + 24, 4))
        fail_msg("%s: vector %u, eflags %08x, fcw %04x, mxcsr %08x", name, out->vector,
                 out->state.eflags, get_u16(out->state.fpu), get_u32(out->state.fpu + 24));
    for (unsigned i = 0; i < 8; i++) {
        assert_memory_equal(out->state.fpu + 32 + 16 * i, from->fpu + 32 + 16 * i, 10);
        assert_memory_equal(out->state.fpu + 160 + 16 * i, from->fpu + 160 + 16 * i, 16);
    }
}

static void test_devices_never_see_the_guests_df_mxcsr_or_x87(void **state)
{
    static const struct {
        const char *name;
        uint8_t code[8];
        unsigned len, calls;
    } callouts[] = {
        {"in al, dx", {0xEC}, 1, 1},
        {"in eax, imm", {0xE5, 0x80}, 2, 1},
        {"out dx, al", {0xEE}, 1, 1},
        {"out dx, ax", {0x66, 0xEF}, 2, 1},
        {"insb", {0x6C}, 1, 1},
        {"rep insd", {0xF3, 0x6D}, 2, 4},
        {"outsb", {0x6E}, 1, 1},
        {"rep outsw", {0xF3, 0x66, 0x6F}, 3, 4},
        {"mmio read", {0x8B, 0x03}, 2, 1},
        {"mmio write", {0x89, 0x03}, 2, 1},
        {"mmio xchg", {0x87, 0x03}, 2, 2},
        {"mmio add", {0x01, 0x03}, 2, 2},
        {"mmio push", {0xFF, 0x33}, 2, 1},
        {"mmio stosb", {0x87, 0xDF, 0xAA}, 3, 1},
        {"mmio movsd", {0x87, 0xDE, 0xA5}, 3, 1},
    };
    struct fixture *f = *state;
    for (unsigned i = 0; i < ARRAY_LEN(callouts); i++) {
        for (unsigned again = 0; again < 4; again++) {
            struct cpu_state s = hostile();
            struct outcome out;
            s.gpr[REG_CX] = 4;
            s.gpr[REG_BX] = MMIO_GVA + 0x10;
            s.gpr[REG_SI] = s.gpr[REG_DI] = DATA + 0x100;
            memset(&f->seen, 0, sizeof f->seen);
            run(f, VARIANT_KERNEL, callouts[i].code, callouts[i].len, &s, &out);
            check_kept(callouts[i].name, &s, &out);
            check_seen(f, callouts[i].name, callouts[i].calls);
        }
    }
}

static void test_poll_never_sees_the_guests_df_mxcsr_or_x87(void **state)
{
    struct fixture *f = *state;
    for (unsigned again = 0; again < 4; again++) {
        struct cpu_state s = hostile();
        struct outcome out;
        memset(&f->seen, 0, sizeof f->seen);
        s.gpr[REG_CX] = 1000;
        f->guest.v->kicked = true;
        run(f, VARIANT_KERNEL, "\x90\xE2\xFD", 3, &s, &out); /* 1: nop; loop 1b */
        check_kept("poll", &s, &out);
        assert_true(f->seen.calls >= 1);
        check_seen(f, "poll", f->seen.calls);
    }
}

static void test_dbt_run_comes_back_with_a_clean_fpu(void **state)
{
    struct fixture *f = *state;
    struct cpu_state s = hostile();
    struct outcome out;
    run(f, VARIANT_USER, "\x90", 1, &s, &out);
    memset(&f->seen, 0, sizeof f->seen);
    look(f);
    check_seen(f, "after dbt_run", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_address_leaves_the_window, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gathers_stay_in_the_window, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strings_wrap_at_4_gib, setup, teardown),
        cmocka_unit_test_setup_teardown(test_operands_that_cross_4_gib_stay_in_the_guest, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_only_guest_ram_is_mapped_in_a_stride, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_on_the_list_is_undefined, setup, teardown),
        cmocka_unit_test_setup_teardown(test_vex_is_undefined_where_avx_is_hidden, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_hidden_features_are_undefined_or_keep_their_older_meaning, setup_poor, teardown),
        cmocka_unit_test_setup_teardown(test_devices_never_see_the_guests_df_mxcsr_or_x87, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_poll_never_sees_the_guests_df_mxcsr_or_x87, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_dbt_run_comes_back_with_a_clean_fpu, setup, teardown),
    };
    void *first;
    setup(&first);
    engine_signals(true);
    teardown(&first);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
