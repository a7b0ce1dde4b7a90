/*
 * Calls, returns, jumps: the return ring, the jump cache, chaining.
 */
#include "engine_bench.h"

#include "dbt/dbt.h"

/* ---- calls and returns ---- */

GUEST(fibonacci, "mov $12, %eax\n"
                 "call 1f\n"
                 "hlt\n"
                 "1: cmp $2, %eax\n"
                 "jb 2f\n"
                 "push %eax\n"
                 "dec %eax\n"
                 "call 1b\n"
                 "pop %ecx\n"
                 "push %eax\n"
                 "lea -2(%ecx), %eax\n"
                 "call 1b\n"
                 "pop %ecx\n"
                 "add %ecx, %eax\n"
                 "2: ret\n");

static void recursive(struct bench *b)
{
    BENCH_LOAD(b, CODE, fibonacci);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 144);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void a_recursive_function_returns_to_its_callers(void **state)
{
    (void)state;
    bench_everywhere(recursive);
}

/* Each way of returning to where no call was made sets another bit. */
GUEST(odd_returns,
      "xor %eax, %eax\n"
      /* A callee that returns somewhere else. */
      "call 1f\n"
      "hlt\n"
      "2: or $1, %eax\n"
      /* A return that nobody called. */
      "push $" AT("3f") "\n"
                        "ret\n"
                        "hlt\n"
                        "3: or $2, %eax\n"
                        /* A callee that takes its return address and jumps there. */
                        "call 4f\n"
                        "or $4, %eax\n"
                        /* One that returns to its caller's caller. */
                        "call 5f\n"
                        "or $8, %eax\n"
                        /* One that pops its parameters. */
                        "push $1\n"
                        "push $2\n"
                        "call 7f\n"
                        "or $0x10, %eax\n"
                        /* Two calls with the same return address in different places. */
                        "push $" AT("8f") "\n"
                                          "jmp 9f\n"
                                          "8: or $0x20, %eax\n"
                                          "push $" AT("8f") "\n"
                                                            "jmp 9f\n"
                                                            "8: or $0x40, %eax\n"
                                                            "hlt\n"
                                                            "1: movl $" AT("2b") ", (%esp)\n"
                                                                                 "ret\n"
                                                                                 "4: pop %ecx\n"
                                                                                 "jmp *%ecx\n"
                                                                                 "5: call 6f\n"
                                                                                 "hlt\n"
                                                                                 "6: add $4, %esp\n"
                                                                                 "ret\n"
                                                                                 "7: ret $8\n"
                                                                                 "9: ret\n");

static void mismatched(struct bench *b)
{
    BENCH_LOAD(b, CODE, odd_returns);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 0x7F);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void returns_go_where_the_stack_says(void **state)
{
    (void)state;
    bench_everywhere(mismatched);
}

GUEST(own_address, "call 1f\n"
                   "1: pop %eax\n"
                   "call 2f\n"
                   "mov %ecx, %edx\n"
                   "hlt\n"
                   "2: mov (%esp), %ecx\n"
                   "ret\n");

static void finds_itself(struct bench *b)
{
    BENCH_LOAD(b, CODE, own_address);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), CODE + 5);
    assert_int_equal(bench_reg(b, REG_DX), CODE + 11);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void code_finds_its_own_address_by_a_call(void **state)
{
    (void)state;
    bench_everywhere(finds_itself);
}

/* CALL through a register, memory, the stack, ESP itself; flags pass through all of it. */
GUEST(indirect_calls, "mov $" AT("1f") ", %ebx\n"
                                       "mov %ebx, 0x300000\n"
                                       "xor %eax, %eax\n"
                                       "call *%ebx\n"
                                       "call *0x300000\n"
                                       "push %ebx\n"
                                       "call *(%esp)\n"
                                       "add $4, %esp\n"
                                       "mov $0x300000, %edx\n"
                                       "mov $0, %esi\n"
                                       "call *(%edx,%esi,4)\n"
                                       "stc\n"
                                       "call 2f\n"
                                       "setc %cl\n"
                                       "hlt\n"
                                       "1: inc %eax\n"
                                       "ret\n"
                                       "2: ret\n");

