/*
 * Leaving translated code without polling it: kicks from a thread at any moment, and the interrupts
 * that come with them; shadows, HLT, and the end of a run.
 */
#include "engine_bench.h"

#include <pthread.h>
#include <stdatomic.h>

#include "dbt/dbt.h"

/* ---- who kicks ---- */

/* A thread that kicks once or again and again; or, without one, a timer of the kernel's. */
struct kicker {
    struct bench *b;
    pthread_t victim, thread;
    unsigned period_us;
    atomic_bool done;
    timer_t timer;
};

static void *kick(void *opaque)
{
    struct kicker *k = opaque;

    while (!atomic_load(&k->done)) {
        usleep(k->period_us);
        pthread_kill(k->victim, DBT_KICK_SIGNAL);
    }
    return NULL;
}

static void thread_start(struct kicker *k, struct bench *b, unsigned period_us)
{
    *k = (struct kicker){.b = b, .victim = pthread_self(), .period_us = period_us};
    assert_int_equal(pthread_create(&k->thread, NULL, kick, k), 0);
}

static void thread_stop(struct kicker *k)
{
    atomic_store(&k->done, true);
    pthread_join(k->thread, NULL);
    k->b->v->kicked = false;
}

static timer_t make_timer(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = DBT_KICK_SIGNAL};
    timer_t timer;

    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    return timer;
}

static void timer_start(struct kicker *k, struct bench *b, unsigned period_us)
{
    struct itimerspec when = {.it_value.tv_nsec = period_us * 1000,
                              .it_interval.tv_nsec = period_us * 1000};
    *k = (struct kicker){.b = b, .timer = make_timer()};
    timer_settime(k->timer, 0, &when, NULL);
}

static void timer_stop(struct kicker *k)
{
    timer_delete(k->timer);
    k->b->v->kicked = false;
}

/* ---- stop ---- */

static void stop_at_third_poll(struct bench *b)
{
    if (b->polls == 3)
        b->v->stop = true;
}

/* Runs until the third kick stops it. */
static void run_to_stop(struct bench *b)
{
    struct kicker k;

    b->on_poll = stop_at_third_poll;
    thread_start(&k, b, 500);
    bench_arm_watchdog(b, 20);
    enum dbt_stop why = dbt_run(b->d);
    bench_arm_watchdog(b, 0);
    thread_stop(&k);
    b->on_poll = NULL;
    b->v->stop = false;
    assert_false(b->ran_too_long);
    assert_int_equal(why, DBT_STOPPED);
    assert_int_equal(b->polls, 3);
}

GUEST(jumps_to_itself, "1: jmp 1b\n");
GUEST(loops_long, "mov $20000, %ebx\n"
                  "1: dec %ebx\n"
                  "jz 2f\n"
                  "inc %eax\n"
                  "test $1, %al\n"
                  "jnz 1b\n"
                  "jmp 1b\n"
                  "2: mov $20000, %ebx\n"
                  "jmp 1b\n");
GUEST(loops_by_loop, "1: loop 1b\n"
                     "jmp 1b\n");
GUEST(loops_by_jcxz, "1: xor %ecx, %ecx\n"
                     "jecxz 1b\n");
GUEST(recurses_forever, "1: mov $0x80000, %esp\n"
                        "mov $2000, %ecx\n"
                        "call 2f\n"
                        "jmp 1b\n"
                        "2: dec %ecx\n"
                        "jz 3f\n"
                        "call 2b\n"
                        "3: ret\n");
GUEST(jumps_indirectly, "mov $" AT("1f") ", %eax\n"
                                         "mov $" AT("2f") ", %ebx\n"
                                                          "1: jmp *%ebx\n"
                                                          "2: jmp *%eax\n");
GUEST(jumps_through_memory, "movl $" AT("1f") ", 0x300000\n"
                                              "1: jmp *0x300000\n");
GUEST(calls_indirectly, "mov $" AT("2f") ", %ebx\n"
                                         "1: call *%ebx\n"
                                         "jmp *%esi\n"
                                         "2: mov $" AT("1b") ", %esi\n"
                                                             "ret\n");
GUEST(returns_for_jumps, "1: push $" AT("2f") "\n"
                                              "ret\n"
                                              "2: push $" AT("1b") "\n"
                                                                   "ret\n");
GUEST(forward_only, "1: jmp 2f\n"
                    ".org 0x3000\n"
                    "2: jmp 1b\n");
