/*
 * Segments that are not flat: with a base, a limit or other rights, for data, stack and code.
 */
#include "engine_bench.h"

#include "dbt/dbt.h"

/* ---- data ---- */

/* One instruction with DS (or what `seg` says) as described, and what becomes of it. */
struct segment_case {
    const char *name;
    uint32_t base, limit;
    uint16_t attr; /* 0: a null selector */
    uint32_t ebx;  /* the offset */
    const char *code;
    unsigned len;
    int vector;   /* -1: none */
    uint32_t gva; /* that is read or written if there is none */
};

#define BYTES(s) s, sizeof(s) - 1
#define LOAD4    BYTES("\x8B\x03")                     /* mov (%ebx), %eax */
#define LOAD1    BYTES("\x8A\x03")                     /* mov (%ebx), %al */
#define STORE4   BYTES("\x89\x03")                     /* mov %eax, (%ebx) */
#define ADD4     BYTES("\x01\x03")                     /* add %eax, (%ebx) */
#define LOAD16   BYTES("\x0F\x10\x03")                 /* movups (%ebx), %xmm0 */
#define STOSD    BYTES("\xAB")                         /* to ES:EDI = EBX */
#define LODSD    BYTES("\xAD")                         /* from DS:ESI = EBX */
#define PUSHM    BYTES("\xFF\x33")                     /* push (%ebx) */
#define POPM     BYTES("\x8F\x03")                     /* pop (%ebx) */
#define XLATB    BYTES("\xD7")                         /* AL = 0 */
#define BTS_FAR  BYTES("\x0F\xAB\x0B")                 /* bts %ecx, (%ebx), ECX = 0x1000 bits */
#define JMPM     BYTES("\xFF\x23")                     /* jmp *(%ebx), to CODE + 0x800 */
#define CALLM    BYTES("\xFF\x13")                     /* call *(%ebx) */
#define LEA      BYTES("\x8D\x03")                     /* lea (%ebx), %eax: never faults */
#define LOCK_INC BYTES("\xF0\xFF\x03")                 /* lock incl (%ebx) */
#define ADDR16   BYTES("\x67\x8B\x07")                 /* mov (%bx), %eax */
#define OFFS     BYTES("\xA1\x10\x00\x00\x00\x90\x90") /* mov 0x10, %eax */

enum { BASE = 0x500000, DATA32 = 0xC093, BYTE32 = 0x4093, READ_ONLY32 = 0x4091, DOWN32 = 0x4097 };

