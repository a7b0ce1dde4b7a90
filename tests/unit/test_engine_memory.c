/*
 * Memory accesses that are not plain: user pages touched by the supervisor, CR0.WP = 0, segments
 * with a base, a limit or other rights, I/O memory and ROM, addresses that wrap.
 */
#include "engine_bench.h"

#include "dbt/dbt.h"

enum { USER_PAGE = 0x600000, SUPER_PAGE = 0x700000, KERNEL = PT_P | PT_W, USER = KERNEL | PT_U };

/* ---- user pages from supervisor code ---- */

static void map_both(struct bench *b)
{
    bench_paging(b, KERNEL);
    for (unsigned i = 0; i < 4; i++) {
        bench_map(b, USER_PAGE + i * PAGE_SIZE, USER_PAGE + i * PAGE_SIZE, USER);
        bench_map(b, SUPER_PAGE + i * PAGE_SIZE, SUPER_PAGE + i * PAGE_SIZE, KERNEL);
    }
    bench_flush(b);
}

/* get_user and put_user: each site sees user pages only. */
GUEST(copies_a_word, "mov $50, %ecx\n"
                     "1: mov 0x600000, %eax\n"
                     "inc %eax\n"
                     "mov %eax, 0x600004(,%ecx,4)\n"
                     "mov %eax, 0x600000\n"
                     "lock addl $1, 0x601000\n"
                     "movzbl 0x600000, %edx\n"
                     "dec %ecx\n"
                     "jnz 1b\n"
                     "push 0x600000\n"
                     "pop 0x601004\n"
                     "mov %esp, %ebp\n"
                     "mov $0x603000, %esp\n"
                     "push $0x77\n"
                     "push %esp\n"
                     "pop %esi\n"
                     "pop %edi\n"
                     "mov %ebp, %esp\n"
                     "fldpi\n"
                     "fstpl 0x602000\n"
                     "mov 0x600000, %ah\n"
                     "hlt\n");

static void copies_words(struct bench *b)
{
    map_both(b);
    bench_put32(b, USER_PAGE, 0);
    bench_put32(b, USER_PAGE + 0x1000, 0);
    BENCH_LOAD(b, CODE, copies_a_word);
    bench_run(b);
    assert_int_equal(bench_get32(b, USER_PAGE), 50);
    assert_int_equal(bench_get32(b, USER_PAGE + 0x1000), 50);
    assert_int_equal(bench_get32(b, USER_PAGE + 0x1004), 50);
    for (unsigned i = 1; i <= 50; i++)
        assert_int_equal(bench_get32(b, USER_PAGE + 4 + 4 * i), 51 - i);
    assert_int_equal(bench_reg(b, REG_SI), USER_PAGE + 0x2FFC);
    assert_int_equal(bench_reg(b, REG_DI), 0x77);
    assert_int_equal(bench_get32(b, USER_PAGE + 0x2000), 0x54442D18); /* pi */
    assert_int_equal(bench_reg(b, REG_AX) >> 8 & 0xFF, 50);
}

static void supervisor_code_reaches_user_pages(void **state)
{
    (void)state;
    bench_everywhere(copies_words);
}

static void a_site_that_has_learned_faults_no_more(void **state)
{
    struct bench *b = bench_create();
    (void)state;

    copies_words(b);
    assert_true(b->d->stats.user_sites > 5);
    bench_reset(b);
    uint64_t sites = b->d->stats.user_sites, emulated = b->d->stats.emulated_faults;
    copies_words(b);
    assert_int_equal(b->d->stats.user_sites, sites);
    assert_int_equal(b->d->stats.emulated_faults, emulated);
    assert_int_equal(b->d->stats.mixed_sites, 0);
    bench_destroy(b);
}

/* copy_to_user, copy_from_user, and both: REP MOVS with one operand or two in the user window. */
GUEST(copies_strings, "mov $0x600000, %edi\n"
                      "mov $0x700000, %esi\n"
                      "mov $0x500, %ecx\n"
                      "rep movsl\n"
                      "mov $0x600000, %esi\n"
                      "mov $0x702000, %edi\n"
                      "mov $0x500, %ecx\n"
                      "rep movsl\n"
                      "mov $0x600000, %esi\n"
                      "mov $0x602000, %edi\n"
                      "mov $0x500, %ecx\n"
                      "rep movsl\n"
                      "mov $0x602000, %esi\n"
                      "mov $0x702000, %edi\n"
                      "mov $0x500, %ecx\n"
                      "repe cmpsl\n"
                      "sete %al\n"
                      "mov %esi, %ebx\n"
                      "mov %edi, %edx\n"
                      "hlt\n");