GUEST(repeats_a_string, "1: mov $0x300000, %edi\n"
                        "mov $0x10000, %ecx\n"
                        "rep stosl\n"
                        "jmp 1b\n");
GUEST(calls_out, "1: cpuid\n"
                 "jmp 1b\n");
GUEST(faults_forever, "1: mov 0x1F00000, %eax\n"
                      "invlpg 0x1F00000\n"
                      "jmp 1b\n");

static const struct {
    const char *name;
    const uint8_t *begin, *end;
} endless[] = {
#define X(name)                                                                                    \
    {                                                                                              \
#name, name, name##_end                                                                    \
    }
    X(jumps_to_itself),   X(loops_long),       X(loops_by_loop),        X(loops_by_jcxz),
    X(recurses_forever),  X(jumps_indirectly), X(jumps_through_memory), X(calls_indirectly),
    X(returns_for_jumps), X(forward_only),     X(repeats_a_string),     X(calls_out),
    X(faults_forever),
#undef X
};

static void every_endless_guest(struct bench *b, uint32_t flags)
{
    for (unsigned i = 0; i < ARRAY_LEN(endless); i++) {
        bench_reset(b);
        bench_load(b, CODE, endless[i].begin, endless[i].end);
        vcpu_set_eflags(b->v, flags);
        run_to_stop(b);
    }
}

static void stops_with_interrupts_off(struct bench *b)
{
    every_endless_guest(b, 0);
}

static void stops_with_interrupts_on(struct bench *b)
{
    every_endless_guest(b, FLAG_IF);
}

static void kicks_stop_every_loop(void **state)
{
    (void)state;
    bench_everywhere(stops_with_interrupts_off);
    bench_scenario_with(stops_with_interrupts_on, NULL);
}

static void stops_user_code(struct bench *b)
{
    for (unsigned i = 0; i < ARRAY_LEN(endless); i++) {
        if (endless[i].begin == faults_forever)
            continue; /* INVLPG */
        bench_reset(b);
        bench_paging(b, PT_P | PT_W | PT_U);
        bench_ring3(b);
        bench_load(b, CODE, endless[i].begin, endless[i].end);
        run_to_stop(b);
    }
}

static void kicks_stop_every_loop_of_user_code(void **state)
{
    (void)state;
    bench_everywhere(stops_user_code);
}

/* A kick from before the run, and one for a thread that runs nothing, are not lost. */
static void a_kick_before_the_run_is_taken_at_its_start(void **state)
{
    struct bench *b = bench_create();
    (void)state;

    BENCH_LOAD(b, CODE, jumps_to_itself);
    b->v->stop = true;
    b->v->kicked = true;
    assert_int_equal(dbt_run(b->d), DBT_STOPPED);
    assert_int_equal(b->polls, 1);
    assert_int_equal(b->v->rip, CODE);
    bench_destroy(b);
}

/* One that comes while the one before is being served is not lost either. */
static void kick_again(struct bench *b)
{
    if (b->polls < 5)
        raise(DBT_KICK_SIGNAL);
    else
        b->v->stop = true;
}

static void is_kicked_while_polling(struct bench *b)
{
    BENCH_LOAD(b, CODE, jumps_to_itself);
    b->on_poll = kick_again;
    b->v->kicked = true;
    bench_arm_watchdog(b, 20);
    assert_int_equal(dbt_run(b->d), DBT_STOPPED);
    bench_arm_watchdog(b, 0);
    b->v->stop = false;
    b->on_poll = NULL;
    assert_false(b->ran_too_long);
    assert_int_equal(b->polls, 5);
}

static void a_kick_during_a_poll_makes_for_another(void **state)
{
    (void)state;
    bench_everywhere(is_kicked_while_polling);
}

/*
 * Single kicks at thousands of moments: were one lost, nothing would stop the guest. What matters
 * is C that is about to go back into translated code, so the guests are full of that: instructions
 * executed in C, hidden faults, jumps that are looked up.
 */
GUEST(meets_c_always, "1: cpuid\n"
                      "mov 0xF00000, %eax\n" /* not mapped: see the INVLPG */
                      "invlpg 0xF00000\n"
                      "mov $0x200800, %eax\n"
                      "call *%eax\n"
                      "jmp 1b\n"
                      ".org 0x800\n"
                      "xor $0x800, %eax\n" /* another target each time round */
                      "ret\n");

static void stop_at_once(struct bench *b)
{
    b->v->stop = true;
}

