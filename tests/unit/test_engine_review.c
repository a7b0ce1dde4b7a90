/*
 * Corners that a review of the engine found: interrupt shadows before instructions that poll, code
 * that runs to the end of a 16-bit segment, alignment checks, rights that fall on a page with code.
 */
#include "engine_bench.h"

#include <pthread.h>
#include <stdatomic.h>

#include "dbt/dbt.h"

/* ---- shadows ---- */

struct kicker {
    pthread_t victim, thread;
    atomic_bool done;
};

static void *kick(void *opaque)
{
    struct kicker *k = opaque;
    while (!atomic_load(&k->done)) {
        pthread_kill(k->victim, DBT_KICK_SIGNAL);
        usleep(20);
    }
    return NULL;
}

static void raise_line(struct bench *b)
{
    b->v->irq_line = b->v->sys_flags & FLAG_IF;
}

/* STI before a jump backwards, a call and a loop. The handler counts at DATA, and mistakes, which
   are frames whose EIP is that of the instruction behind STI, at DATA + 4. */
GUEST(polls_in_shadow, "mov $0x7FFFFFFF, %edi\n"
                       "jmp 2f\n"
                       "1: cli\n"
                       "mov $2, %ecx\n"
                       "jmp 5f\n"
                       "2: cli\n"
                       "sti\n"
                       "3: jmp 1b\n"
                       "5: sti\n"
                       "6: call 7f\n"
                       "7: pop %eax\n"
                       "cli\n"
                       "sti\n"
                       "8: loop 8b\n"
                       "cmpl $300, 0x300000\n"
                       "jae 9f\n"
                       "dec %edi\n"
                       "jnz 2b\n"
                       "9: cli\n"
                       "hlt\n"
                       ".org 0x1000\n"
                       "incl 0x300000\n"
                       "cmpl $" AT("3b") ", (%esp)\n"
                                         "je 1f\n"
                                         "cmpl $" AT("6b") ", (%esp)\n"
                                                           "je 1f\n"
                                                           "cmpl $" AT("8b") ", (%esp)\n"
                                                                             "jne 2f\n"
                                                                             "cmp $2, %ecx\n"
                                                                             "jne 2f\n"
                                                                             "1: incl 0x300004\n"
                                                                             "2: iret\n");

static void keep_shadows(struct bench *b, const uint8_t *begin, const uint8_t *end)
{
    struct kicker k = {.victim = pthread_self()};

    bench_gate(b, 0x40, CODE + 0x1000, 0x8E);
    b->vector = 0x40;
    bench_put32(b, DATA, 0);
    bench_put32(b, DATA + 4, 0);
    bench_load(b, CODE, begin, end);
    b->on_poll = raise_line;
    assert_int_equal(pthread_create(&k.thread, NULL, kick, &k), 0);
    bench_run(b);
    atomic_store(&k.done, true);
    pthread_join(k.thread, NULL);
    b->v->kicked = false;
    b->on_poll = NULL;
    b->v->irq_line = false;
    assert_true(bench_get32(b, DATA) > 50);
    assert_int_equal(bench_get32(b, DATA + 4), 0);
}

static void keeps_shadows(struct bench *b)
{
    keep_shadows(b, polls_in_shadow, polls_in_shadow_end);
}

/* A REP string is a safe point between its elements, but not before the first. */
GUEST(string_in_shadow, "mov $0x7FFFFFFF, %edi\n"
                        "1: cli\n"
                        "mov $4, %ecx\n"
                        "mov $0x301000, %esi\n"
                        "sti\n"
                        "2: rep lodsb\n"
                        "cmpl $300, 0x300000\n"
                        "jae 3f\n"
                        "dec %edi\n"
                        "jnz 1b\n"
                        "3: cli\n"
                        "hlt\n"
                        ".org 0x1000\n"
                        "incl 0x300000\n"
                        "cmpl $" AT("2b") ", (%esp)\n"
                                          "jne 2f\n"
                                          "cmp $4, %ecx\n"
                                          "jne 2f\n"
                                          "incl 0x300004\n"
                                          "2: iret\n");