static const struct segment_case cases[] = {
    {"flat", 0, 0xFFFFF, DATA32, BASE, LOAD4, -1, BASE},
    {"based load", BASE, 0xFFFFF, DATA32, 0x10, LOAD4, -1, BASE + 0x10},
    {"based store", BASE, 0xFFFFF, DATA32, 0x10, STORE4, -1, BASE + 0x10},
    {"based add", BASE, 0xFFFFF, DATA32, 0x10, ADD4, -1, BASE + 0x10},
    {"based, wraps", BASE, 0xFFFFF, DATA32, 0xFFFFFFF0u, LOAD4, -1, BASE - 0x10},
    {"based moffs", BASE, 0xFFFFF, DATA32, 0, OFFS, -1, BASE + 0x10},
    {"based, 16-bit address", BASE, 0xFFFFF, DATA32, 0xABCD0020, ADDR16, -1, BASE + 0x20},
    {"based string", BASE, 0xFFFFF, DATA32, 0x10, LODSD, -1, BASE + 0x10},
    {"based string store", BASE, 0xFFFFF, DATA32, 0x10, STOSD, -1, BASE + 0x10},
    {"based push", BASE, 0xFFFFF, DATA32, 0x10, PUSHM, -1, BASE + 0x10},
    {"based pop", BASE, 0xFFFFF, DATA32, 0x10, POPM, -1, BASE + 0x10},
    {"based xlat", BASE, 0xFFFFF, DATA32, 0x10, XLATB, -1, BASE + 0x10},
    {"based bts", BASE, 0xFFFFF, DATA32, 0x10, BTS_FAR, -1, BASE + 0x210},
    {"based jump", BASE, 0xFFFFF, DATA32, 0x10, JMPM, -1, BASE + 0x10},
    {"based call", BASE, 0xFFFFF, DATA32, 0x10, CALLM, -1, BASE + 0x10},
    {"last dword", BASE, 0x1FF, BYTE32, 0x1FC, LOAD4, -1, BASE + 0x1FC},
    {"one beyond", BASE, 0x1FF, BYTE32, 0x1FD, LOAD4, VEC_GP, 0},
    {"first beyond", BASE, 0x1FF, BYTE32, 0x200, LOAD1, VEC_GP, 0},
    {"last byte", BASE, 0x1FF, BYTE32, 0x1FF, LOAD1, -1, BASE + 0x1FF},
    {"far beyond", BASE, 0x1FF, BYTE32, 0xFFFFFFFF, LOAD1, VEC_GP, 0},
    {"wraps beyond", BASE, 0x1FF, BYTE32, 0xFFFFFFFE, LOAD4, VEC_GP, 0},
    {"last store", BASE, 0x1FF, BYTE32, 0x1FC, STORE4, -1, BASE + 0x1FC},
    {"store beyond", BASE, 0x1FF, BYTE32, 0x1FD, STORE4, VEC_GP, 0},
    {"add beyond", BASE, 0x1FF, BYTE32, 0x1FE, ADD4, VEC_GP, 0},
    {"lock beyond", BASE, 0x1FF, BYTE32, 0x1FF, LOCK_INC, VEC_GP, 0},
    {"last 16 bytes", BASE, 0x1FF, BYTE32, 0x1F0, LOAD16, -1, BASE + 0x1F0},
    {"16 bytes beyond", BASE, 0x1FF, BYTE32, 0x1F1, LOAD16, VEC_GP, 0},
    {"string beyond", BASE, 0x1FF, BYTE32, 0x1FD, LODSD, VEC_GP, 0},
    {"string store beyond", BASE, 0x1FF, BYTE32, 0x1FD, STOSD, VEC_GP, 0},
    {"push beyond", BASE, 0x1FF, BYTE32, 0x1FD, PUSHM, VEC_GP, 0},
    {"pop beyond", BASE, 0x1FF, BYTE32, 0x1FD, POPM, VEC_GP, 0},
    {"xlat beyond", BASE, 0x1FF, BYTE32, 0x200, XLATB, VEC_GP, 0},
    {"bts beyond", BASE, 0x1FF, BYTE32, 0x10, BTS_FAR, VEC_GP, 0},
    {"jump beyond", BASE, 0x1FF, BYTE32, 0x200, JMPM, VEC_GP, 0},
    {"lea beyond", BASE, 0x1FF, BYTE32, 0x200, LEA, -1, 0},
    {"one byte only", BASE, 0, BYTE32, 0, LOAD1, -1, BASE},
    {"one byte only, beyond", BASE, 0, BYTE32, 1, LOAD1, VEC_GP, 0},
    {"flat base, limited", 0, 0x5FFFF, BYTE32, 0x5FFFC, LOAD4, -1, 0x5FFFC},
    {"flat base, limited, beyond", 0, 0x5FFFF, BYTE32, 0x5FFFD, LOAD4, VEC_GP, 0},
    {"read-only load", BASE, 0x1FF, READ_ONLY32, 0, LOAD4, -1, BASE},
    {"read-only store", BASE, 0x1FF, READ_ONLY32, 0, STORE4, VEC_GP, 0},
    {"read-only add", BASE, 0x1FF, READ_ONLY32, 0, ADD4, VEC_GP, 0},
    {"read-only pop", BASE, 0x1FF, READ_ONLY32, 0, POPM, VEC_GP, 0},
    {"read-only string store", BASE, 0x1FF, READ_ONLY32, 0, STOSD, VEC_GP, 0},
    {"flat read-only store", 0, 0xFFFFF, 0xC091, BASE, STORE4, VEC_GP, 0},
    {"flat read-only load", 0, 0xFFFFF, 0xC091, BASE, LOAD4, -1, BASE},
    {"expand-down, inside", BASE, 0xFFF, DOWN32, 0x1000, LOAD4, -1, BASE + 0x1000},
    {"expand-down, below", BASE, 0xFFF, DOWN32, 0xFFF, LOAD1, VEC_GP, 0},
    {"expand-down, store", BASE, 0xFFF, DOWN32, 0x1000, STORE4, -1, BASE + 0x1000},
    {"expand-down, across the top", BASE, 0xFFF, DOWN32, 0xFFFFFFFE, LOAD4, VEC_GP, 0},
    {"expand-down, 16-bit top", BASE, 0xFFF, 0x0097, 0x10000, LOAD1, VEC_GP, 0},
    {"expand-down, 16-bit", BASE, 0xFFF, 0x0097, 0xFFFF, LOAD1, -1, BASE + 0xFFFF},
    {"null load", 0, 0, 0, 0, LOAD1, VEC_GP, 0},
    {"null store", 0, 0, 0, 0, STORE4, VEC_GP, 0},
    {"null string", 0, 0, 0, 0, STOSD, VEC_GP, 0},
    {"null lea", 0, 0, 0, 0, LEA, -1, 0},
    {"code, readable", BASE, 0x1FF, 0x409B, 0, LOAD4, -1, BASE},
    {"code, store", BASE, 0x1FF, 0x409B, 0, STORE4, VEC_GP, 0},
};