static void no_kick_is_lost_with(const struct dbt_options *options, unsigned trials)
{
    struct bench *b = bench_create_with(options, 0);
    uint32_t random = 1;
    timer_t timer = make_timer();

    bench_paging(b, PT_P | PT_W);
    BENCH_LOAD(b, CODE, meets_c_always);
    b->on_poll = stop_at_once;
    bench_arm_watchdog(b, 20);
    for (unsigned i = 0; i < trials; i++) {
        random = random * 1664525 + 1013904223;
        struct itimerspec once = {.it_value.tv_nsec = 1000 + (random >> 8) % 60000};
        /* As INVLPG drops what is mapped only if the entry has changed, change it. */
        bench_map(b, 0xF00000, 0xF00000 + (i & 1) * PAGE_SIZE, PT_P | PT_W);
        timer_settime(timer, 0, &once, NULL);
        assert_int_equal(dbt_run(b->d), DBT_STOPPED);
        assert_false(b->ran_too_long);
        b->v->stop = false;
    }
    timer_delete(timer);
    bench_destroy(b);
}

static void no_kick_is_lost_at_any_moment(void **state)
{
    (void)state;
    no_kick_is_lost_with(NULL, 6000);
    no_kick_is_lost_with(&(struct dbt_options){.verify = true}, 1000);
    no_kick_is_lost_with(&(struct dbt_options){.no_bmi2 = true, .no_fsgsbase = true}, 2000);
}

/* ---- registers and flags survive kicks ---- */

/* Carries on a computation in all registers and flags, however often it is interrupted. */
GUEST(computes, "mov $300000, %ebp\n"
                "1: add %ecx, %eax\n"
                "adc %edx, %ebx\n"
                "rol $3, %ecx\n"
                "adc $7, %edx\n"
                "lea (%esi,%edi,2), %esi\n"
                "sbb %ebx, %edi\n"
                "push %eax\n"
                "call 2f\n"
                "pop %eax\n"
                "dec %ebp\n"
                "jnz 1b\n"
                "hlt\n"
                "2: pushf\n"
                "inc %esi\n"
                "popf\n"
                "ret\n");

static void computes_with(struct bench *b, unsigned period_us, uint64_t sum[8])
{
    struct kicker k;

    bench_reset(b);
    BENCH_LOAD(b, CODE, computes);
    for (unsigned i = 0; i < 8; i++) {
        if (i != REG_SP)
            b->v->regs[i] = 0x01234567u * (i + 1);
    }
    if (period_us)
        timer_start(&k, b, period_us);
    bench_run(b);
    if (period_us)
        timer_stop(&k);
    memcpy(sum, b->v->regs, 8 * sizeof(*sum));
}

static void kicks_disturb_nothing(void **state)
{
    struct bench *b = bench_create();
    uint64_t undisturbed[8], disturbed[8];
    (void)state;

    computes_with(b, 0, undisturbed);
    for (unsigned period = 10; period < 60; period += 10) {
        computes_with(b, period, disturbed);
        assert_true(b->polls > 10);
        assert_memory_equal(undisturbed, disturbed, sizeof(disturbed));
    }
    bench_destroy(b);
}

/* ---- interrupts ---- */

static void raise_line(struct bench *b)
{
    b->v->irq_line = true;
}

/* Counts in the handler: vector 0x40, at HANDLERS + 0x400, which returns by IRET. */
static void put_counting_handler(struct bench *b, uint32_t at)
{
    static const uint8_t handler[] = {0xFF, 0x05, 0x00, 0x00, 0x30, 0x00, 0xCF}; /* incl DATA */
    bench_load(b, at, handler, handler + sizeof(handler));
    bench_gate(b, 0x40, at, 0x8E);
    b->vector = 0x40;
    bench_put32(b, DATA, 0);
}

GUEST(waits_for_count, "sti\n"
                       "1: cmpl $50, 0x300000\n"
                       "jb 1b\n"
                       "cli\n"
                       "hlt\n");

