/*
 * Code that changes: by stores into the block that is running, into others, through other linear
 * addresses, by devices, by page tables; and a code cache that is too small.
 */
#include "engine_bench.h"

#include "dbt/dbt.h"

/* ---- stores into code ---- */

/* Each round patches the immediate of the next instruction with EAX's own new value. */
GUEST(patches_next, "mov $20, %ecx\n"
                    "1: inc %edx\n"
                    "mov %edx, " AT("2f") "+1\n"
                                          "2: mov $0x7F7F7F7F, %eax\n"
                                          "add %eax, %ebx\n"
                                          "dec %ecx\n"
                                          "jnz 1b\n"
                                          "hlt\n");

static void patched_next(struct bench *b)
{
    BENCH_LOAD(b, CODE, patches_next);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), 20 * 21 / 2);
}

static void a_store_into_the_next_instruction_takes_effect_at_once(void **state)
{
    (void)state;
    bench_everywhere(patched_next);
}

/* The same with a string store, a push and a read-modify-write; and behind the store, in the same
   block, an instruction that has been executed before the store. */
GUEST(
    patches_by_all,
    "mov $" AT("1f") "+1, %edi\n"
                     "mov $0x11111111, %eax\n"
                     "stosl\n"
                     "1: mov $0, %ebx\n"
                     "mov %esp, %ebp\n"
                     "mov $" AT("2f") "+5, %esp\n"
                                      "push $0x22222222\n"
                                      "2: mov $0, %ecx\n"
                                      "mov %ebp, %esp\n"
                                      "mov $0, %edx\n"
                                      "addl $0x33333333, " AT(
                                          "3f") "+1\n"
                                                "3: mov $0, %edx\n"
                                                "mov $" AT("4f") "+1, %edi\n"
                                                                 "mov $" AT(
                                                                     "5f") ", %esi\n"
                                                                           "mov $4, %eax\n"
                                                                           "xchg %eax, %ecx\n"
                                                                           "rep movsb\n"
                                                                           "4: mov $0, %ecx\n"
                                                                           "xchg %eax, %ecx\n"
                                                                           "hlt\n"
                                                                           "5: .long 0x44444444\n");

static void patched_by_all(struct bench *b)
{
    uint8_t fresh[128];

    /* Every run is to begin with the original. */
    memcpy(fresh, patches_by_all, (size_t)(patches_by_all_end - patches_by_all));
    bench_load(b, CODE, fresh, fresh + (patches_by_all_end - patches_by_all));
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), 0x11111111);
    assert_int_equal(bench_reg(b, REG_CX), 0x22222222);
    assert_int_equal(bench_reg(b, REG_DX), 0x33333333);
    assert_int_equal(bench_reg(b, REG_AX), 0x44444444);
}

static void stores_of_every_kind_take_effect(void **state)
{
    (void)state;
    bench_everywhere(patched_by_all);
}

/* A loop body on another page, called, patched, called again, also by way of chained jumps. */
GUEST(patches_other, "mov $30, %ecx\n"
                     "1: mov %ecx, 0x201001\n"
                     "call 2f\n"
                     "add %eax, %ebx\n"
                     "movb $0xB8, 0x202000\n"
                     "mov %ecx, 0x202001\n"
                     "jmp *%esi\n"
                     "3: add %eax, %edx\n"
                     "dec %ecx\n"
                     "jnz 1b\n"
                     "hlt\n"
                     ".org 0x1000\n"
                     "2: mov $0, %eax\n"
                     "ret\n"
                     ".org 0x2000\n"
                     "mov $0, %eax\n"
                     "jmp 3b\n");

static void patched_other(struct bench *b)
{
    BENCH_LOAD(b, CODE, patches_other);
    b->v->regs[REG_SI] = CODE + 0x2000;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), 30 * 31 / 2);
    assert_int_equal(bench_reg(b, REG_DX), 30 * 31 / 2);
}

static void stores_into_other_pages_take_effect(void **state)
{
    (void)state;
    bench_everywhere(patched_other);
}

/* A function that, every fourth time, patches what stands behind the call: it returns there by way
   of a landing pad that was chained before. */
GUEST(patches_caller, "mov $12, %ecx\n"
                      "1: call 2f\n"
                      "3: mov $0, %eax\n"
                      "add %eax, %ebx\n"
                      "dec %ecx\n"
                      "jnz 1b\n"
                      "hlt\n"
                      "2: test $3, %cl\n"
                      "jnz 4f\n"
                      "mov %ecx, " AT("3b") "+1\n"
                                            "4: ret\n");