static void copies_strings_about(struct bench *b)
{
    map_both(b);
    for (uint32_t i = 0; i < 0x1400; i += 4)
        bench_put32(b, SUPER_PAGE + i, i * 0x01010101u);
    BENCH_LOAD(b, CODE, copies_strings);
    bench_run(b);
    const uint8_t *ram = mmu_ram(b->m);
    assert_memory_equal(ram + SUPER_PAGE, ram + USER_PAGE, 0x1400);
    assert_memory_equal(ram + SUPER_PAGE, ram + SUPER_PAGE + 0x2000, 0x1400);
    assert_memory_equal(ram + SUPER_PAGE, ram + USER_PAGE + 0x2000, 0x1400);
    assert_int_equal(bench_reg(b, REG_AX) & 0xFF, 1);
    assert_int_equal(bench_reg(b, REG_BX), USER_PAGE + 0x2000 + 0x1400);
    assert_int_equal(bench_reg(b, REG_DX), SUPER_PAGE + 0x2000 + 0x1400);
}

static void strings_may_lie_on_user_pages_on_either_side(void **state)
{
    (void)state;
    bench_everywhere(copies_strings_about);
}

/* memcpy and a load and store that serve user and supervisor pages in turn. */
GUEST(serves_both, "mov $40, %ecx\n"
                   "1: mov $0x600000, %esi\n"
                   "mov $0x700000, %edi\n"
                   "call 2f\n"
                   "mov $0x700000, %esi\n"
                   "mov $0x601000, %edi\n"
                   "call 2f\n"
                   "mov $0x600000, %esi\n"
                   "mov $0x602000, %edi\n"
                   "call 2f\n"
                   "mov $0x700000, %esi\n"
                   "mov $0x701000, %edi\n"
                   "call 2f\n"
                   "loop 1b\n"
                   "hlt\n"
                   "2: mov (%esi), %eax\n" /* the first dword by itself */
                   "inc %eax\n"
                   "mov %eax, (%esi)\n"
                   "push (%esi)\n"
                   "pop (%edi)\n"
                   "add $4, %esi\n"
                   "add $4, %edi\n"
                   "push %ecx\n"
                   "mov $63, %ecx\n"
                   "rep movsl\n"
                   "pop %ecx\n"
                   "ret\n");

static void serves_both_kinds(struct bench *b)
{
    map_both(b);
    for (uint32_t i = 0; i < 0x100; i += 4) {
        bench_put32(b, USER_PAGE + i, i ? i * 0x01010101u : 0);
        bench_put32(b, SUPER_PAGE + i, 0);
    }
    BENCH_LOAD(b, CODE, serves_both);
    bench_run(b);
    const uint8_t *ram = mmu_ram(b->m);
    assert_int_equal(bench_get32(b, USER_PAGE), 80);
    assert_int_equal(bench_get32(b, SUPER_PAGE), 81); /* copied from 79, then raised twice */
    assert_memory_equal(ram + USER_PAGE + 4, ram + SUPER_PAGE + 4, 0xFC);
    assert_memory_equal(ram + USER_PAGE + 4, ram + USER_PAGE + 0x1004, 0xFC);
    assert_memory_equal(ram + USER_PAGE + 4, ram + USER_PAGE + 0x2004, 0xFC);
    assert_memory_equal(ram + USER_PAGE + 4, ram + SUPER_PAGE + 0x1004, 0xFC);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void a_site_may_touch_both_kinds_of_pages_in_turn(void **state)
{
    (void)state;
    bench_everywhere(serves_both_kinds);
}

/* One access, half on a user page and half on a supervisor's. */
GUEST(straddles, "movl $0x11223344, 0x5FFFFE\n"
                 "mov 0x5FFFFE, %eax\n"
                 "mov %eax, 0x603FFE\n"
                 "addl $0x01010101, 0x603FFE\n"
                 "mov 0x603FFE, %ebx\n"
                 "movups 0x603FF8, %xmm0\n"
                 "movups %xmm0, 0x700010\n"
                 "hlt\n");

static void straddles_pages(struct bench *b)
{
    map_both(b);
    BENCH_LOAD(b, CODE, straddles);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 0x11223344);
    assert_int_equal(bench_reg(b, REG_BX), 0x12233445);
    assert_int_equal(bench_get32(b, 0x5FFFFC) >> 16, 0x3344);
    assert_int_equal(bench_get32(b, 0x600000) & 0xFFFF, 0x1122);
    assert_memory_equal(mmu_ram(b->m) + 0x603FF8, mmu_ram(b->m) + 0x700010, 16);
}