static void called_indirectly(struct bench *b)
{
    BENCH_LOAD(b, CODE, indirect_calls);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 4);
    assert_int_equal(bench_reg(b, REG_CX) & 0xFF, 1);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void calls_through_registers_and_memory(void **state)
{
    (void)state;
    bench_everywhere(called_indirectly);
}

/* Frames with locals, ENTER and LEAVE, pushes of all widths, PUSHA and POPA. */
GUEST(frames, "mov $0x12345678, %ebp\n"
              "push $1\n"
              "push $2\n"
              "call 1f\n"
              "add $8, %esp\n"
              "mov %ebp, %ecx\n"
              "hlt\n"
              "1: push %ebp\n"
              "mov %esp, %ebp\n"
              "sub $0x20, %esp\n"
              "mov 8(%ebp), %eax\n"
              "shl $4, %eax\n"
              "add 12(%ebp), %eax\n"
              "mov %eax, -4(%ebp)\n"
              "push %ax\n"
              "pushw $7\n"
              "pop %edx\n"
              "call 2f\n"
              "mov -4(%ebp), %eax\n"
              "leave\n"
              "ret\n"
              "2: enter $16, $0\n"
              "pusha\n"
              "mov %esp, %ebx\n"
              "xor %eax, %eax\n"
              "popa\n"
              "sub %esp, %ebx\n"
              "leave\n"
              "ret\n");

static void makes_frames(struct bench *b)
{
    BENCH_LOAD(b, CODE, frames);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 0x21);
    assert_int_equal(bench_reg(b, REG_DX), 0x210007);
    assert_int_equal(bench_reg(b, REG_CX), 0x12345678);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void functions_have_frames(void **state)
{
    (void)state;
    bench_everywhere(makes_frames);
}

GUEST(deep, "mov $5000, %ecx\n"
            "call 1f\n"
            "hlt\n"
            "1: dec %ecx\n"
            "jz 2f\n"
            "call 1b\n"
            "inc %eax\n"
            "2: ret\n");

static void recurses_deeply(struct bench *b)
{
    uint64_t resets = b->d->stats.ring_resets;

    BENCH_LOAD(b, CODE, deep);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 4999);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
    assert_true(b->d->stats.ring_resets > resets);
}

static void recursion_may_be_deeper_than_the_ring(void **state)
{
    (void)state;
    bench_everywhere(recurses_deeply);
}

/* 3000 returns for no call at all. */
GUEST(only_returns, "push $" AT("3f") "\n"
                                      "mov $3000, %ecx\n"
                                      "1: push $" AT("2f") "\n"
                                                           "loop 1b\n"
                                                           "2: inc %eax\n"
                                                           "ret\n"
                                                           "3: hlt\n");

static void returns_only(struct bench *b)
{
    uint64_t resets = b->d->stats.ring_resets;

    BENCH_LOAD(b, CODE, only_returns);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 3001);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
    assert_true(b->d->stats.ring_resets > resets);
}

static void returns_may_outnumber_calls(void **state)
{
    (void)state;
    bench_everywhere(returns_only);
}

/* 100 times: 60 calls deep, then back to the top by resetting ESP; and a plain call after each. */
GUEST(long_jump, "mov $100, %edx\n"
                 "1: mov %esp, %ebp\n"
                 "mov $60, %ecx\n"
                 "call 2f\n"
                 "hlt\n"
                 "2: call 4f\n"
                 "loop 2b\n"
                 "mov %ebp, %esp\n"
                 "call 3f\n"
                 "dec %edx\n"
                 "jnz 1b\n"
                 "hlt\n"
                 "3: inc %eax\n"
                 "ret\n"
                 "4: push $" AT("5f") "\n" /* stays on the stack */
                                      "jmp *4(%esp)\n"
                                      "5: hlt\n");

static void jumps_out(struct bench *b)
{
    BENCH_LOAD(b, CODE, long_jump);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 100);
    assert_int_equal(bench_reg(b, REG_DX), 0);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void calls_may_be_abandoned(void **state)
{
    (void)state;
    bench_everywhere(jumps_out);
}