static void patched_caller(struct bench *b)
{
    BENCH_LOAD(b, CODE, patches_caller);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), 4 * (12 + 8 + 4));
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void a_function_may_patch_what_it_returns_to(void **state)
{
    (void)state;
    bench_everywhere(patched_caller);
}

/* Code and data on one page: the stores hit nothing that was translated. */
GUEST(mixed_page, "mov $200, %ecx\n"
                  "1: incl 2f - 0b + 0x200000\n"
                  "call 3f\n"
                  "dec %ecx\n"
                  "jnz 1b\n"
                  "mov 2f - 0b + 0x200000, %eax\n"
                  "hlt\n"
                  "3: incl 4f - 0b + 0x200000\n"
                  "ret\n"
                  "2: .long 0\n"
                  "4: .long 0\n");

static void data_among_code(struct bench *b)
{
    bench_write(b, CODE, mixed_page, (uint32_t)(mixed_page_end - mixed_page));
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 200);
}

static void code_and_data_may_share_a_page(void **state)
{
    (void)state;
    bench_everywhere(data_among_code);
}

/* ---- through another linear address ---- */

/* 0x500000 is an alias of the page at CODE + 0x1000: its code is patched through it. */
GUEST(patches_alias, "mov $10, %ecx\n"
                     "1: mov %ecx, 0x500001\n"
                     "call 2f\n"
                     "add %eax, %ebx\n"
                     "dec %ecx\n"
                     "jnz 1b\n"
                     "hlt\n"
                     ".org 0x1000\n"
                     "2: mov $0, %eax\n"
                     "ret\n");

static void patched_alias(struct bench *b)
{
    bench_paging(b, PT_P | PT_W);
    bench_map(b, 0x500000, CODE + 0x1000, PT_P | PT_W);
    bench_flush(b);
    BENCH_LOAD(b, CODE, patches_alias);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), 55);
}

/* The alias is written before the page holds translations, so that it is mapped writable then. */
static void patched_alias_of_a_user(struct bench *b)
{
    bench_paging(b, PT_P | PT_W | PT_U);
    bench_map(b, 0x500000, CODE + 0x1000, PT_P | PT_W | PT_U);
    bench_flush(b);
    bench_ring3(b);
    BENCH_LOAD(b, CODE, patches_alias);
    bench_run_to(b, VEC_GP);
    assert_int_equal(bench_reg(b, REG_BX), 55);
}

static void stores_through_an_alias_take_effect(void **state)
{
    (void)state;
    bench_everywhere(patched_alias);
    bench_everywhere(patched_alias_of_a_user);
}

/* One page of code at two linear addresses and with two EIPs: both run, both are dropped. */
GUEST(two_addresses, "call *%esi\n"
                     "call *%edi\n"
                     "movl $0x01580000, 0x201003\n" /* what stands there */
                     "call *%esi\n"
                     "call *%edi\n"
                     "hlt\n"
                     ".org 0x1000\n"
                     "1: call 2f\n" /* position-independent: adds where it stands */
                     "2: pop %eax\n"
                     "add %eax, %ebx\n"
                     "ret\n");

static void runs_at_two_addresses(struct bench *b)
{
    bench_paging(b, PT_P | PT_W);
    bench_map(b, 0x500000, CODE + 0x1000, PT_P | PT_W);
    bench_flush(b);
    BENCH_LOAD(b, CODE, two_addresses);
    b->v->regs[REG_SI] = CODE + 0x1000;
    b->v->regs[REG_DI] = 0x500000;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), 2 * (CODE + 0x1005) + 2 * 0x500005);
}

static void code_may_run_at_two_linear_addresses(void **state)
{
    (void)state;
    bench_everywhere(runs_at_two_addresses);
}

/* ---- by a device ---- */

GUEST(waits_for_dma, "mov $8, %ecx\n"
                     "1: call 2f\n"
                     "add %eax, %ebx\n"
                     "out %eax, $0x80\n" /* the device writes the constant */
                     "3: mov $0, %edx\n" /* and this one, next in the block */
                     "add %edx, %esi\n"
                     "dec %ecx\n"
                     "jnz 1b\n"
                     "hlt\n"
                     ".org 0x1000\n"
                     "2: mov $0, %eax\n"
                     "ret\n");

static void write_constants(struct bench *b, uint16_t port, uint32_t value)
{
    uint32_t after_out = 5 + 5 + 2 + 2;

    if (port != 0x80)
        return;
    bench_put32(b, CODE + 0x1001, value + 1);
    bench_put32(b, CODE + after_out + 1, value);
}