static void an_access_may_straddle_user_and_supervisor_pages(void **state)
{
    (void)state;
    bench_everywhere(straddles_pages);
}

/* A user page that is remapped is seen through learned sites as well. */
GUEST(reads_user, "mov 0x600000, %eax\n"
                  "hlt\n");

static void reads_remapped(struct bench *b)
{
    map_both(b);
    bench_put32(b, USER_PAGE, 1);
    bench_put32(b, USER_PAGE + 0x1000, 2);
    BENCH_LOAD(b, CODE, reads_user);
    for (unsigned i = 0; i < 6; i++) {
        bench_map(b, USER_PAGE, i & 1 ? USER_PAGE + 0x1000 : USER_PAGE, USER);
        bench_flush(b);
        b->v->rip = CODE;
        bench_run(b);
        assert_int_equal(bench_reg(b, REG_AX), i & 1 ? 2 : 1);
    }
    bench_map(b, USER_PAGE, 0, 0);
    bench_flush(b);
    b->v->rip = CODE;
    struct bench_frame f = bench_run_to(b, VEC_PF);
    assert_int_equal(f.error, 0);
    assert_int_equal(b->v->cr2, USER_PAGE);
    /* And one that has become the supervisor's. */
    bench_map(b, USER_PAGE, USER_PAGE, KERNEL);
    bench_flush(b);
    b->v->rip = CODE;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 1);
}

static void learned_sites_see_changes_of_the_tables(void **state)
{
    (void)state;
    bench_everywhere(reads_remapped);
}

/* User code gets none of the supervisor's pages, whatever the supervisor did before. */
static void user_reads_kernel(struct bench *b)
{
    map_both(b);
    for (uint32_t gpa = CODE; gpa < DATA; gpa += PAGE_SIZE)
        bench_map(b, gpa, gpa, USER);
    bench_flush(b);
    bench_write(b, CODE, "\xA1\x00\x00\x70\x00\xF4", 6); /* mov 0x700000, %eax; hlt */
    bench_run(b);
    bench_ring3(b);
    b->v->rip = CODE;
    struct bench_frame f = bench_run_to(b, VEC_PF);
    assert_int_equal(f.error, 5);
    assert_int_equal(b->v->cr2, SUPER_PAGE);
    assert_int_equal(f.eip, CODE);
}

static void user_code_never_reaches_supervisor_pages(void **state)
{
    (void)state;
    bench_everywhere(user_reads_kernel);
}

/* ---- CR0.WP ---- */

GUEST(writes_read_only, "incl 0x700000\n"
                        "incl 0x600000\n"
                        "hlt\n");

static void ignores_write_protection(struct bench *b)
{
    map_both(b);
    bench_map(b, SUPER_PAGE, SUPER_PAGE, PT_P);
    bench_map(b, USER_PAGE, USER_PAGE, PT_P | PT_U);
    bench_set_cr0(b, b->v->cr0 & ~(uint32_t)CR0_WP);
    bench_put32(b, SUPER_PAGE, 1);
    bench_put32(b, USER_PAGE, 1);
    BENCH_LOAD(b, CODE, writes_read_only);
    for (unsigned i = 0; i < 4; i++) {
        b->v->rip = CODE;
        bench_run(b);
        assert_int_equal(bench_get32(b, SUPER_PAGE), 2 + i);
        assert_int_equal(bench_get32(b, USER_PAGE), 2 + i);
    }
    /* With WP both fault again. */
    bench_set_cr0(b, b->v->cr0 | CR0_WP);
    b->v->rip = CODE;
    struct bench_frame f = bench_run_to(b, VEC_PF);
    assert_int_equal(f.error, 3);
    assert_int_equal(b->v->cr2, SUPER_PAGE);
    b->v->rip = CODE + 6;
    b->v->regs[REG_SP] = STACK;
    f = bench_run_to(b, VEC_PF);
    assert_int_equal(f.error, 3);
    assert_int_equal(b->v->cr2, USER_PAGE);
    assert_int_equal(bench_get32(b, SUPER_PAGE), 5);
    assert_int_equal(bench_get32(b, USER_PAGE), 5);
}