/* Two stacks that take turns, each with calls of its own between. */
GUEST(coroutines, "mov $0x60000, %ebx\n"
                  "sub $4, %ebx\n"
                  "movl $" AT("4f") ", (%ebx)\n"
                                    "mov $500, %edi\n"
                                    "1: call 2f\n"
                                    "dec %edi\n"
                                    "jnz 1b\n"
                                    "hlt\n"
                                    "2: call 3f\n"
                                    "inc %eax\n"
                                    "ret\n"
                                    "3: xchg %ebx, %esp\n" /* switch stacks and return there */
                                    "ret\n"
                                    "4: call 5f\n"
                                    "jmp 4b\n"
                                    "5: inc %edx\n"
                                    "call 3b\n"
                                    "inc %esi\n"
                                    "ret\n");

static void takes_turns(struct bench *b)
{
    BENCH_LOAD(b, CODE, coroutines);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 500);
    assert_int_equal(bench_reg(b, REG_DX), 500);
    assert_int_equal(bench_reg(b, REG_SI), 499);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void stacks_may_take_turns(void **state)
{
    (void)state;
    bench_everywhere(takes_turns);
}

/* Flags pass through calls, returns that match and that do not, and jumps of every kind. */
GUEST(carries_flags, "push %eax\n"
                     "popf\n"
                     "call 1f\n"
                     "call *%ebx\n"
                     "jmp *%ecx\n"
                     "hlt\n"
                     "1: ret\n"
                     ".org 0x100\n"
                     "ret\n"
                     ".org 0x200\n"
                     "push $" AT("2f") "\n"
                                       "ret\n"
                                       "2: jmp 3f\n"
                                       ".org 0x1300\n"
                                       "3: pushf\n"
                                       "pop %edx\n"
                                       "cld\n"
                                       "hlt\n");

static void flags_are_carried(struct bench *b)
{
    static const uint32_t flags[] = {FLAG_CF, FLAG_PF, FLAG_AF, FLAG_ZF, FLAG_SF, FLAG_OF, FLAG_DF};

    BENCH_LOAD(b, CODE, carries_flags);
    for (unsigned set = 0; set < 1u << ARRAY_LEN(flags); set++) {
        uint32_t value = 2;
        for (unsigned i = 0; i < ARRAY_LEN(flags); i++)
            value |= set >> i & 1 ? flags[i] : 0;
        b->v->rip = CODE;
        b->v->regs[REG_AX] = value;
        b->v->regs[REG_BX] = CODE + 0x100;
        b->v->regs[REG_CX] = CODE + 0x200;
        bench_run(b);
        assert_int_equal(bench_reg(b, REG_DX), value);
        assert_int_equal(bench_reg(b, REG_CX), CODE + 0x200);
        assert_int_equal(bench_reg(b, REG_AX), value);
    }
}

static void control_transfer_leaves_the_flags_alone(void **state)
{
    (void)state;
    bench_everywhere(flags_are_carried);
}

/* ---- jumps ---- */

/* Sixteen targets whose addresses agree in the low twelve bits, so that they share an entry of the
   jump cache; then sixteen that do not. ECX counts, EDX is the distance between targets. */
GUEST(indirect_jumps, "mov $160, %ecx\n"
                      "1: mov %ecx, %eax\n"
                      "and $15, %eax\n"
                      "imul %edx, %eax\n"
                      "add $0x210400, %eax\n"
                      "jmp *%eax\n");
/* add $i, %ebx; dec %ecx; jnz (to 1 above); hlt */
enum { AGAIN = CODE + 5 };

static void put_targets(struct bench *b, uint32_t distance)
{
    for (unsigned i = 0; i < 16; i++) {
        uint32_t at = 0x210400 + i * distance;
        uint8_t code[] = {0x83, 0xC3, (uint8_t)i, 0x49, 0x0F, 0x85, 0, 0, 0, 0, 0xF4};
        uint32_t rel = AGAIN - (at + 10);
        memcpy(code + 6, &rel, 4);
        bench_load(b, at, code, code + sizeof(code));
    }
    BENCH_LOAD(b, CODE, indirect_jumps);
    b->v->regs[REG_DX] = distance;
}

