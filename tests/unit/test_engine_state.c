/*
 * The state that translated code lives with: exceptions of the host CPU, CR0.TS and its kin, the
 * trap flag, encodings that must not reach the host, and guest flags and FPU state that must not
 * reach C.
 */
#include "engine_bench.h"

#include "cpu/fpu.h"
#include "dbt/dbt.h"

/* ---- one instruction, one exception ---- */

struct exception_case {
    const char *name;
    const char *code;
    unsigned len;
    int vector;
    uint32_t offset; /* of the EIP pushed */
};

#define BYTES(s) s, sizeof(s) - 1

/* Behind two pushes; EAX = 0, EDX = 0x80000000, ECX = -1, EBX = DATA + 1, where 0 stands. */
static const struct exception_case exceptions[] = {
    {"div by zero", BYTES("\xF7\xF0"), VEC_DE, 0},
    {"div overflow", BYTES("\xB9\x01\x00\x00\x00\xF7\xF1"), VEC_DE, 5},
    {"idiv overflow", BYTES("\x89\xD0\x99\xF7\xF9"), VEC_DE, 3},
    {"div byte memory", BYTES("\xF6\x33"), VEC_DE, 0},
    {"div memory", BYTES("\xF7\x33"), VEC_DE, 0},
    {"div by [esp]", BYTES("\x83\x24\x24\x00\xF7\x34\x24"), VEC_DE, 4},
    {"div by ah", BYTES("\xF6\xF4"), VEC_DE, 0},
    {"aam 0", BYTES("\xD4\x00"), VEC_DE, 0},
    {"movaps misaligned", BYTES("\x0F\x28\x03"), VEC_GP, 0},
    {"movaps store misaligned", BYTES("\x0F\x29\x03"), VEC_GP, 0},
    {"addps misaligned", BYTES("\x0F\x58\x03"), VEC_GP, 0},
    {"int3", BYTES("\xCC"), VEC_BP, 1},
    {"icebp", BYTES("\xF1"), VEC_DB, 1},
    {"into", BYTES("\x83\xE8\x01\x81\xC0\x00\x00\x00\x80\xB0\x7F\x04\x01\xCE"), VEC_OF, 14},
    {"bound", BYTES("\x62\x0B"), VEC_BR, 0},
    {"ud2", BYTES("\x0F\x0B"), VEC_UD, 0},
    {"ud1", BYTES("\x0F\xB9\xC0"), VEC_UD, 0},
    {"int 50h", BYTES("\xCD\x50"), 0x50, 2},
    {"lock register", BYTES("\xF0\x01\xC8"), VEC_UD, 0},
    {"lock mov", BYTES("\xF0\x89\x03"), VEC_UD, 0},
    {"mov to cs", BYTES("\x8E\xC8"), VEC_UD, 0},
    {"lea register", BYTES("\x8D\xC0"), VEC_UD, 0},
    {"too long", BYTES("\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"), VEC_GP,
     0},
    /* What the host would execute, or know otherwise. */
    {"syscall", BYTES("\x0F\x05"), VEC_UD, 0},
    {"sysret", BYTES("\x0F\x07"), VEC_UD, 0},
    {"rdfsbase", BYTES("\xF3\x0F\xAE\xC0"), VEC_UD, 0},
    {"wrfsbase", BYTES("\xF3\x0F\xAE\xD0"), VEC_UD, 0},
    {"wrgsbase", BYTES("\xF3\x0F\xAE\xD8"), VEC_UD, 0},
    {"rdpkru", BYTES("\x0F\x01\xEE"), VEC_UD, 0},
    {"wrpkru", BYTES("\x0F\x01\xEF"), VEC_UD, 0},
    {"movdir64b", BYTES("\x66\x0F\x38\xF8\x03"), VEC_UD, 0},
    {"enqcmd", BYTES("\xF2\x0F\x38\xF8\x03"), VEC_UD, 0},
    {"xbegin", BYTES("\xC7\xF8\x00\x00\x00\x00"), VEC_UD, 0},
    {"vmcall", BYTES("\x0F\x01\xC1"), VEC_UD, 0},
    {"vmmcall", BYTES("\x0F\x01\xD9"), VEC_UD, 0},
    {"clac", BYTES("\x0F\x01\xCA"), VEC_UD, 0},
    {"clgi", BYTES("\x0F\x01\xDD"), VEC_UD, 0},
    {"swapgs", BYTES("\x0F\x01\xF8"), VEC_UD, 0},
    {"clzero", BYTES("\x0F\x01\xFC"), VEC_UD, 0},
    {"wbnoinvd-prefixed ud", BYTES("\x0F\xFF\xC0"), VEC_UD, 0},
    {"incssp", BYTES("\xF3\x0F\xAE\xE8"), VEC_UD, 0},
    {"ptwrite", BYTES("\xF3\x0F\xAE\xE0"), VEC_UD, 0},
    {"xop", BYTES("\x8F\xE8\x78\xC2\xC0\x00"), VEC_UD, 0},
    {"evex", BYTES("\x62\xF1\x7C\x48\x28\xC0"), VEC_UD, 0},
    {"vex without osxsave", BYTES("\xC5\xF8\x28\xC1"), VEC_UD, 0},
    {"xgetbv without osxsave", BYTES("\x0F\x01\xD0"), VEC_UD, 0},
};