static void is_interrupted(struct bench *b)
{
    struct kicker k;

    put_counting_handler(b, 0x9000);
    BENCH_LOAD(b, CODE, waits_for_count);
    b->on_poll = raise_line;
    timer_start(&k, b, 200);
    bench_run(b);
    timer_stop(&k);
    b->on_poll = NULL;
    assert_in_range(bench_get32(b, DATA), 50, 60);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void interrupts_are_delivered_to_a_busy_guest(void **state)
{
    (void)state;
    bench_everywhere(is_interrupted);
}

/* With IF clear nothing is delivered; as soon as it is set, by STI, POPF or IRET, it is. */
GUEST(enables_by_sti, "mov 0x300000, %eax\n"
                      "sti\n"
                      "mov 0x300000, %ebx\n" /* the shadow */
                      "mov 0x300000, %ecx\n"
                      "cli\n"
                      "hlt\n");
GUEST(enables_by_popf, "mov 0x300000, %eax\n"
                       "pushf\n"
                       "orl $0x200, (%esp)\n"
                       "mov 0x300000, %ebx\n"
                       "popf\n"
                       "mov 0x300000, %ecx\n"
                       "cli\n"
                       "hlt\n");
GUEST(enables_by_iret, "mov 0x300000, %eax\n"
                       "pushf\n"
                       "orl $0x200, (%esp)\n"
                       "push %cs\n"
                       "push $" AT("1f") "\n"
                                         "mov 0x300000, %ebx\n"
                                         "iret\n"
                                         "1: mov 0x300000, %ecx\n"
                                         "cli\n"
                                         "hlt\n");

static void enables(struct bench *b, const uint8_t *begin, const uint8_t *end)
{
    bench_reset(b);
    put_counting_handler(b, 0x9000);
    bench_load(b, CODE, begin, end);
    b->v->irq_line = true;
    bench_run(b);
    assert_int_equal(b->acks, 1);
    assert_int_equal(bench_reg(b, REG_AX), 0);
    assert_int_equal(bench_reg(b, REG_BX), 0);
    assert_int_equal(bench_reg(b, REG_CX), 1);
    assert_int_equal(bench_reg(b, REG_SP), STACK);
}

static void enables_by_all(struct bench *b)
{
    enables(b, enables_by_sti, enables_by_sti_end);
    enables(b, enables_by_popf, enables_by_popf_end);
    enables(b, enables_by_iret, enables_by_iret_end);
}

static void a_pending_interrupt_comes_when_it_is_enabled(void **state)
{
    (void)state;
    bench_everywhere(enables_by_all);
}

/* STI just before CLI: the window is closed again before it opens. */
GUEST(sti_cli, "sti\n"
               "cli\n"
               "hlt\n");

static void opens_no_window(struct bench *b)
{
    put_counting_handler(b, 0x9000);
    BENCH_LOAD(b, CODE, sti_cli);
    b->v->irq_line = true;
    bench_run(b);
    b->v->irq_line = false;
    assert_int_equal(b->acks, 0);
    assert_int_equal(bench_get32(b, DATA), 0);
}

static void sti_cli_lets_nothing_in(void **state)
{
    (void)state;
    bench_everywhere(opens_no_window);
}

/* The handler stands where the frame's EIP can be judged: it must never be that of the instruction
   behind MOV SS or STI. Its count is at DATA, mistakes are at DATA + 4. A segment that differs
   makes MOV SS change the mode. */
GUEST(shadows, "mov $200000, %ecx\n"
               "1: mov $0x30, %eax\n"
               "mov %ax, %ss\n"
               "2: nop\n"
               "mov $0x10, %eax\n"
               "mov %ax, %ss\n"
               "3: nop\n"
               "cli\n"
               "sti\n"
               "4: nop\n"
               "cli\n"
               "sti\n"
               "7: call 8f\n" /* it polls, as a jump backwards does */
               "jmp 11f\n"
               "10: jmp 12f\n"
               "11: cli\n"
               "sti\n"
               "9: jmp 10b\n"
               "12:\n"
               "cmpl $300, 0x300000\n"
               "jae 5f\n"
               "dec %ecx\n"
               "jnz 1b\n"
               "5: cli\n"
               "hlt\n"
               "8: ret\n"
               ".org 0x1000\n"
               "incl 0x300000\n"
               "cmpl $" AT("2b") ", (%esp)\n"
                                 "je 6f\n"
                                 "cmpl $" AT("3b") ", (%esp)\n"
                                                   "je 6f\n"
                                                   "cmpl $" AT("4b") ", (%esp)\n"
                                                                     "je 6f\n"
                                                                     "iret\n"
                                                                     "6: incl 0x300004\n"
                                                                     "iret\n");

static void keeps_shadows(struct bench *b)
{
    struct kicker k;

    put_counting_handler(b, CODE + 0x1000 + 0x8000);
    bench_gate(b, 0x40, CODE + 0x1000, 0x8E);
    bench_put32(b, DATA + 4, 0);
    BENCH_LOAD(b, CODE, shadows);
    bench_descriptor(b, SEL_TEST, 0, 0x7FFFF, 0xC093);
    vcpu_set_eflags(b->v, FLAG_IF);
    b->on_poll = raise_line;
    timer_start(&k, b, 20);
    bench_run(b);
    timer_stop(&k);
    b->on_poll = NULL;
    b->v->irq_line = false;
    assert_true(bench_get32(b, DATA) > 50);
    assert_int_equal(bench_get32(b, DATA + 4), 0);
}

static void nothing_comes_between_mov_ss_or_sti_and_the_next_instruction(void **state)
{
    (void)state;
    bench_everywhere(keeps_shadows);
}

/* The instruction behind STI is one that polls: that must not let anything in before it. */
GUEST(polls_in_shadow, "1: cli\n"
                       "sti\n"
                       "2: call 3f\n"
                       "jmp 4f\n"
                       "5: cmpl $1000, 0x300000\n"
                       "jb 1b\n"
                       "cli\n"
                       "hlt\n"
                       "4: cli\n"
                       "sti\n"
                       "6: jmp 5b\n"
                       "3: ret\n"
                       ".org 0x1000\n"
                       "incl 0x300000\n"
                       "cmpl $" AT("2b") ", (%esp)\n"
                                         "je 7f\n"
                                         "cmpl $" AT("6b") ", (%esp)\n"
                                                           "je 7f\n"
                                                           "iret\n"
                                                           "7: incl 0x300004\n"
                                                           "iret\n");

static void polls_behind_sti(struct bench *b)
{
    struct kicker k;

    bench_put32(b, DATA, 0);
    bench_put32(b, DATA + 4, 0);
    bench_gate(b, 0x40, CODE + 0x1000, 0x8E);
    b->vector = 0x40;
    BENCH_LOAD(b, CODE, polls_in_shadow);
    b->on_poll = raise_line;
    timer_start(&k, b, 20);
    bench_run(b);
    timer_stop(&k);
    b->on_poll = NULL;
    b->v->irq_line = false;
    assert_int_equal(bench_get32(b, DATA + 4), 0);
}

static void an_instruction_that_polls_has_its_shadow_too(void **state)
{
    (void)state;
    bench_scenario_with(polls_behind_sti, NULL);
    bench_scenario_with(polls_behind_sti, &(struct dbt_options){.no_bmi2 = true});
}

/* The same where the block ends with STI: as the last instruction that a block may have. */
static void sti_as_the_last_of_a_block_has_its_shadow(void **state)
{
    struct bench *b = bench_create();
    (void)state;

    /* 63 INCs, STI, then HLT: an interrupt between the two would leave the guest asleep. */
    uint8_t code[65];
    memset(code, 0x40, sizeof(code));
    code[63] = 0xFB;
    code[64] = 0xF4;
    bench_load(b, CODE, code, code + sizeof(code));
    put_counting_handler(b, 0x9000);
    bench_run(b);
    assert_int_equal(b->v->rip, CODE + 65);

    /* With the interrupt pending: it comes behind HLT, not before it. */
    bench_reset(b);
    b->v->irq_line = true;
    bench_gate(b, 0x40, HANDLERS + 16 * 0x40, 0x8E);
    struct bench_frame f = bench_run_to(b, 0x40);
    assert_int_equal(f.eip, CODE + 65);
    assert_int_equal(bench_reg(b, REG_AX), 63);
    bench_destroy(b);
}

/* ---- HLT ---- */

GUEST(idles, "1: sti\n"
             "hlt\n"
             "cli\n"
             "inc %ebx\n"
             "cmp $10, %ebx\n"
             "jb 1b\n"
             "hlt\n");

static void sleeps_and_wakes(struct bench *b)
{
    put_counting_handler(b, 0x9000);
    BENCH_LOAD(b, CODE, idles);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(dbt_run(b->d), DBT_HALTED);
        assert_true(b->v->halted);
        assert_true(b->v->sys_flags & FLAG_IF);
        assert_int_equal(bench_reg(b, REG_BX), i);
        /* Nothing to wake it: it stays asleep. */
        assert_int_equal(dbt_run(b->d), DBT_HALTED);
        b->v->irq_line = true;
    }
    assert_int_equal(dbt_run(b->d), DBT_HALTED);
    b->v->halted = false;
    assert_int_equal(bench_reg(b, REG_BX), 10);
    assert_int_equal(bench_get32(b, DATA), 10);
    assert_int_equal(b->acks, 10);
}