static void jumps_to_shared_entries(struct bench *b)
{
    put_targets(b, 4096);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), 10 * 120);
}

static void jumps_that_share_a_cache_entry_go_where_they_should(void **state)
{
    (void)state;
    bench_everywhere(jumps_to_shared_entries);
}

static void jumps_to_own_entries(struct bench *b)
{
    put_targets(b, 64);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_BX), 10 * 120);
}

static void jumps_with_entries_of_their_own_go_where_they_should(void **state)
{
    (void)state;
    bench_everywhere(jumps_to_own_entries);
}

static void warm_jumps_and_calls_do_not_come_to_c(void **state)
{
    struct bench *b = bench_create();
    (void)state;

    jumps_to_own_entries(b);
    bench_reset(b);
    uint64_t misses = b->d->stats.misses, unchained = b->d->stats.unchained;
    jumps_to_own_entries(b);
    assert_int_equal(b->d->stats.misses, misses);
    assert_int_equal(b->d->stats.unchained, unchained);

    bench_reset(b);
    recursive(b);
    bench_reset(b);
    misses = b->d->stats.misses;
    unchained = b->d->stats.unchained;
    recursive(b);
    assert_int_equal(b->d->stats.misses, misses);
    assert_int_equal(b->d->stats.unchained, unchained);
    bench_destroy(b);
}

/* Every conditional jump, taken and not; LOOP and its kin; JECXZ; forward and backward. */
GUEST(branches, "xor %ebx, %ebx\n" /* ZF, PF; no CF SF OF */
                "jo 9f\n jb 9f\n jne 9f\n ja 9f\n js 9f\n jnp 9f\n jl 9f\n jg 9f\n"
                "jno 1f\n hlt\n 1: jae 1f\n hlt\n 1: je 1f\n hlt\n 1: jbe 1f\n hlt\n"
                "1: jns 1f\n hlt\n 1: jp 1f\n hlt\n 1: jge 1f\n hlt\n 1: jle 1f\n hlt\n"
                "1: mov $5, %ecx\n"
                "2: inc %ebx\n"
                "loop 2b\n"
                "mov $5, %ecx\n"
                "3: inc %ebx\n"
                "cmp $8, %ebx\n"
                "loopne 3b\n" /* ends with EBX = 8, ECX = 2 */
                "mov %ecx, %esi\n"
                "mov $5, %ecx\n"
                "4: inc %ebx\n"
                "cmp %ebx, %ebx\n"
                "loope 4b\n" /* runs out: EBX = 13 */
                "jecxz 5f\n"
                "hlt\n"
                "5: inc %ecx\n"
                "jecxz 9f\n"
                "mov $0x10000, %ecx\n"
                "jcxz 6f\n" /* CX only */
                "hlt\n"
                "6: mov $0x10003, %ecx\n"
                "7: inc %ebx\n"
                "addr16 loop 7b\n" /* CX only: 3 times */
                "mov $1, %eax\n"
                "9: hlt\n");

static void branches_everywhere(struct bench *b)
{
    BENCH_LOAD(b, CODE, branches);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 1);
    assert_int_equal(bench_reg(b, REG_BX), 16);
    assert_int_equal(bench_reg(b, REG_CX), 0x10000);
    assert_int_equal(bench_reg(b, REG_SI), 2);
}

static void branches_are_taken_and_not_taken(void **state)
{
    (void)state;
    bench_everywhere(branches_everywhere);
}

/* Blocks in a row over three pages, jumping forth and back. */
GUEST(hops, "mov $200, %ecx\n"
            "1: jmp 2f\n"
            ".fill 5000, 1, 0xF4\n"
            "3: inc %ebx\n"
            "dec %ecx\n"
            "jnz 1b\n"
            "hlt\n"
            ".fill 5000, 1, 0xF4\n"
            "2: inc %eax\n"
            "jmp 3b\n");

static void hops_about(struct bench *b)
{
    BENCH_LOAD(b, CODE, hops);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 200);
    assert_int_equal(bench_reg(b, REG_BX), 200);
}