static void keeps_shadow_of_string(struct bench *b)
{
    keep_shadows(b, string_in_shadow, string_in_shadow_end);
}

static void nothing_comes_between_sti_and_an_instruction_that_polls(void **state)
{
    (void)state;
    bench_scenario_with(keeps_shadows, &(struct dbt_options){.no_bmi2 = true});
    bench_scenario_with(keeps_shadows, NULL);
    bench_scenario_with(keeps_shadow_of_string, &(struct dbt_options){.no_bmi2 = true});
    bench_scenario_with(keeps_shadow_of_string, NULL);
}

/* ---- the end of a 16-bit segment ---- */

static void runs_to_the_end(struct bench *b)
{
    /* INC AX twice, ending at FFFFh of a segment at CODE with a limit of 64 KiB. */
    bench_write(b, CODE + 0xFFFE, "\x40\x40", 2);
    bench_write(b, CODE, "\xF4", 1);
    bench_descriptor(b, SEL_TEST, CODE, 0xFFFF, 0x009B);
    bench_segment(b, SEG_CS, SEL_TEST);
    b->v->rip = 0xFFFE;
    b->v->regs[REG_AX] = 0;
    struct bench_frame f = bench_run_to(b, VEC_GP);
    assert_int_equal(f.error, 0);
    assert_int_equal(f.eip, 0x10000);
    assert_int_equal(bench_reg(b, REG_AX), 2);
}

static void code_does_not_wrap_at_the_end_of_a_16_bit_segment(void **state)
{
    (void)state;
    bench_everywhere(runs_to_the_end);
}

/* A 16-bit segment with a limit of 4 GiB: EIP is not cut but by branches. */
static void runs_on(struct bench *b)
{
    bench_write(b, CODE + 0xFFFE, "\x40\x40\x40\xF4", 4);
    bench_write(b, CODE, "\xF4", 1);
    bench_descriptor(b, SEL_TEST, CODE, 0xFFFFF, 0x809B);
    bench_segment(b, SEG_CS, SEL_TEST);
    b->v->rip = 0xFFFE;
    b->v->regs[REG_AX] = 0;
    assert_int_equal(bench_run(b), 0x10002);
    assert_int_equal(bench_reg(b, REG_AX), 3);
}

static void code_goes_on_behind_64k_of_a_larger_16_bit_segment(void **state)
{
    (void)state;
    bench_everywhere(runs_on);
}

/* ---- alignment ---- */

GUEST(misaligned, "mov $0x300001, %esi\n"
                  "mov (%esi), %al\n"
                  "1: mov (%esi), %eax\n"
                  "hlt\n");
GUEST(misaligned_push, "mov $0x6FFFE, %esp\n"
                       "1: push %eax\n"
                       "hlt\n");
GUEST(misaligned_string, "mov $0x300002, %edi\n"
                         "stosw\n"
                         "mov $0x300002, %edi\n"
                         "mov $4, %ecx\n"
                         "1: rep stosl\n"
                         "hlt\n");

static void check_alignment(struct bench *b, const uint8_t *begin, const uint8_t *end, uint32_t eip)
{
    bench_reset(b);
    bench_load(b, CODE, begin, end);
    b->v->cr0 |= CR0_AM;
    bench_ring3(b);
    vcpu_set_eflags(b->v, FLAG_AC);
    struct bench_frame f = bench_run_to(b, VEC_AC);
    assert_int_equal(f.error, 0);
    assert_int_equal(f.eip, CODE + eip);
    assert_true(f.eflags & FLAG_AC);
}

static void checks_alignment(struct bench *b)
{
    check_alignment(b, misaligned, misaligned_end, 7);
    check_alignment(b, misaligned_push, misaligned_push_end, 5);
    check_alignment(b, misaligned_string, misaligned_string_end, 17);
    /* Without AM nothing is checked: user code may not HLT. */
    bench_reset(b);
    BENCH_LOAD(b, CODE, misaligned);
    bench_ring3(b);
    vcpu_set_eflags(b->v, FLAG_AC);
    assert_int_equal(bench_run_to(b, VEC_GP).eip, CODE + 9);
}