static void one_exception(struct bench *b, const struct exception_case *c)
{
    uint8_t code[32] = {0x50, 0x51};

    memcpy(code + 2, c->code, c->len);
    code[2 + c->len] = 0xF4;
    for (unsigned round = 0; round < 3; round++) {
        bench_reset(b);
        bench_load(b, CODE, code, code + 3 + c->len);
        bench_put32(b, DATA, 0);
        bench_put32(b, DATA + 4, 0);
        b->v->regs[REG_DX] = 0x80000000;
        b->v->regs[REG_CX] = 0xFFFFFFFF;
        b->v->regs[REG_BX] = DATA + 1;
        b->v->cr2 = 0x1234;
        bench_run(b);
        struct bench_frame f = bench_exception(b);
        if (f.vector != c->vector || f.eip != CODE + 2 + c->offset || f.error ||
            f.esp != STACK - 8 || b->v->cr2 != 0x1234)
            fail_msg("%s, round %u: vector %d, error %x, eip +%x, esp %x, cr2 %x", c->name, round,
                     f.vector, f.error, f.eip - CODE - 2, f.esp, b->v->cr2);
        assert_int_equal(bench_reg(b, REG_BX), DATA + 1);
    }
}

static void every_exception(struct bench *b)
{
    for (unsigned i = 0; i < ARRAY_LEN(exceptions); i++)
        one_exception(b, &exceptions[i]);
}

static void exceptions_have_their_vectors_and_places(void **state)
{
    (void)state;
    bench_everywhere(every_exception);
}

/* ---- x87 and SSE exceptions ---- */

/* Unmasks division by zero; the x87 reports at the next instruction that waits. */
GUEST(x87_exception, "fninit\n"
                     "movl $0x37B, 0x300000\n"
                     "fldcw 0x300000\n"
                     "fld1\n"
                     "fldz\n"
                     "fdivrp\n"
                     "mov $1, %eax\n"
                     "fnop\n" /* may or may not report: it waits */
                     "hlt\n");
GUEST(sse_exception, "movl $0x1D80, 0x300000\n" /* ZM = 0 */
                     "ldmxcsr 0x300000\n"
                     "xorps %xmm0, %xmm0\n"
                     "mov $0x3F800000, %eax\n"
                     "movd %eax, %xmm1\n"
                     "1: divss %xmm0, %xmm1\n"
                     "hlt\n");

static void raises_floating_point_exceptions(struct bench *b)
{
    BENCH_LOAD(b, CODE, x87_exception);
    bench_run_to(b, VEC_MF);
    assert_int_equal(bench_reg(b, REG_AX), 1);

    bench_reset(b);
    BENCH_LOAD(b, CODE, sse_exception);
    struct bench_frame f = bench_run_to(b, VEC_XM);
    assert_int_equal(f.eip, CODE + (uint32_t)(sse_exception_end - sse_exception) - 5);
    fpu_park(b->v);
    uint32_t mxcsr;
    memcpy(&mxcsr, b->v->fpu_area + 24, 4);
    assert_int_equal(mxcsr & 0x3F, 4); /* ZE */

    bench_reset(b);
    b->v->cr4 &= ~(uint32_t)CR4_OSXMMEXCPT;
    bench_run_to(b, VEC_UD);
}