/* `prefix`: the segment override, or 0 for DS (strings: ES where they store). */
static void one_segment_case(struct bench *b, const struct segment_case *c, uint8_t prefix,
                             enum seg seg)
{
    static uint8_t before[0x12000];
    bool string_store = c->code[0] == '\xAB';
    uint8_t code[17] = {0};
    unsigned len = 0;

    if (string_store && prefix)
        return; /* ES only */
    bench_reset(b);
    for (uint32_t gpa = BASE - 0x100; gpa < BASE + 0x11000; gpa += 4)
        bench_put32(b, gpa, gpa * 0x9E3779B1u);
    bench_put32(b, 0x5FFFC, 0x12345678);
    if (c->code[0] == '\xFF' && (c->code[1] == 0x23 || c->code[1] == 0x13))
        bench_put32(b, c->gva ? c->gva : BASE, CODE + 0x800);
    bench_descriptor(b, SEL_TEST, c->base, c->limit, c->attr);
    bench_segment(b, string_store ? SEG_ES : seg, SEL_TEST);
    if (!c->attr)
        b->v->seg[string_store ? SEG_ES : seg] = (struct segment){0};
    vcpu_mode_changed(b->v);
    if (prefix && c->code[0] != '\xF0')
        code[len++] = prefix;
    for (unsigned i = 0; i < c->len; i++) {
        code[len++] = (uint8_t)c->code[i];
        if (i == 0 && c->code[0] == '\xF0' && prefix)
            code[len++] = prefix;
    }
    code[len] = 0xF4;
    bench_write(b, CODE, code, len + 1);
    bench_write(b, CODE + 0x800, "\xF4", 1);
    b->v->regs[REG_AX] = 0;
    b->v->regs[REG_CX] = 0x1000;
    b->v->regs[REG_BX] = b->v->regs[REG_SI] = b->v->regs[REG_DI] = c->ebx;
    memcpy(before, mmu_ram(b->m) + BASE - 0x1000, sizeof(before));
    bench_run(b);
    struct bench_frame f = bench_exception(b);
    if (f.vector != c->vector || (f.vector >= 0 && (f.error || f.eip != CODE)))
        fail_msg("%s, prefix %02x: vector %d instead of %d, error %x, eip %x", c->name, prefix,
                 f.vector, c->vector, f.error, f.eip);
    if (c->vector >= 0) {
        assert_memory_equal(before, mmu_ram(b->m) + BASE - 0x1000, sizeof(before));
        assert_int_equal(f.esp, STACK);
        return;
    }
    uint32_t got = bench_reg(b, REG_AX), there = 0;
    if (c->gva && (c->code[0] == '\x8B' || c->code[0] == '\xA1' || c->code[0] == '\xAD' ||
                   c->code[0] == '\x67')) {
        there = bench_get32(b, c->gva);
        if (got != there)
            fail_msg("%s, prefix %02x: %08x instead of %08x", c->name, prefix, got, there);
    }
    if (c->gva && (c->code[0] == '\x8A' || c->code[0] == '\xD7'))
        assert_int_equal(got & 0xFF, mmu_ram(b->m)[c->gva]);
    if (c->gva && (c->code[0] == '\x89' || c->code[0] == '\xAB'))
        assert_int_equal(bench_get32(b, c->gva), 0);
}