static void hlt_sleeps_until_an_interrupt(void **state)
{
    (void)state;
    bench_everywhere(sleeps_and_wakes);
}

/* NMI: delivered with IF clear, once, and blocked until IRET. */
GUEST(takes_nmi, "mov 0x300000, %eax\n"
                 "out %eax, $0x80\n"
                 "mov 0x300000, %ebx\n"
                 "hlt\n");

static void send_nmi(struct bench *b, uint16_t port, uint32_t value)
{
    (void)value;
    if (port == 0x80) {
        b->v->nmi_pending = true;
        b->v->kicked = true;
    }
}

static void takes_an_nmi(struct bench *b)
{
    put_counting_handler(b, 0x9000);
    bench_gate(b, VEC_NMI, 0x9000, 0x8E);
    BENCH_LOAD(b, CODE, takes_nmi);
    b->on_out = send_nmi;
    bench_run(b);
    b->on_out = NULL;
    bench_gate(b, VEC_NMI, HANDLERS + 16 * VEC_NMI, 0xEE);
    assert_int_equal(bench_reg(b, REG_AX), 0);
    assert_int_equal(bench_reg(b, REG_BX), 1);
    assert_false(b->v->nmi_blocked);
}

static void an_nmi_comes_with_interrupts_off(void **state)
{
    (void)state;
    bench_everywhere(takes_an_nmi);
}

