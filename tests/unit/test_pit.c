/*
 * The 8254 and port 61h, with time stepped by hand.
 */
#include "device_bench.h"

#include "devices/i8254.h"

enum { IRQ0 = 0 };

struct pit {
    struct bench *b;
    struct i8254 chip;
};

static void start(struct pit *p)
{
    p->b = bench_create(0);
    p->b->now = CLOCK_SECOND;
    assert_int_equal(
        i8254_init(&p->chip, &p->b->bus, &p->b->clock, bench_wire(p->b, IRQ0), &p->b->err), 0);
}

/* Goes to the first nanosecond of the `ticks`-th tick from the present one. */
static void pass_ticks(struct pit *p, uint64_t ticks)
{
    uint64_t at = clock_tick_time(clock_ticks(p->b->now, I8254_HZ) + ticks, I8254_HZ);

    pass(p->b, at - p->b->now);
}

static void load(struct pit *p, unsigned channel, unsigned mode, unsigned count)
{
    out(p->b, 0x43, channel << 6 | 0x30 | mode << 1);
    out(p->b, (uint16_t)(0x40 + channel), count & 0xFF);
    out(p->b, (uint16_t)(0x40 + channel), count >> 8);
}

static unsigned count(struct pit *p, unsigned channel)
{
    unsigned low;

    out(p->b, 0x43, channel << 6);
    low = in(p->b, (uint16_t)(0x40 + channel));
    return low | (unsigned)in(p->b, (uint16_t)(0x40 + channel)) << 8;
}

static unsigned status(struct pit *p, unsigned channel)
{
    out(p->b, 0x43, 0xE0 | 2u << channel);
    return in(p->b, (uint16_t)(0x40 + channel));
}

static void mode_0_raises_out_when_the_count_is_over(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 0, 0, 1000);
    assert_false(p.b->level[IRQ0]);
    pass_ticks(&p, 400);
    assert_int_equal(count(&p, 0), 600);
    pass_ticks(&p, 599);
    assert_false(p.b->level[IRQ0]);
    pass_ticks(&p, 1);
    assert_true(p.b->level[IRQ0]);
    pass_ticks(&p, 5);
    assert_int_equal(count(&p, 0), 0xFFFB);
    out(p.b, 0x40, 0); /* the first byte of a new count drops OUT and stops the count */
    assert_false(p.b->level[IRQ0]);
    pass_ticks(&p, 100000);
    assert_false(p.b->level[IRQ0]);
    free(p.b);
}

static void mode_2_interrupts_once_a_period_without_drift(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 0, 2, 11932);
    assert_int_equal(p.b->rises[IRQ0], 1); /* the control word sets OUT high */
    for (unsigned i = 0; i < 1000; i++)
        pass_ticks(&p, 11932);
    assert_int_equal(p.b->rises[IRQ0], 1001);
    pass(p.b, 100 * CLOCK_SECOND);
    assert_int_equal(p.b->rises[IRQ0], 1001 + 100ull * I8254_HZ / 11932);
    free(p.b);
}

static void mode_2_counts_down_and_starts_again(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 2, 2, 100);
    out(p.b, 0x61, 1);
    assert_int_equal(count(&p, 2), 100);
    pass_ticks(&p, 99);
    assert_int_equal(count(&p, 2), 1);
    assert_false(in(p.b, 0x61) & 0x20);
    pass_ticks(&p, 1);
    assert_int_equal(count(&p, 2), 100);
    assert_true(in(p.b, 0x61) & 0x20);
    free(p.b);
}

static void a_new_count_waits_for_the_end_of_the_period(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 2, 2, 100);
    out(p.b, 0x61, 1);
    out(p.b, 0x42, 50);
    assert_int_equal(status(&p, 2) & 0x40, 0);
    out(p.b, 0x42, 0);
    assert_int_equal(status(&p, 2) & 0x40, 0x40);
    pass_ticks(&p, 60);
    assert_int_equal(count(&p, 2), 40);
    pass_ticks(&p, 40);
    assert_int_equal(count(&p, 2), 50);
    assert_int_equal(status(&p, 2) & 0x40, 0);
    pass_ticks(&p, 125);
    assert_int_equal(count(&p, 2), 25);
    free(p.b);
}