static void floating_point_exceptions_reach_the_guest(void **state)
{
    (void)state;
    bench_everywhere(raises_floating_point_exceptions);
}

/* ---- CR0.TS, EM, MP; CR4.OSFXSR ---- */

static const struct {
    const char *name, *code;
    unsigned len;
    /* Vectors under TS; TS and MP; EM; OSFXSR = 0. -1: none. */
    int ts, ts_mp, em, no_osfxsr;
} fpu_cases[] = {
    {"fld1", BYTES("\xD9\xE8"), VEC_NM, VEC_NM, VEC_NM, -1},
    {"fld m", BYTES("\xDD\x03"), VEC_NM, VEC_NM, VEC_NM, -1},
    {"fnstcw", BYTES("\xD9\x3B"), VEC_NM, VEC_NM, VEC_NM, -1},
    {"fnsave", BYTES("\xDD\x33"), VEC_NM, VEC_NM, VEC_NM, -1},
    {"fxsave", BYTES("\x0F\xAE\x03"), VEC_NM, VEC_NM, VEC_NM, -1},
    {"fwait", BYTES("\x9B"), -1, VEC_NM, -1, -1},
    {"movd mmx", BYTES("\x0F\x6E\xC0"), VEC_NM, VEC_NM, VEC_UD, -1},
    {"emms", BYTES("\x0F\x77"), VEC_NM, VEC_NM, VEC_UD, -1},
    {"xorps", BYTES("\x0F\x57\xC0"), VEC_NM, VEC_NM, VEC_UD, VEC_UD},
    {"movups m", BYTES("\x0F\x10\x03"), VEC_NM, VEC_NM, VEC_UD, VEC_UD},
    {"ldmxcsr", BYTES("\x0F\xAE\x13"), VEC_NM, VEC_NM, VEC_UD, VEC_UD},
    {"paddd xmm", BYTES("\x66\x0F\xFE\xC1"), VEC_NM, VEC_NM, VEC_UD, VEC_UD},
    {"prefetch", BYTES("\x0F\x18\x0B"), -1, -1, -1, -1},
    {"sfence", BYTES("\x0F\xAE\xF8"), -1, -1, -1, -1},
};

static void try_fpu_case(struct bench *b, unsigned i, uint32_t cr0, bool osfxsr, int vector)
{
    uint8_t code[16];

    bench_reset(b);
    memcpy(code, fpu_cases[i].code, fpu_cases[i].len);
    code[fpu_cases[i].len] = 0xF4;
    bench_load(b, CODE, code, code + fpu_cases[i].len + 1);
    bench_put32(b, DATA, 0x1F80);
    b->v->regs[REG_BX] = DATA;
    b->v->cr0 |= cr0;
    if (!osfxsr)
        b->v->cr4 &= ~(uint32_t)CR4_OSFXSR;
    bench_run(b);
    struct bench_frame f = bench_exception(b);
    if (f.vector != vector || (vector >= 0 && f.eip != CODE))
        fail_msg("%s, cr0 %x, osfxsr %d: vector %d instead of %d", fpu_cases[i].name, cr0, osfxsr,
                 f.vector, vector);
}

static void every_fpu_case(struct bench *b)
{
    for (unsigned i = 0; i < ARRAY_LEN(fpu_cases); i++) {
        try_fpu_case(b, i, 0, true, -1);
        try_fpu_case(b, i, CR0_TS, true, fpu_cases[i].ts);
        try_fpu_case(b, i, CR0_TS | CR0_MP, true, fpu_cases[i].ts_mp);
        try_fpu_case(b, i, CR0_EM, true, fpu_cases[i].em);
        try_fpu_case(b, i, 0, false, fpu_cases[i].no_osfxsr);
        try_fpu_case(b, i, 0, true, -1);
    }
}

static void fpu_instructions_heed_cr0_and_cr4(void **state)
{
    (void)state;
    bench_everywhere(every_fpu_case);
}