static void dma_into_code(struct bench *b)
{
    bench_write(b, CODE, waits_for_dma, (uint32_t)(waits_for_dma_end - waits_for_dma));
    b->on_out = write_constants;
    bench_run(b);
    b->on_out = NULL;
    assert_int_equal(bench_reg(b, REG_BX), 0 + 1 + 2 + 3 + 4 + 5 + 6 + 7);
    assert_int_equal(bench_reg(b, REG_SI), 0 + 1 + 2 + 3 + 4 + 5 + 6 + 7);
}

static void writes_of_devices_take_effect(void **state)
{
    (void)state;
    bench_everywhere(dma_into_code);
}

/* ---- at page ends ---- */

/* mov $imm, %eax whose immediate lies half on the next page; it is patched there, from afar. */
GUEST(patches_across, "mov $12, %ecx\n"
                      "1: mov %cx, 0x203000\n" /* the upper half */
                      "mov %ecx, 0x500000\n"
                      "call *%esi\n"
                      "add %eax, %ebx\n"
                      "dec %ecx\n"
                      "jnz 1b\n"
                      "hlt\n"
                      ".org 0x2FFD\n"
                      "mov $0x7, %eax\n"
                      "ret\n");

static void patched_across(struct bench *b)
{
    BENCH_LOAD(b, CODE, patches_across);
    b->v->regs[REG_SI] = CODE + 0x2FFD;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), (12 * 13 / 2) << 16 | 12 * 7);
}

static void an_instruction_across_a_page_end_may_be_patched_on_either_side(void **state)
{
    (void)state;
    bench_everywhere(patched_across);
}

/*
 * The second page of an instruction that crosses, and what follows it, is mapped to another frame
 * and back: by INVLPG, by MOV CR3, in the supervisor's window, called and jumped to.
 */
GUEST(remaps_second, "mov $10, %ecx\n"
                     "1: mov %ecx, %eax\n"
                     "and $1, %eax\n"
                     "shl $12, %eax\n"
                     "add $0x310003, %eax\n" /* frame 0x310000 or 0x311000, present, writable */
                     "mov %eax, (%edi)\n"    /* the PTE */
                     "test $2, %cl\n"
                     "jz 2f\n"
                     "invlpg 0x204000\n"
                     "jmp 3f\n"
                     "2: mov %cr3, %eax\n"
                     "mov %eax, %cr3\n"
                     "3: call 4f\n"
                     "add %eax, %ebx\n"
                     "dec %ecx\n"
                     "jnz 1b\n"
                     "hlt\n"
                     ".org 0x3FF0\n"
                     "4: jmp 5f\n"
                     ".org 0x3FFD\n"
                     "5: .byte 0xB8, 0, 0\n"); /* mov $imm32, %eax: the rest is on the next page */

static void remapped_second(struct bench *b)
{
    static const uint8_t one[] = {1, 0, 0xC3}, two[] = {2, 0, 0xC3};

    bench_paging(b, PT_P | PT_W);
    BENCH_LOAD(b, CODE, remaps_second);
    bench_load(b, 0x310000, one, one + 3);
    bench_load(b, 0x311000, two, two + 3);
    b->v->regs[REG_DI] = bench_pte_gpa(CODE + 0x4000);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), (5 * 1 + 5 * 2) << 16);
}

static void the_second_page_of_an_instruction_may_be_remapped(void **state)
{
    (void)state;
    bench_everywhere(remapped_second);
}

/* Whole pages of code remapped under chained jumps, calls on the ring, and jump cache entries. */
GUEST(remaps_code, "mov $10, %ecx\n"
                   "1: mov %ecx, %eax\n"
                   "and $1, %eax\n"
                   "shl $12, %eax\n"
                   "add $0x310003, %eax\n"
                   "mov %eax, (%edi)\n"
                   "test $2, %cl\n"
                   "jz 2f\n"
                   "invlpg 0x205000\n"
                   "jmp 3f\n"
                   "2: mov %cr3, %eax\n"
                   "mov %eax, %cr3\n"
                   "3: mov $0, %eax\n"
                   "call 4f\n"    /* direct */
                   "call *%esi\n" /* indirect */
                   "jmp 5f\n"     /* chained, behind the call's target */
                   "6: add %eax, %ebx\n"
                   "dec %ecx\n"
                   "jnz 1b\n"
                   "hlt\n"
                   ".org 0x5000\n"
                   "4: inc %eax\n"
                   "ret\n"
                   ".org 0x5100\n"
                   "5: add $0x10, %eax\n"
                   "jmp 6b\n");