static void mode_3_is_a_square_wave(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 2, 3, 101);
    out(p.b, 0x61, 1);
    assert_true(in(p.b, 0x61) & 0x20);
    assert_int_equal(count(&p, 2), 100);
    pass_ticks(&p, 10);
    assert_int_equal(count(&p, 2), 80);
    pass_ticks(&p, 40);
    assert_true(in(p.b, 0x61) & 0x20);
    pass_ticks(&p, 1);
    assert_false(in(p.b, 0x61) & 0x20);
    pass_ticks(&p, 49);
    assert_false(in(p.b, 0x61) & 0x20);
    pass_ticks(&p, 1);
    assert_true(in(p.b, 0x61) & 0x20);
    free(p.b);
}

static void mode_3_interrupts_once_a_period(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 0, 3, 0);
    pass_ticks(&p, 65536 * 10);
    assert_int_equal(p.b->rises[IRQ0], 11);
    pass_ticks(&p, 40000);
    assert_false(p.b->level[IRQ0]);
    free(p.b);
}

static void mode_4_strobes_once(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 0, 4, 500);
    assert_true(p.b->level[IRQ0]);
    pass_ticks(&p, 500);
    assert_int_equal(p.b->rises[IRQ0], 1);
    pass_ticks(&p, 1);
    assert_int_equal(p.b->rises[IRQ0], 2);
    pass(p.b, CLOCK_SECOND);
    assert_int_equal(p.b->rises[IRQ0], 2);
    out(p.b, 0x40, 100); /* a count alone is enough for the next one */
    out(p.b, 0x40, 0);
    pass_ticks(&p, 101);
    assert_int_equal(p.b->rises[IRQ0], 3);
    free(p.b);
}

static void the_gate_triggers_mode_1(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 2, 1, 50);
    pass_ticks(&p, 200);
    assert_true(in(p.b, 0x61) & 0x20);
    out(p.b, 0x61, 1);
    assert_false(in(p.b, 0x61) & 0x20);
    pass_ticks(&p, 49);
    assert_false(in(p.b, 0x61) & 0x20);
    pass_ticks(&p, 1);
    assert_true(in(p.b, 0x61) & 0x20);
    out(p.b, 0x61, 0);
    out(p.b, 0x61, 1);
    assert_false(in(p.b, 0x61) & 0x20);
    free(p.b);
}

static void the_gate_stops_mode_0(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 2, 0, 1000);
    pass_ticks(&p, 5000);
    assert_int_equal(count(&p, 2), 1000);
    out(p.b, 0x61, 1);
    pass_ticks(&p, 300);
    out(p.b, 0x61, 0);
    pass_ticks(&p, 5000);
    assert_int_equal(count(&p, 2), 700);
    out(p.b, 0x61, 1);
    pass_ticks(&p, 699);
    assert_false(in(p.b, 0x61) & 0x20);
    pass_ticks(&p, 1);
    assert_true(in(p.b, 0x61) & 0x20);
    free(p.b);
}

static void bcd_counts_in_tens(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    out(p.b, 0x43, 0xB1);
    out(p.b, 0x42, 0x00);
    out(p.b, 0x42, 0x10); /* 1000 */
    out(p.b, 0x61, 1);
    pass_ticks(&p, 1);
    assert_int_equal(count(&p, 2), 0x0999);
    pass_ticks(&p, 1000);
    assert_int_equal(count(&p, 2), 0x9999);
    free(p.b);
}

static void a_latched_count_stands_until_it_is_read(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 0, 2, 1000);
    pass_ticks(&p, 100);
    out(p.b, 0x43, 0x00);
    pass_ticks(&p, 100);
    out(p.b, 0x43, 0x00); /* ignored */
    assert_int_equal(in(p.b, 0x40), 900 & 0xFF);
    assert_int_equal(in(p.b, 0x40), 900 >> 8);
    assert_int_equal(in(p.b, 0x40), 800 & 0xFF);
    assert_int_equal(in(p.b, 0x40), 800 >> 8);
    free(p.b);
}

static void read_back_gives_status_before_count(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    load(&p, 0, 2, 1000);
    pass_ticks(&p, 300);
    out(p.b, 0x43, 0xC2);
    pass_ticks(&p, 300);
    assert_int_equal(in(p.b, 0x40), 0x80 | 0x30 | 2 << 1);
    assert_int_equal(in(p.b, 0x40), 700 & 0xFF);
    assert_int_equal(in(p.b, 0x40), 700 >> 8);
    free(p.b);
}