/* The lazy switch: TS set by MOV CR0, an instruction that needs it, CLTS in the handler, again. */
GUEST(lazy_switch, "fninit\n"
                   "fld1\n"
                   "mov $10, %ecx\n"
                   "1: mov %cr0, %eax\n"
                   "or $8, %eax\n"
                   "mov %eax, %cr0\n"
                   "fadd %st(0), %st\n"
                   "fadd %st(0), %st\n"
                   "dec %ecx\n"
                   "jnz 1b\n"
                   "fistpl 0x300000\n"
                   "hlt\n");

static void switches_lazily(struct bench *b)
{
    static const uint8_t handler[] = {0x0F, 0x06, 0x43, 0xCF}; /* clts; inc %ebx; iret */

    bench_load(b, 0x9000, handler, handler + sizeof(handler));
    bench_gate(b, VEC_NM, 0x9000, 0x8E);
    BENCH_LOAD(b, CODE, lazy_switch);
    bench_run(b);
    bench_gate(b, VEC_NM, HANDLERS + 16 * VEC_NM, 0xEE);
    assert_int_equal(bench_reg(b, REG_BX), 10);
    assert_int_equal(bench_get32(b, DATA), 1 << 20);
}

static void the_fpu_may_be_switched_lazily(void **state)
{
    (void)state;
    bench_everywhere(switches_lazily);
}

/* ---- the trap flag ---- */

/* Notes the EIP that #DB pushed, in a list at DATA + 100h whose end is at DATA. */
static const uint8_t step_handler[] = {
    0x50,                                     /* push %eax */
    0x53,                                     /* push %ebx */
    0x8B, 0x1D, 0x00, 0x00, 0x30, 0x00,       /* mov DATA, %ebx */
    0x8B, 0x44, 0x24, 0x08,                   /* mov 8(%esp), %eax */
    0x89, 0x03,                               /* mov %eax, (%ebx) */
    0x83, 0x05, 0x00, 0x00, 0x30, 0x00, 0x04, /* addl $4, DATA */
    0x5B,                                     /* pop %ebx */
    0x58,                                     /* pop %eax */
    0xCF,                                     /* iret */
};

GUEST(stepped, "pushf\n"
               "orl $0x100, (%esp)\n"
               "popf\n"
               "mov $2, %ecx\n" /* 0: no trap behind POPF itself; one behind this */
               "1: dec %ecx\n"  /* two rounds */
               "jnz 1b\n"
               "call 2f\n"
               "jmp 3f\n"
               "2: ret\n"
               "3: mov $3, %ecx\n"
               "mov $0x300400, %edi\n"
               "rep stosb\n" /* a trap behind each element */
               "mov %ss, %eax\n"
               "mov %eax, %ss\n" /* no trap behind this one */
               "nop\n"
               "int $0x50\n" /* clears TF: none behind it either */
               "nop\n"
               "pushf\n"
               "andl $~0x100, (%esp)\n"
               "popf\n" /* the last */
               "hlt\n");