static void remapped_code(struct bench *b)
{
    /* The same in both frames, but for what is added. */
    uint8_t page[0x10A];
    int32_t rel;

    bench_paging(b, PT_P | PT_W);
    BENCH_LOAD(b, CODE, remaps_code);
    memcpy(page, remaps_code + 0x5000, sizeof(page));
    memcpy(&rel, page + 0x104, 4);
    bench_load(b, 0x310000, page, page + sizeof(page));
    page[0] = 0x90;
    page[0x102] = 0x20;
    bench_load(b, 0x311000, page, page + sizeof(page));
    b->v->regs[REG_DI] = bench_pte_gpa(CODE + 0x5000);
    b->v->regs[REG_SI] = CODE + 0x5000;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), 5 * (2 + 0x10) + 5 * 0x20);
}

static void code_pages_may_be_remapped(void **state)
{
    (void)state;
    bench_everywhere(remapped_code);
}

/*
 * A function remaps its caller: it returns to the same EIP, which is other code now. The caller's
 * page belongs to users, which a supervisor may execute as well.
 */
GUEST(remaps_caller, "mov $6, %ecx\n"
                     "1: jmp *%esi\n"
                     "2: mov %ecx, %eax\n" /* the function */
                     "and $1, %eax\n"
                     "shl $12, %eax\n"
                     "add %ebp, %eax\n"
                     "mov %eax, (%edi)\n"
                     "invlpg 0x206000\n"
                     "ret\n"
                     "3: dec %ecx\n"
                     "jnz 1b\n"
                     "hlt\n"
                     ".org 0x6000\n"
                     "call 2b\n"
                     "add $1, %ebx\n"
                     "jmp 4f\n"
                     "4: jmp 3b\n");

static void remapped_caller_with(struct bench *b, unsigned flags)
{
    uint8_t page[0x10];

    bench_paging(b, PT_P | PT_W);
    BENCH_LOAD(b, CODE, remaps_caller);
    memcpy(page, remaps_caller + 0x6000, sizeof(page));
    bench_load(b, 0x310000, page, page + sizeof(page));
    page[7] = 0x10;
    bench_load(b, 0x311000, page, page + sizeof(page));
    bench_map(b, CODE + 0x6000, 0x310000, flags);
    bench_flush(b);
    b->v->regs[REG_DI] = bench_pte_gpa(CODE + 0x6000);
    b->v->regs[REG_SI] = CODE + 0x6000;
    b->v->regs[REG_BP] = 0x310000 | flags;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), 3 * 1 + 3 * 0x10);
}

static void remapped_caller(struct bench *b)
{
    remapped_caller_with(b, PT_P | PT_W);
}

static void remapped_user_caller(struct bench *b)
{
    remapped_caller_with(b, PT_P | PT_W | PT_U);
}

static void a_function_may_remap_its_caller(void **state)
{
    (void)state;
    bench_everywhere(remapped_caller);
}

static void a_function_may_remap_its_caller_on_a_user_page(void **state)
{
    (void)state;
    bench_everywhere(remapped_user_caller);
}

/* ---- two address spaces ---- */

/* Two directories that differ in one code page, taking turns; user code in each. */
enum { TABLES2 = TABLES + 0x8000, USER_CODE = 0x600000 };

static void two_spaces(struct bench *b)
{
    static const uint8_t one[] = {0x83, 0xC3, 0x01, 0xEB, 0x00, 0xCD, 0x30};
    static const uint8_t two[] = {0x83, 0xC3, 0x10, 0xEB, 0x00, 0xCD, 0x30};

    bench_paging(b, PT_P | PT_W | PT_U);
    bench_load(b, 0x310000, one, one + sizeof(one));
    bench_load(b, 0x311000, two, two + sizeof(two));
    bench_map(b, USER_CODE, 0x310000, PT_P | PT_U);
    /* The second: its own directory, its own table for the second 4 MiB. */
    for (unsigned i = 0; i < 1024; i++) {
        bench_put32(b, TABLES2 + 4 * i, bench_get32(b, TABLES + 4 * i));
        bench_put32(b, TABLES2 + 0x1000 + 4 * i, bench_get32(b, TABLES + 0x2000 + 4 * i));
    }
    bench_put32(b, TABLES2 + 4, (TABLES2 + 0x1000) | PT_P | PT_W | PT_U);
    bench_put32(b, TABLES2 + 0x1000 + 4 * ((USER_CODE >> 12) & 1023), 0x311000 | PT_P | PT_U);
    bench_flush(b);
    bench_ring3(b);
    uint32_t ebx = 0;
    for (unsigned i = 0; i < 8; i++) {
        b->v->cr3 = i & 1 ? TABLES2 : TABLES;
        bench_flush(b);
        bench_ring3(b);
        b->v->rip = USER_CODE;
        bench_run_to(b, 0x30);
        ebx += i & 1 ? 0x10 : 1;
        assert_int_equal(bench_reg(b, REG_BX), ebx);
    }
}