static void hops_about_ring_3(struct bench *b)
{
    bench_paging(b, PT_P | PT_W | PT_U);
    bench_ring3(b);
    BENCH_LOAD(b, CODE, hops);
    bench_run_to(b, VEC_GP); /* HLT */
    assert_int_equal(bench_reg(b, REG_AX), 200);
    assert_int_equal(bench_reg(b, REG_BX), 200);
}

static void hops_about_paged(struct bench *b)
{
    bench_paging(b, PT_P | PT_W);
    hops_about(b);
}

static void direct_jumps_cross_pages_in_every_window(void **state)
{
    (void)state;
    bench_everywhere(hops_about);
    bench_everywhere(hops_about_paged);
    bench_everywhere(hops_about_ring_3);
}

static void direct_jumps_are_chained_once_and_again_after_a_drop(void **state)
{
    struct bench *b = bench_create();
    (void)state;

    hops_about(b);
    uint64_t chains = b->d->stats.chains;
    assert_true(chains >= 3);
    bench_reset(b);
    hops_about(b);
    assert_int_equal(b->d->stats.chains, chains);

    /* Drops the block of label 3 alone: jumps to it are led back to their stubs. */
    uint64_t dropped = b->d->stats.dropped_blocks;
    bench_put32(b, CODE + 5 + 2 + 5000, bench_get32(b, CODE + 5 + 2 + 5000));
    assert_true(b->d->stats.dropped_blocks > dropped);
    bench_reset(b);
    hops_about(b);
    assert_true(b->d->stats.chains > chains);
    bench_destroy(b);
}

/* A block longer than the translator makes them, and one that runs into the next page. */
static void runs_straight(struct bench *b)
{
    uint8_t code[6001];

    memset(code, 0x40, sizeof(code)); /* inc %eax */
    code[6000] = 0xF4;
    bench_load(b, CODE, code, code + sizeof(code));
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), 6000);
}

static void straight_code_crosses_blocks_and_pages(void **state)
{
    (void)state;
    bench_everywhere(runs_straight);
}

/* Jumps and calls in 16-bit operand size cut EIP to 16 bits. */
static void jumps_with_16_bits(struct bench *b)
{
    static const uint8_t code[] = {
        0xB8, 0x00, 0x90, 0x34, 0x12, /* mov $0x12349000, %eax */
        0x66, 0xFF, 0xE0,             /* jmpw *%ax */
    };
    static const uint8_t there[] = {
        0x66, 0xE8, 0x01, 0x00, /* callw +1 */
        0xF4,                   /* hlt */
        0x66, 0xC3,             /* retw */
    };

    bench_load(b, CODE, code, code + sizeof(code));
    bench_load(b, 0x9000, there, there + sizeof(there));
    assert_int_equal(bench_run(b), 0x9005);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void sixteen_bit_jumps_cut_eip(void **state)
{
    (void)state;
    bench_everywhere(jumps_with_16_bits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recursive_function_returns_to_its_callers),
        cmocka_unit_test(returns_go_where_the_stack_says),
        cmocka_unit_test(code_finds_its_own_address_by_a_call),
        cmocka_unit_test(calls_through_registers_and_memory),
        cmocka_unit_test(functions_have_frames),
        cmocka_unit_test(recursion_may_be_deeper_than_the_ring),
        cmocka_unit_test(returns_may_outnumber_calls),
        cmocka_unit_test(calls_may_be_abandoned),
        cmocka_unit_test(stacks_may_take_turns),
        cmocka_unit_test(control_transfer_leaves_the_flags_alone),
        cmocka_unit_test(jumps_that_share_a_cache_entry_go_where_they_should),
        cmocka_unit_test(jumps_with_entries_of_their_own_go_where_they_should),
        cmocka_unit_test(warm_jumps_and_calls_do_not_come_to_c),
        cmocka_unit_test(branches_are_taken_and_not_taken),
        cmocka_unit_test(direct_jumps_cross_pages_in_every_window),
        cmocka_unit_test(direct_jumps_are_chained_once_and_again_after_a_drop),
        cmocka_unit_test(straight_code_crosses_blocks_and_pages),
        cmocka_unit_test(sixteen_bit_jumps_cut_eip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