static void steps(struct bench *b)
{
    static const uint8_t iret[] = {0xCF};
    static const uint8_t expected[] = {
        0x0E, 0x0F, 0x0E, 0x0F, 0x11,
        0x18, 0x16, 0x19,             /* mov, dec, jnz, dec, jnz, call, ret, jmp */
        0x1E, 0x23, 0x23, 0x23, 0x25, /* mov, mov, three of rep stosb */
        0x27, 0x2A, 0x2D,             /* mov, nop behind mov ss, nop behind int */
        0x2E, 0x35, 0x36,             /* pushf, andl, popf */
    };

    bench_put32(b, DATA, DATA + 0x100);
    bench_load(b, 0x9000, step_handler, step_handler + sizeof(step_handler));
    bench_load(b, 0x9100, iret, iret + 1);
    bench_gate(b, VEC_DB, 0x9000, 0x8E);
    bench_gate(b, 0x50, 0x9100, 0x8E);
    BENCH_LOAD(b, CODE, stepped);
    bench_run(b);
    bench_gate(b, VEC_DB, HANDLERS + 16 * VEC_DB, 0xEE);
    bench_gate(b, 0x50, HANDLERS + 16 * 0x50, 0xEE);
    unsigned count = (bench_get32(b, DATA) - DATA - 0x100) / 4;
    assert_int_equal(count, ARRAY_LEN(expected));
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(bench_get32(b, DATA + 0x100 + 4 * i), CODE + expected[i]);
    assert_int_equal(b->v->sys_flags & FLAG_TF, 0);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void the_trap_flag_traps_behind_each_instruction(void **state)
{
    (void)state;
    bench_everywhere(steps);
}

/* ---- what C sees ---- */

/* DF, a hostile MXCSR and a full x87 stack with 24-bit precision, while every kind of callback is
   called. */
GUEST(hostile, "fninit\n"
               "movl $0x0040, 0x300000\n" /* everything unmasked, 24 bits */
               "movl $0x8000, 0x300004\n" /* everything unmasked, flush to zero */
               "fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fldpi\n"
               "fldcw 0x300000\n"
               "ldmxcsr 0x300004\n"
               "movups 0x300010, %xmm7\n"
               "pushf\n"
               "orl $0x44000, (%esp)\n" /* AC, NT */
               "popf\n"
               "std\n"
               "out %al, $0x80\n"
               "in $0x80, %al\n"
               "mov 0xA0001, %ebx\n"
               "mov %ebx, 0xA0003\n"
               "mov 0x1E00000, %ebx\n" /* a hidden fault */
               "mov $0x1E00FFF, %edi\n"
               "mov $100, %ecx\n"
               "rep stosb\n"
               "pushf\n"
               "pop %edx\n"
               "fnstcw 0x300020\n"
               "stmxcsr 0x300024\n"
               "movups %xmm7, 0x300030\n"
               "hlt\n");

static void assert_c_is_at_home(void)
{
    uint64_t flags;
    uint32_t mxcsr;
    uint16_t control, status;

    __asm__ volatile("pushfq; pop %0" : "=r"(flags));
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(control));
    __asm__ volatile("fnstsw %0" : "=m"(status));
    assert_int_equal(flags & (FLAG_DF | FLAG_TF | FLAG_AC | FLAG_NT), 0);
    assert_int_equal(mxcsr & 0xFFC0, 0x1F80);
    assert_int_equal(control, 0x37F);
    assert_int_equal(status & 0x3800, 0);
    volatile double one = 1, three = 3;
    volatile long double third = (long double)one / three;
    assert_true(one / three > 0.333 && third * 3 > 0.999L);
    char text[32];
    snprintf(text, sizeof(text), "%.17g", one / three);
    assert_string_equal(text, "0.33333333333333331");
}

static void check_out(struct bench *b, uint16_t port, uint32_t value)
{
    (void)b, (void)port, (void)value;
    assert_c_is_at_home();
}

static uint32_t check_in(struct bench *b, uint16_t port)
{
    (void)b, (void)port;
    assert_c_is_at_home();
    return 0x55;
}

static uint32_t check_mmio_read(void *opaque, uint32_t gpa, unsigned size)
{
    (void)gpa, (void)size;
    ((struct bench *)opaque)->outs++;
    assert_c_is_at_home();
    return 0x66;
}

static void check_mmio_write(void *opaque, uint32_t gpa, unsigned size, uint32_t value)
{
    (void)gpa, (void)size, (void)value;
    ((struct bench *)opaque)->outs++;
    assert_c_is_at_home();
}

static void check_poll(struct bench *b)
{
    (void)b;
    assert_c_is_at_home();
}