static void the_supervisor_may_write_anything_without_wp(void **state)
{
    (void)state;
    bench_everywhere(ignores_write_protection);
}

/* ---- segments ---- */

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

/* ---- I/O memory and ROM ---- */

static uint32_t mmio_read(void *opaque, uint32_t gpa, unsigned size)
{
    struct bench *b = opaque;
    b->out[b->outs++ % BENCH_OUT_MAX] = 0x10000000 | size << 20 | (gpa & 0xFFFFF);
    return 0x80818283 >> 8 * (gpa & 3);
}

static void mmio_write(void *opaque, uint32_t gpa, unsigned size, uint32_t value)
{
    struct bench *b = opaque;
    b->out[b->outs++ % BENCH_OUT_MAX] = 0x20000000 | size << 20 | (gpa & 0xFFFFF);
    b->out[b->outs++ % BENCH_OUT_MAX] = value & (uint32_t)width_mask(size);
}

GUEST(touches_mmio, "mov 0xA0000, %eax\n"
                    "mov 0xA0004, %bl\n"
                    "movw $0x1234, 0xA0008\n"
                    "addl $1, 0xA000C\n"
                    "mov $0xA0010, %edi\n"
                    "mov $2, %ecx\n"
                    "rep stosl\n"
                    "push 0xA0000\n"
                    "pop %edx\n"
                    "hlt\n");

static void reaches_mmio(struct bench *b)
{
    static const uint32_t seen[] = {0x104A0000, 0x101A0004, 0x202A0008, 0x1234,
                                    0x104A000C, 0x204A000C, 0x80818284, 0x204A0010,
                                    0x80818283, 0x204A0014, 0x80818283, 0x104A0000};

    mmu_set_io(b->m, &(struct mmu_io){mmio_read, mmio_write, b});
    BENCH_LOAD(b, CODE, touches_mmio);
    for (unsigned i = 0; i < 3; i++) {
        b->v->rip = CODE;
        b->outs = 0;
        bench_run(b);
        assert_int_equal(bench_reg(b, REG_AX), 0x80818283);
        assert_int_equal(bench_reg(b, REG_BX) & 0xFF, 0x83);
        assert_int_equal(bench_reg(b, REG_DX), 0x80818283);
        assert_int_equal(b->outs, ARRAY_LEN(seen));
        for (unsigned j = 0; j < ARRAY_LEN(seen); j++)
            assert_int_equal(b->out[j], j == 1 ? 0x101A0004 : seen[j]);
    }
}

static void io_memory_sees_each_access_once(void **state)
{
    (void)state;
    bench_scenario_with(reaches_mmio, NULL);
    bench_scenario_with(reaches_mmio, &(struct dbt_options){.verify = true});
    bench_scenario_with(reaches_mmio, &(struct dbt_options){.no_bmi2 = true, .no_fsgsbase = true});
}

GUEST(writes_rom, "movl $0, 0xF0000\n"
                  "incl 0xF0000\n"
                  "mov 0xF0000, %eax\n"
                  "call *%esi\n"
                  "hlt\n");

static void rom_stays(struct bench *b)
{
    static const uint8_t rom[] = {0xBB, 0x01, 0x00, 0x00, 0x00, 0xC3}; /* mov $1, %ebx; ret */

    mmu_set_rom(b->m, 0xF0000, 0x10000);
    mmu_load(b->m, 0xF0000, rom, sizeof(rom));
    BENCH_LOAD(b, CODE, writes_rom);
    b->v->regs[REG_SI] = 0xF0000;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 0x000001BB);
    assert_int_equal(bench_reg(b, REG_BX), 1);
}

static void rom_can_be_run_and_not_written(void **state)
{
    (void)state;
    bench_everywhere(rom_stays);
}