static void single_byte_access_sets_the_other_byte_to_zero(void **state)
{
    struct pit p;

    (void)state;
    start(&p);
    out(p.b, 0x43, 0x24); /* channel 0, high byte, mode 2 */
    out(p.b, 0x40, 0x12);
    pass_ticks(&p, 0x12);
    assert_int_equal(in(p.b, 0x40), 0x11);
    assert_int_equal(in(p.b, 0x40), 0x11);
    out(p.b, 0x43, 0x14); /* low byte */
    out(p.b, 0x40, 0x12);
    pass_ticks(&p, 2);
    assert_int_equal(in(p.b, 0x40), 0x10);
    free(p.b);
}

static void late_ticks_are_made_up_for_and_no_time_is_lost(void **state)
{
    struct pit p;
    unsigned rises;

    (void)state;
    start(&p);
    load(&p, 0, 2, 1000);
    rises = p.b->rises[IRQ0];
    p.b->now = clock_tick_time(clock_ticks(p.b->now, I8254_HZ) + 5500, I8254_HZ);
    clock_run(&p.b->clock);
    assert_int_equal(p.b->rises[IRQ0], rises + 1); /* of five */
    assert_int_equal(p.chip.ticks_late, 4);
    pass_ticks(&p, 499);
    assert_int_equal(p.b->rises[IRQ0], rises + 1);
    pass_ticks(&p, 1);
    assert_int_equal(p.b->rises[IRQ0], rises + 2); /* its own */
    pass_ticks(&p, 500);
    assert_int_equal(p.b->rises[IRQ0], rises + 3); /* one that was owed */
    pass_ticks(&p, 94500);
    assert_int_equal(p.b->rises[IRQ0], rises + 101);
    out(p.b, 0x43, 0x34); /* a new control word forgives what is owed */
    assert_int_equal(p.chip.owed, 0);
    free(p.b);
}

static void tiny_periods_do_not_flood_the_host(void **state)
{
    struct pit p;

    (void)state;
    for (unsigned mode = 2; mode <= 3; mode++) {
        for (unsigned n = 1; n <= 3; n++) {
            start(&p);
            load(&p, 0, mode, n);
            pass(p.b, CLOCK_SECOND / 100);
            assert_in_range(p.b->rises[IRQ0], 0, 520);
            assert_in_range(count(&p, 0), 0, 3);
            free(p.b);
        }
    }
}

static void the_refresh_bit_toggles_every_fifteen_microseconds(void **state)
{
    struct pit p;
    unsigned toggles = 0;
    uint8_t last;

    (void)state;
    start(&p);
    last = in(p.b, 0x61) & 0x10;
    for (unsigned i = 0; i < 1000; i++) {
        uint8_t now;
        pass(p.b, 1000);
        now = in(p.b, 0x61) & 0x10;
        toggles += now != last;
        last = now;
    }
    assert_in_range(toggles, 65, 67);
    free(p.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mode_0_raises_out_when_the_count_is_over),
        cmocka_unit_test(mode_2_interrupts_once_a_period_without_drift),
        cmocka_unit_test(mode_2_counts_down_and_starts_again),
        cmocka_unit_test(a_new_count_waits_for_the_end_of_the_period),
        cmocka_unit_test(mode_3_is_a_square_wave),
        cmocka_unit_test(mode_3_interrupts_once_a_period),
        cmocka_unit_test(mode_4_strobes_once),
        cmocka_unit_test(the_gate_triggers_mode_1),
        cmocka_unit_test(the_gate_stops_mode_0),
        cmocka_unit_test(bcd_counts_in_tens),
        cmocka_unit_test(a_latched_count_stands_until_it_is_read),
        cmocka_unit_test(read_back_gives_status_before_count),
        cmocka_unit_test(single_byte_access_sets_the_other_byte_to_zero),
        cmocka_unit_test(late_ticks_are_made_up_for_and_no_time_is_lost),
        cmocka_unit_test(tiny_periods_do_not_flood_the_host),
        cmocka_unit_test(the_refresh_bit_toggles_every_fifteen_microseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