static void hosts_a_hostile_guest(struct bench *b)
{
    uint8_t xmm[16];

    memset(xmm, 0xA5, sizeof(xmm));
    mmu_set_io(b->m, &(struct mmu_io){check_mmio_read, check_mmio_write, b});
    b->on_out = check_out;
    b->on_in = check_in;
    b->on_poll = check_poll;
    bench_write(b, DATA + 0x10, xmm, 16);
    BENCH_LOAD(b, CODE, hostile);
    b->v->kicked = true;
    bench_run(b);
    assert_c_is_at_home();
    assert_true(b->outs >= 3);
    assert_int_equal(bench_get32(b, DATA + 0x20) & 0xFFFF, 0x0040);
    assert_int_equal(bench_get32(b, DATA + 0x24), 0x8000);
    assert_memory_equal(mmu_ram(b->m) + DATA + 0x30, xmm, 16);
    assert_int_equal(bench_reg(b, REG_DX) & (FLAG_DF | FLAG_AC | FLAG_NT),
                     FLAG_DF | FLAG_AC | FLAG_NT);
    assert_int_equal(bench_reg(b, REG_DI), 0x1E00FFF - 100);
    /* The x87 stack, all eight of it, is the guest's still. */
    fpu_park(b->v);
    assert_int_equal(b->v->fpu_area[4], 0xFF);
    b->on_out = NULL;
    b->on_in = NULL;
    b->on_poll = NULL;
}

static void guest_flags_and_fpu_state_never_reach_c(void **state)
{
    (void)state;
    bench_everywhere(hosts_a_hostile_guest);
}

/* ---- features that the guest's CPU does not have ---- */

static void hide(struct bench *b, enum feature f)
{
    b->model.features[f / 64] &= ~(1ull << (f % 64));
}

GUEST(counts_zeros, "mov $0x00100000, %ebx\n"
                    ".byte 0xF3, 0x0F, 0xBD, 0xC3\n" /* lzcnt %ebx, %eax: BSR without it */
                    ".byte 0xF3, 0x0F, 0xBC, 0xCB\n" /* tzcnt %ebx, %ecx: BSF without it */
                    "hlt\n");

static void hidden_features_are_not_executed(void **state)
{
    struct bench *b = bench_create();
    (void)state;

    hide(b, F_ABM);
    hide(b, F_BMI1);
    BENCH_LOAD(b, CODE, counts_zeros);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 20);
    assert_int_equal(bench_reg(b, REG_CX), 20);
    bench_destroy(b);

    b = bench_create();
    hide(b, F_SSE4_2);
    bench_write(b, CODE, "\xF2\x0F\x38\xF1\xC1\xF4", 6); /* crc32 */
    bench_run_to(b, VEC_UD);
    bench_destroy(b);
}

/* ---- flags and selectors as the guest reads them ---- */

GUEST(reads_state, "push $0x247ED5\n" /* ID, AC, NT, IOPL 3, OF, DF, IF, SF, ZF, AF, PF, CF */
                   "popf\n"
                   "pushf\n"
                   "pop %eax\n"
                   "cli\n"
                   "pushf\n"
                   "pop %ebx\n"
                   "sti\n"
                   "nop\n"
                   "pushf\n"
                   "pop %ecx\n"
                   "push $0\n"
                   "popf\n"
                   "pushfw\n"
                   "pushf\n"
                   "pop %edx\n"
                   "add $2, %esp\n"
                   "movl $-1, 0x300000\n"
                   "movl $-1, 0x300004\n"
                   "mov %ss, 0x300000\n"
                   "mov %cs, %esi\n"
                   "mov $-1, %edi\n"
                   "mov %ds, %di\n"
                   "push %es\n"
                   "pop %ebp\n"
                   "mov %esp, 0x300008\n"
                   "mov %ds, %esp\n"
                   "mov %esp, 0x300004\n"
                   "mov 0x300008, %esp\n"
                   "hlt\n");

static void reads_own_state(struct bench *b)
{
    BENCH_LOAD(b, CODE, reads_state);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 0x247ED7);
    assert_int_equal(bench_reg(b, REG_BX), 0x247CD7);
    assert_int_equal(bench_reg(b, REG_CX), 0x247ED7);
    assert_int_equal(bench_reg(b, REG_DX), 2);
    assert_int_equal(bench_reg(b, REG_SI), SEL_CODE0);
    assert_int_equal(bench_reg(b, REG_DI), 0xFFFF0000 | SEL_DATA0);
    assert_int_equal(bench_reg(b, REG_BP), SEL_DATA0);
    assert_int_equal(bench_get32(b, DATA), 0xFFFF0000 | SEL_DATA0);
    assert_int_equal(bench_get32(b, DATA + 4), SEL_DATA0);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