/* An interrupt in the midst of a REP: it resumes where it was. */
GUEST(long_string, "sti\n"
                   "mov $0x400000, %edi\n"
                   "mov $0x1000000, %ecx\n" /* 16 MiB */
                   "mov $0x5A, %eax\n"
                   "rep stosb\n"
                   "cli\n"
                   "hlt\n");

static void interrupted_string(struct bench *b)
{
    struct kicker k;

    put_counting_handler(b, 0x9000);
    BENCH_LOAD(b, CODE, long_string);
    b->on_poll = raise_line;
    timer_start(&k, b, 50);
    bench_run(b);
    timer_stop(&k);
    b->on_poll = NULL;
    b->v->irq_line = false;
    /* It does not wait for the string's end: that takes a millisecond or more. */
    assert_true(b->acks > 3);
    assert_int_equal(bench_reg(b, REG_CX), 0);
    assert_int_equal(bench_reg(b, REG_DI), 0x1400000);
    assert_int_equal(mmu_ram(b->m)[0x400000], 0x5A);
    assert_int_equal(mmu_ram(b->m)[0x13FFFFF], 0x5A);
    assert_int_equal(mmu_ram(b->m)[0x1400000], 0);
}

static void strings_are_interrupted_and_finished(void **state)
{
    (void)state;
    bench_everywhere(interrupted_string);
}

/* ---- a triple fault ---- */

static void a_triple_fault_ends_the_run(void **state)
{
    struct bench *b = bench_create();
    (void)state;

    bench_write(b, CODE, "\x0F\x0B", 2); /* UD2 */
    b->v->idtr.limit = 0;
    assert_int_equal(dbt_run(b->d), DBT_SHUTDOWN);
    assert_true(b->v->shutdown);
    assert_int_equal(dbt_run(b->d), DBT_SHUTDOWN);
    bench_reset(b);
    bench_write(b, CODE, "\xF4", 1);
    assert_int_equal(bench_run(b), CODE + 1);
    bench_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kicks_stop_every_loop),
        cmocka_unit_test(kicks_stop_every_loop_of_user_code),
        cmocka_unit_test(a_kick_before_the_run_is_taken_at_its_start),
        cmocka_unit_test(a_kick_during_a_poll_makes_for_another),
        cmocka_unit_test(no_kick_is_lost_at_any_moment),
        cmocka_unit_test(kicks_disturb_nothing),
        cmocka_unit_test(interrupts_are_delivered_to_a_busy_guest),
        cmocka_unit_test(a_pending_interrupt_comes_when_it_is_enabled),
        cmocka_unit_test(sti_cli_lets_nothing_in),
        cmocka_unit_test(nothing_comes_between_mov_ss_or_sti_and_the_next_instruction),
        cmocka_unit_test(an_instruction_that_polls_has_its_shadow_too),
        cmocka_unit_test(sti_as_the_last_of_a_block_has_its_shadow),
        cmocka_unit_test(hlt_sleeps_until_an_interrupt),
        cmocka_unit_test(an_nmi_comes_with_interrupts_off),
        cmocka_unit_test(strings_are_interrupted_and_finished),
        cmocka_unit_test(a_triple_fault_ends_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