static void user_code_is_checked_for_alignment(void **state)
{
    (void)state;
    bench_everywhere(checks_alignment);
}

/* ---- what comes first ---- */

/* Of two faults of one instruction, in a block and alone: with the trap flag, each instruction runs
   alone. */
static void check_first(struct bench *b, const uint8_t *begin, const uint8_t *end, int vector)
{
    for (unsigned alone = 0; alone < 2; alone++) {
        bench_reset(b);
        bench_load(b, CODE, begin, end);
        bench_paging(b, PT_P | PT_W);
        bench_map(b, DATA, 0, 0);
        bench_flush(b);
        if (alone)
            vcpu_set_eflags(b->v, FLAG_TF);
        bench_gate(b, VEC_DB, DATA + 0x2000, 0x8F);
        bench_write(b, DATA + 0x2000, "\xCF", 1);
        bench_run_to(b, vector);
        bench_gate(b, VEC_DB, HANDLERS + 16 * VEC_DB, 0xEE);
        bench_set_cr0(b, b->v->cr0 & ~(uint32_t)CR0_PG);
    }
}

GUEST(misaligned_and_absent, "andps 0x300008, %xmm0\n"
                             "hlt\n");
GUEST(pending_and_absent, "fldcw 0x200040\n"
                          "fld1\n"
                          "fldz\n"
                          "fdivrp\n"
                          "fstpl 0x300008\n"
                          "hlt\n"
                          ".org 0x40\n"
                          ".word 0x37B\n");

static void checks_what_comes_first(struct bench *b)
{
    check_first(b, misaligned_and_absent, misaligned_and_absent_end, VEC_GP);
    check_first(b, pending_and_absent, pending_and_absent_end, VEC_MF);
}

static void alignment_and_pending_exceptions_come_before_page_faults(void **state)
{
    (void)state;
    bench_everywhere(checks_what_comes_first);
}

/* ---- rights that fall ---- */

/* At DATA stand functions and a counter. It is written and executed in turn, so that its blocks
   come to check themselves and the page stays writable; then its entry is made read-only, another
   function there called (whose fetch sees the new entry), and the entry flushed. The last write
   must fault. The fetch is what the review was about. */
GUEST(rights_fall, "mov $100, %ecx\n"
                   "1: incl 0x300800\n"
                   "call *%ebx\n"
                   "dec %ecx\n"
                   "jnz 1b\n"
                   "andl $~2, (%edi)\n"
                   "add $0x10, %ebx\n"
                   "call *%ebx\n"
                   "invlpg 0x300000\n"
                   "2: incl 0x300800\n"
                   "hlt\n");

static void fetches_a_page_whose_rights_fell(struct bench *b)
{
    static const uint8_t functions[32] = {[0] = 0x40, 0xC3, [16] = 0x40, 0xC3};

    bench_paging(b, PT_P | PT_W);
    bench_flush(b);
    BENCH_LOAD(b, CODE, rights_fall);
    bench_write(b, DATA, functions, sizeof(functions));
    b->v->regs[REG_BX] = DATA;
    b->v->regs[REG_DI] = bench_pte_gpa(DATA);
    b->v->regs[REG_AX] = 0;
    struct bench_frame f = bench_run_to(b, VEC_PF);
    assert_int_equal(f.error, 3);
    assert_int_equal(b->v->cr2, DATA + 0x800);
    assert_int_equal(bench_reg(b, REG_AX), 101);
}

static void a_page_with_code_becomes_read_only_at_invlpg(void **state)
{
    (void)state;
    bench_everywhere(fetches_a_page_whose_rights_fell);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_comes_between_sti_and_an_instruction_that_polls),
        cmocka_unit_test(code_does_not_wrap_at_the_end_of_a_16_bit_segment),
        cmocka_unit_test(code_goes_on_behind_64k_of_a_larger_16_bit_segment),
        cmocka_unit_test(user_code_is_checked_for_alignment),
        cmocka_unit_test(alignment_and_pending_exceptions_come_before_page_faults),
        cmocka_unit_test(a_page_with_code_becomes_read_only_at_invlpg),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
