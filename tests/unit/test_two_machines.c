/*
 * Two engines in one process: each on a thread of its own, at the same time; and both on one
 * thread, in turns.
 */
#include "engine_bench.h"

#include <pthread.h>

#include "dbt/dbt.h"

/* Sums what stands in memory, by way of calls, the x87, SSE and a page fault handler's kind of
   memory (scattered pages), and shows how far it has come: each machine has other data. */
GUEST(sums, "fninit\n"
            "fldz\n"
            "pxor %xmm0, %xmm0\n"
            "xor %eax, %eax\n"
            "mov $0x300000, %esi\n"
            "mov $256, %ecx\n"
            "1: call 2f\n"
            "add $0x5004, %esi\n"
            "loop 1b\n"
            "fistpl 0x200F00\n"
            "movd %xmm0, %ebx\n"
            "hlt\n"
            "2: mov (%esi), %edx\n"
            "add %edx, %eax\n"
            "movd %edx, %xmm1\n"
            "paddd %xmm1, %xmm0\n"
            "fiaddl (%esi)\n"
            "ret\n");

static uint32_t fill(struct bench *b, uint32_t seed)
{
    uint32_t sum = 0;

    for (unsigned i = 0; i < 256; i++) {
        bench_put32(b, 0x300000 + i * 0x5004, seed * (i + 1));
        sum += seed * (i + 1);
    }
    return sum;
}

static void sums_up(struct bench *b, uint32_t seed)
{
    uint32_t sum = fill(b, seed);

    bench_reset(b);
    bench_paging(b, PT_P | PT_W);
    BENCH_LOAD(b, CODE, sums);
    bench_run(b);
    assert_int_equal(bench_reg(b, REG_AX), sum);
    assert_int_equal(bench_reg(b, REG_BX), sum);
    assert_int_equal(bench_get32(b, CODE + 0xF00), sum);
}

/* ---- in turns ---- */

static void count_steps(struct bench *b, uint16_t port, uint32_t value)
{
    (void)port, (void)value;
    b->v->stop = true; /* leave in the midst of it */
    b->v->kicked = true;
}

GUEST(goes_on_and_on, "mov $100, %ecx\n"
                      "fldz\n"
                      "1: add %ecx, %eax\n"
                      "fld1\n"
                      "faddp\n"
                      "incl 0x300000\n"
                      "movd %ecx, %xmm3\n"
                      "std\n"
                      "out %eax, $0x80\n"
                      "movd %xmm3, %ebx\n"
                      "add %ebx, %edx\n"
                      "loop 1b\n"
                      "fistpl 0x300004\n"
                      "hlt\n");

static void two_machines_take_turns_on_one_thread(void **state)
{
    struct bench *machines[2] = {bench_create(),
                                 bench_create_with(&(struct dbt_options){.no_fsgsbase = true}, 0)};
    bool done[2] = {false, false};
    unsigned turns = 0;
    (void)state;

    for (unsigned i = 0; i < 2; i++) {
        struct bench *b = machines[i];
        b->on_out = count_steps;
        if (i)
            bench_paging(b, PT_P | PT_W);
        bench_put32(b, DATA, i * 1000);
        BENCH_LOAD(b, CODE, goes_on_and_on);
    }
    while (!done[0] || !done[1]) {
        struct bench *b = machines[turns & 1];
        if (!done[turns & 1]) {
            bench_arm_watchdog(b, 20);
            enum dbt_stop why = dbt_run(b->d);
            b->v->stop = false;
            done[turns & 1] = why == DBT_HALTED;
            assert_true(why == DBT_HALTED || why == DBT_STOPPED);
            assert_false(b->ran_too_long);
        }
        turns++;
    }
    assert_true(turns >= 200);
    for (unsigned i = 0; i < 2; i++) {
        struct bench *b = machines[i];
        assert_int_equal(bench_reg(b, REG_AX), 5050);
        assert_int_equal(bench_reg(b, REG_DX), 5050);
        assert_int_equal(bench_get32(b, DATA), i * 1000 + 100);
        assert_int_equal(bench_get32(b, DATA + 4), 100);
        bench_destroy(b);
    }
}

static void machines_come_and_go_beside_others(void **state)
{
    struct bench *stays = bench_create();
    (void)state;

    for (unsigned i = 0; i < 5; i++) {
        struct bench *b = bench_create();
        sums_up(b, 3 + i);
        sums_up(stays, 100 + i);
        bench_destroy(b);
        sums_up(stays, 200 + i);
    }
    bench_destroy(stays);
}

/* ---- at the same time ---- */

struct runner {
    pthread_t thread;
    uint32_t seed;
    unsigned rounds;
    bool verify;
};

/* cmocka's assertions belong to the main thread, so this one counts what is right. */
static void *run_many(void *opaque)
{
    struct runner *r = opaque;
    struct dbt_options options = {.verify = r->verify};
    struct bench *b = bench_create_with(&options, 0);

    for (unsigned i = 0; i < 200; i++) {
        uint32_t sum = fill(b, r->seed + i);
        bench_reset(b);
        bench_paging(b, PT_P | PT_W);
        BENCH_LOAD(b, CODE, sums);
        bench_arm_watchdog(b, 20);
        if (dbt_run(b->d) != DBT_HALTED)
            break;
        r->rounds += bench_reg(b, REG_AX) == sum && bench_reg(b, REG_BX) == sum &&
                     bench_get32(b, CODE + 0xF00) == sum;
    }
    bench_destroy(b);
    return NULL;
}

static void two_machines_run_at_the_same_time(void **state)
{
    struct runner runners[2] = {{.seed = 1}, {.seed = 1003, .verify = true}};
    (void)state;

    bench_destroy(bench_create()); /* the signals of this process, before there are threads */
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&runners[i].thread, NULL, run_many, &runners[i]), 0);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(runners[i].thread, NULL);
    assert_int_equal(runners[0].rounds, 200);
    assert_int_equal(runners[1].rounds, 200);
}

/* A machine made on one thread and run on another; the first is not its thread any more. */
static void *run_borrowed(void *opaque)
{
    struct bench *b = opaque;
    b->user = dbt_run(b->d) == DBT_HALTED ? b : NULL;
    return NULL;
}

static void a_machine_may_be_run_by_another_thread(void **state)
{
    struct bench *b = bench_create();
    pthread_t thread;
    (void)state;

    uint32_t sum = fill(b, 77);
    bench_paging(b, PT_P | PT_W);
    BENCH_LOAD(b, CODE, sums);
    assert_int_equal(pthread_create(&thread, NULL, run_borrowed, b), 0);
    pthread_join(thread, NULL);
    assert_non_null(b->user);
    assert_int_equal(bench_reg(b, REG_AX), sum);
    bench_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_machines_take_turns_on_one_thread),
        cmocka_unit_test(machines_come_and_go_beside_others),
        cmocka_unit_test(two_machines_run_at_the_same_time),
        cmocka_unit_test(a_machine_may_be_run_by_another_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