static void every_segment_case(struct bench *b)
{
    static const struct {
        uint8_t prefix, seg;
    } overrides[] = {{0, SEG_DS}, {0x26, SEG_ES}, {0x64, SEG_FS}, {0x65, SEG_GS}};

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        for (unsigned j = 0; j < ARRAY_LEN(overrides); j++)
            one_segment_case(b, &cases[i], overrides[j].prefix, overrides[j].seg);
    }
}

static void segments_are_checked_and_added(void **state)
{
    (void)state;
    bench_everywhere(every_segment_case);
}

/* ---- stacks and code ---- */

/* A stack with a base and a limit, in 32 and in 16 bits: PUSH, POP, CALL, RET, LEAVE, #SS. */
GUEST(uses_its_stack, "push $0x11\n"
                      "push %esp\n"
                      "pop %eax\n"
                      "call 1f\n"
                      "push %ebp\n"
                      "mov %esp, %ebp\n"
                      "push $0x22\n"
                      "leave\n"
                      "push $0x33\n"
                      "mov (%esp), %esi\n"
                      "pop %edx\n"
                      "pop %ecx\n"
                      "hlt\n"
                      "1: push 4(%esp)\n"
                      "pop %ebx\n"
                      "ret\n");

static void stack_elsewhere(struct bench *b, uint16_t attr)
{
    bench_reset(b);
    BENCH_LOAD(b, CODE, uses_its_stack);
    bench_descriptor(b, SEL_TEST, BASE, 0x1FFF, attr);
    bench_segment(b, SEG_SS, SEL_TEST);
    b->v->regs[REG_SP] = 0x1000;
    b->v->regs[REG_BP] = 0;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 0xFFC);
    assert_int_equal(bench_reg(b, REG_BX), 0x11);
    assert_int_equal(bench_reg(b, REG_CX), 0x11);
    assert_int_equal(bench_reg(b, REG_DX), 0x33);
    assert_int_equal(bench_reg(b, REG_SI), 0x33);
    assert_int_equal(bench_reg(b, REG_SP), 0x1000);
    assert_int_equal(bench_get32(b, BASE + 0xFFC), 0x11);
}

/* The limit of the stack: the frame of #SS goes to ring 0's, so this is in ring 3. */
static void stack_limit(struct bench *b)
{
    static const char *const pushes[] = {"\x50", "\x6A\x01", "\xE8\x00\x01\x00\x00", "\x9C",
                                         "\xFF\xD1"};
    bench_reset(b);
    for (unsigned i = 0; i < ARRAY_LEN(pushes); i++) {
        bench_reset(b);
        bench_ring3(b);
        bench_descriptor(b, SEL_TEST, BASE, 0x1FFF, 0x40F3);
        bench_segment(b, SEG_SS, SEL_TEST | 3);
        bench_write(b, CODE, pushes[i], 5);
        b->v->regs[REG_SP] = 0x2002;
        b->v->regs[REG_CX] = CODE;
        struct bench_frame f = bench_run_to(b, VEC_SS);
        assert_int_equal(f.error, 0);
        assert_int_equal(f.eip, CODE);
        assert_int_equal(f.esp, 0x2002);
    }
    bench_reset(b);
    bench_ring3(b);
    bench_segment(b, SEG_SS, SEL_TEST | 3);
    bench_write(b, CODE, "\x58\x5B", 2); /* pop %eax; pop %ebx */
    b->v->regs[REG_SP] = 0x1FFC;
    struct bench_frame f = bench_run_to(b, VEC_SS);
    assert_int_equal(f.eip, CODE + 1);
    assert_int_equal(f.esp, 0x2000);
}