static void address_spaces_have_code_of_their_own(void **state)
{
    (void)state;
    bench_everywhere(two_spaces);
}

/* ---- a full cache ---- */

/* 3000 functions of one instruction each, all called, five times. */
static void calls_many(struct bench *b)
{
    enum { FUNCTIONS = 3000 };
    static uint8_t code[FUNCTIONS * 16];

    for (unsigned i = 0; i < FUNCTIONS; i++) {
        uint8_t *p = code + 16 * i;
        memset(p, 0xF4, 16);
        p[0] = 0x81; /* add $i, %eax */
        p[1] = 0xC0;
        memcpy(p + 2, &(uint32_t){i}, 4);
        p[6] = 0xC3;
    }
    static const uint8_t caller[] = {
        0xBE, 0x00, 0x00, 0x21, 0x00, /* mov $0x210000, %esi */
        0xB9, 0xB8, 0x0B, 0x00, 0x00, /* mov $3000, %ecx */
        0xFF, 0xD6,                   /* 1: call *%esi */
        0x83, 0xC6, 0x10,             /* add $16, %esi */
        0x49, 0x75, 0xF8,             /* dec %ecx; jnz 1b */
        0x4D, 0x75, 0xEB,             /* dec %ebp; jnz 0b */
        0xF4,
    };
    bench_load(b, CODE, caller, caller + sizeof(caller));
    bench_load(b, 0x210000, code, code + sizeof(code));
    b->v->regs[REG_BP] = 5;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 5 * (2999 * 3000 / 2));
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void more_code_than_the_cache_holds_runs(void **state)
{
    (void)state;
    bench_everywhere(calls_many);
    struct bench *b = bench_create_with(&(struct dbt_options){.cache_size = 256 << 10}, 0);
    calls_many(b);
    assert_true(b->d->stats.flushes > 2);
    bench_destroy(b);
}

/* A recursion whose every level translates new code, so that the cache is emptied under it: level n
   is a function of its own, called through a table. */
static void recurses_through_flushes(struct bench *b)
{
    enum { LEVELS = 1500 };
    static uint8_t code[LEVELS * 32];

    for (unsigned i = 0; i < LEVELS; i++) {
        uint8_t *p = code + 32 * i;
        uint32_t rel = 32 - 7;
        memset(p, 0xF4, 32);
        p[0] = 0x40; /* inc %eax; push %eax */
        p[1] = 0x50;
        p[2] = 0xE8; /* call the next level */
        memcpy(p + 3, &rel, 4);
        memcpy(p + 7, "\x5A\x01\xD3\x40\xC3", 5); /* pop %edx; add %edx, %ebx; inc %eax; ret */
    }
    code[32 * (LEVELS - 1)] = 0xC3;
    bench_load(b, 0x210000, code, code + sizeof(code));
    bench_write(b, CODE, "\xFF\xD6\xF4", 3);
    b->v->regs[REG_SI] = 0x210000;
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 2 * (LEVELS - 1));
    assert_int_equal(bench_reg(b, REG_BX), (LEVELS - 1) * LEVELS / 2);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void the_cache_may_be_emptied_under_calls(void **state)
{
    (void)state;
    bench_everywhere(recurses_through_flushes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_store_into_the_next_instruction_takes_effect_at_once),
        cmocka_unit_test(stores_of_every_kind_take_effect),
        cmocka_unit_test(stores_into_other_pages_take_effect),
        cmocka_unit_test(a_function_may_patch_what_it_returns_to),
        cmocka_unit_test(code_and_data_may_share_a_page),
        cmocka_unit_test(stores_through_an_alias_take_effect),
        cmocka_unit_test(code_may_run_at_two_linear_addresses),
        cmocka_unit_test(writes_of_devices_take_effect),
        cmocka_unit_test(an_instruction_across_a_page_end_may_be_patched_on_either_side),
        cmocka_unit_test(the_second_page_of_an_instruction_may_be_remapped),
        cmocka_unit_test(code_pages_may_be_remapped),
        cmocka_unit_test(a_function_may_remap_its_caller),
        cmocka_unit_test(a_function_may_remap_its_caller_on_a_user_page),
        cmocka_unit_test(address_spaces_have_code_of_their_own),
        cmocka_unit_test(more_code_than_the_cache_holds_runs),
        cmocka_unit_test(the_cache_may_be_emptied_under_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