/* Code in I/O memory is executed, an instruction at a time. */
static uint32_t mmio_code(void *opaque, uint32_t gpa, unsigned size)
{
    static const uint8_t code[] = {0xB8, 0x2A, 0x00, 0x00, 0x00, 0x40, 0xC3, 0, 0, 0};
    uint32_t value = 0xFFFFFFFF;
    (void)opaque;
    for (unsigned i = 0; i < size; i++) {
        if (gpa - 0xB0000 + i < sizeof(code))
            value = (value & ~(0xFFu << 8 * i)) | (uint32_t)code[gpa - 0xB0000 + i] << 8 * i;
    }
    return value;
}

static void runs_in_mmio(struct bench *b)
{
    mmu_set_io(b->m, &(struct mmu_io){mmio_code, mmio_write, b});
    bench_write(b, CODE, "\xFF\xD6\xF4", 3); /* call *%esi; hlt */
    b->v->regs[REG_SI] = 0xB0000;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 43);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void code_in_io_memory_runs(void **state)
{
    (void)state;
    bench_everywhere(runs_in_mmio);
}

/* ---- the ends of the address space ---- */

/* Paging maps the last page and the first: accesses and strings wrap from one to the other. */
GUEST(wraps_around, "movl $0x44332211, 0xFFFFFFFE\n"
                    "mov 0xFFFFFFFE, %eax\n"
                    "mov $0xFFFFFFF8, %edi\n"
                    "mov $0x5A5A5A5A, %edx\n"
                    "xchg %eax, %edx\n"
                    "mov $6, %ecx\n"
                    "rep stosl\n"
                    "mov $8, %ebx\n"
                    "mov -10(%ebx), %esi\n"         /* FFFFFFFE by way of a sum */
                    "btl %edx, 0xFFFFFFF0(,%ebx)\n" /* anywhere: must stay in the window */
                    "hlt\n");

static void wraps(struct bench *b)
{
    bench_paging(b, KERNEL);
    bench_put32(b, TABLES + 4 * 1023, (TABLES + 0x6000) | KERNEL);
    bench_put32(b, TABLES + 0x6000 + 4 * 1023, 0x310000 | KERNEL);
    bench_flush(b);
    BENCH_LOAD(b, CODE, wraps_around);
    bench_run(b);
    struct bench_frame f = bench_exception(b);
    assert_int_equal(bench_reg(b, REG_DX), 0x44332211);
    assert_int_equal(bench_reg(b, REG_DI), 16);
    assert_int_equal(bench_reg(b, REG_SI), 0x5A5A5A5A);
    assert_int_equal(bench_get32(b, 0x310FFC), 0x5A5A5A5A);
    assert_int_equal(bench_get32(b, 0), 0x5A5A5A5A);
    assert_int_equal(bench_get32(b, 12), 0x5A5A5A5A);
    assert_int_equal(bench_get32(b, 16), 0);
    /* BT: bit 44332211h of FFFFFFF8h is in the dword at 8866438h, which is not mapped. */
    assert_int_equal(f.vector, VEC_PF);
    assert_int_equal(b->v->cr2, 0xFFFFFFF8u + (0x44332211u >> 5) * 4);
}

static void addresses_wrap_at_four_gigabytes(void **state)
{
    (void)state;
    bench_everywhere(wraps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(supervisor_code_reaches_user_pages),
        cmocka_unit_test(a_site_that_has_learned_faults_no_more),
        cmocka_unit_test(strings_may_lie_on_user_pages_on_either_side),
        cmocka_unit_test(a_site_may_touch_both_kinds_of_pages_in_turn),
        cmocka_unit_test(an_access_may_straddle_user_and_supervisor_pages),
        cmocka_unit_test(learned_sites_see_changes_of_the_tables),
        cmocka_unit_test(user_code_never_reaches_supervisor_pages),
        cmocka_unit_test(the_supervisor_may_write_anything_without_wp),
        cmocka_unit_test(segments_are_checked_and_added),
        cmocka_unit_test(stacks_may_have_a_base_and_a_limit),
        cmocka_unit_test(code_may_have_a_base_and_a_limit),
        cmocka_unit_test(a_branch_beyond_the_limit_is_at_fault_itself),
        cmocka_unit_test(io_memory_sees_each_access_once),
        cmocka_unit_test(rom_can_be_run_and_not_written),
        cmocka_unit_test(code_in_io_memory_runs),
        cmocka_unit_test(addresses_wrap_at_four_gigabytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