static void stacks_elsewhere(struct bench *b)
{
    stack_elsewhere(b, 0x4093);
    stack_elsewhere(b, 0x0093);
    stack_limit(b);
}

static void stacks_may_have_a_base_and_a_limit(void **state)
{
    (void)state;
    bench_everywhere(stacks_elsewhere);
}

/* Code with a base: EIP is not the linear address; and with a limit. */
GUEST(based_code, "call 1f\n"
                  "mov $2f - 0b, %ecx\n"
                  "jmp *%ecx\n"
                  "hlt\n"
                  "1: mov (%esp), %eax\n"
                  "ret\n"
                  "2: mov %cs:3f - 0b, %ebx\n"
                  "jmp 4f\n"
                  "3: .long 0x1234567\n"
                  ".org 0x1FE\n"
                  "4: nop\n"
                  "5: nop\n"   /* the last byte */
                  "6: nop\n"); /* beyond the limit */

static void code_elsewhere(struct bench *b)
{
    bench_descriptor(b, SEL_TEST, BASE, 0x1FF, 0x409B);
    bench_load(b, BASE, based_code, based_code_end);
    bench_segment(b, SEG_CS, SEL_TEST);
    b->v->rip = 0;
    struct bench_frame f = bench_run_to(b, VEC_GP);
    assert_int_equal(f.eip, 0x200);
    assert_int_equal(f.error, 0);
    assert_int_equal(bench_reg(b, REG_AX), 5);
    assert_int_equal(bench_reg(b, REG_BX), 0x1234567);
}

static void code_may_have_a_base_and_a_limit(void **state)
{
    (void)state;
    bench_everywhere(code_elsewhere);
}

/* Branches beyond the limit fault at the branch (SDM 2A, JMP): EIP and ESP as before. */
static void branches_beyond(struct bench *b)
{
    static const struct {
        const char *code;
        unsigned len;
    } branches[] = {
        {BYTES("\xE9\x00\x10\x00\x00")},
        {BYTES("\xE8\x00\x10\x00\x00")},
        {BYTES("\x0F\x84\x00\x10\x00\x00")},
        {BYTES("\xFF\xE1")},
        {BYTES("\xFF\xD1")},
        {BYTES("\xC3")},
        {BYTES("\xC2\x04\x00")},
        {BYTES("\xEB\x70")},
    };
    for (unsigned i = 0; i < ARRAY_LEN(branches); i++) {
        bench_reset(b);
        bench_descriptor(b, SEL_TEST, BASE, 0x1FF, 0x409B);
        bench_write(b, BASE + 0x1F0, branches[i].code, branches[i].len);
        bench_segment(b, SEG_CS, SEL_TEST);
        bench_put32(b, STACK - 16, 0x1000);
        b->v->regs[REG_SP] = STACK - 16;
        b->v->regs[REG_CX] = 0x1000;
        b->v->rip = 0x1F0;
        vcpu_set_eflags(b->v, FLAG_ZF);
        struct bench_frame f = bench_run_to(b, VEC_GP);
        if (f.eip != 0x1F0 || f.esp != STACK - 16 || f.error)
            fail_msg("branch %u: eip %x esp %x error %x", i, f.eip, f.esp, f.error);
    }
}

static void a_branch_beyond_the_limit_is_at_fault_itself(void **state)
{
    (void)state;
    bench_everywhere(branches_beyond);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_are_checked_and_added),
        cmocka_unit_test(stacks_may_have_a_base_and_a_limit),
        cmocka_unit_test(code_may_have_a_base_and_a_limit),
        cmocka_unit_test(a_branch_beyond_the_limit_is_at_fault_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