/* In ring 3 POPF leaves IOPL alone, and IF where IOPL is 0. */
GUEST(reads_state_3, "push $0x247ED5\n"
                     "popf\n"
                     "pushf\n"
                     "pop %eax\n"
                     "mov %cs, %esi\n"
                     "mov %ss, %edi\n"
                     "push %ds\n"
                     "pop %ebp\n"
                     "1: sti\n"
                     "hlt\n");

static void reads_own_state_in_ring_3(struct bench *b)
{
    bench_paging(b, PT_P | PT_W | PT_U);
    bench_ring3(b);
    BENCH_LOAD(b, CODE, reads_state_3);
    struct bench_frame f = bench_run_to(b, VEC_GP);
    assert_int_equal(f.eip, CODE + (uint32_t)(reads_state_3_end - reads_state_3) - 2);
    assert_int_equal(bench_reg(b, REG_AX), 0x244CD7);
    assert_int_equal(bench_reg(b, REG_SI), SEL_CODE3);
    assert_int_equal(bench_reg(b, REG_DI), SEL_DATA3);
    assert_int_equal(bench_reg(b, REG_BP), SEL_DATA3);

    /* With IOPL 3 it may: HLT is what faults then. */
    bench_reset(b);
    bench_paging(b, PT_P | PT_W | PT_U);
    bench_ring3(b);
    vcpu_set_eflags(b->v, FLAG_IOPL);
    f = bench_run_to(b, VEC_GP);
    assert_int_equal(f.eip, CODE + (uint32_t)(reads_state_3_end - reads_state_3) - 1);
    assert_int_equal(bench_reg(b, REG_AX), 0x247ED7);
    assert_int_equal(f.eflags & FLAG_IF, FLAG_IF);
}

static void the_guest_reads_flags_and_selectors_of_its_own(void **state)
{
    (void)state;
    bench_everywhere(reads_own_state);
    bench_everywhere(reads_own_state_in_ring_3);
}

/* ---- rings ---- */

/* User code calls the kernel by INT, which looks at its frame and returns, 1000 times. */
GUEST(system_calls, "mov $1000, %ebp\n"
                    "1: mov %ebp, %eax\n"
                    "int $0x80\n"
                    "add %eax, %esi\n"
                    "dec %ebp\n"
                    "jnz 1b\n"
                    "hlt\n" /* #GP */
                    ".org 0x800\n"
                    "push %ebp\n"
                    "mov %esp, %ebp\n"
                    "add %eax, %eax\n"
                    "mov 8(%ebp), %edx\n" /* CS */
                    "pop %ebp\n"
                    "iret\n");

static void serves_calls(struct bench *b)
{
    bench_paging(b, PT_P | PT_W);
    bench_map(b, CODE, CODE, PT_P | PT_U);
    bench_flush(b);
    bench_ring3(b);
    BENCH_LOAD(b, CODE, system_calls);
    /* The handler stands on a supervisor page: an alias at 0x500000. */
    bench_map(b, 0x500000, CODE, PT_P);
    bench_flush(b);
    bench_gate(b, 0x80, 0x500800, 0xEE);
    bench_run_to(b, VEC_GP);
    bench_gate(b, 0x80, HANDLERS + 16 * 0x80, 0xEE);
    assert_int_equal(bench_reg(b, REG_SI), 1000 * 1001);
    assert_int_equal(bench_reg(b, REG_DX), SEL_CODE3);
}

static void rings_change_and_change_back(void **state)
{
    (void)state;
    bench_everywhere(serves_calls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exceptions_have_their_vectors_and_places),
        cmocka_unit_test(floating_point_exceptions_reach_the_guest),
        cmocka_unit_test(fpu_instructions_heed_cr0_and_cr4),
        cmocka_unit_test(the_fpu_may_be_switched_lazily),
        cmocka_unit_test(the_trap_flag_traps_behind_each_instruction),
        cmocka_unit_test(guest_flags_and_fpu_state_never_reach_c),
        cmocka_unit_test(hidden_features_are_not_executed),
        cmocka_unit_test(the_guest_reads_flags_and_selectors_of_its_own),
        cmocka_unit_test(rings_change_and_change_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
