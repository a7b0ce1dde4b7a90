/*
 * The MC146818, with time stepped by hand.
 */
#include "device_bench.h"

#include <time.h>

#include "devices/mc146818.h"

enum { IRQ8 = 0 };

struct rtc {
    struct bench *b;
    struct mc146818 chip;
};

/* 2001-02-03 04:05:06.25 UTC, a Saturday */
static const uint64_t base = 981173106ull * CLOCK_SECOND + CLOCK_SECOND / 4;

static void start_at(struct rtc *r, uint64_t utc)
{
    r->b = bench_create(utc);
    assert_int_equal(
        mc146818_init(&r->chip, &r->b->bus, &r->b->clock, bench_wire(r->b, IRQ8), &r->b->err), 0);
}

static uint8_t get(struct rtc *r, unsigned index)
{
    out(r->b, 0x70, index);
    return in(r->b, 0x71);
}

static void set(struct rtc *r, unsigned index, unsigned value)
{
    out(r->b, 0x70, index);
    out(r->b, 0x71, value);
}

static void it_starts_with_the_hosts_time(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    assert_int_equal(get(&r, 0), 0x06);
    assert_int_equal(get(&r, 2), 0x05);
    assert_int_equal(get(&r, 4), 0x04);
    assert_int_equal(get(&r, 6), 7);
    assert_int_equal(get(&r, 7), 0x03);
    assert_int_equal(get(&r, 8), 0x02);
    assert_int_equal(get(&r, 9), 0x01);
    assert_int_equal(get(&r, 0x32), 0x20);
    assert_int_equal(get(&r, 13), 0x80);
    pass(r.b, 749999999);
    assert_int_equal(get(&r, 0), 0x06);
    pass(r.b, 1);
    assert_int_equal(get(&r, 0), 0x07);
    free(r.b);
}

static void the_calendar_agrees_with_the_c_library(void **state)
{
    (void)state;
    for (int64_t t = 0; t < 8000000000; t += 86400 * 59 + 3607) {
        struct rtc r;
        time_t when = (time_t)t;
        struct tm tm;

        start_at(&r, (uint64_t)t * CLOCK_SECOND);
        gmtime_r(&when, &tm);
        set(&r, 11, 0x06); /* binary */
        pass(r.b, CLOCK_SECOND);
        when++;
        gmtime_r(&when, &tm);
        assert_int_equal(get(&r, 0), tm.tm_sec);
        assert_int_equal(get(&r, 2), tm.tm_min);
        assert_int_equal(get(&r, 4), tm.tm_hour);
        assert_int_equal(get(&r, 6), tm.tm_wday + 1);
        assert_int_equal(get(&r, 7), tm.tm_mday);
        assert_int_equal(get(&r, 8), tm.tm_mon + 1);
        assert_int_equal(get(&r, 9), tm.tm_year % 100);
        free(r.b);
    }
}

static void a_time_that_is_set_runs_on(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    set(&r, 11, 0x82);
    set(&r, 0, 0x59);
    set(&r, 2, 0x59);
    set(&r, 4, 0x23);
    set(&r, 6, 3);
    set(&r, 7, 0x31);
    set(&r, 8, 0x12);
    set(&r, 9, 0x99);
    set(&r, 0x32, 0x19);
    pass(r.b, 10 * CLOCK_SECOND);
    assert_int_equal(get(&r, 0), 0x59); /* SET holds it */
    set(&r, 11, 0x02);
    pass(r.b, CLOCK_SECOND);
    assert_int_equal(get(&r, 0), 0x00);
    assert_int_equal(get(&r, 4), 0x00);
    assert_int_equal(get(&r, 6), 4);
    assert_int_equal(get(&r, 7), 0x01);
    assert_int_equal(get(&r, 8), 0x01);
    assert_int_equal(get(&r, 9), 0x00);
    assert_int_equal(get(&r, 0x32), 0x20);
    free(r.b);
}

static void hours_can_be_counted_to_twelve(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    set(&r, 11, 0x80); /* SET, BCD, 12 hours */
    set(&r, 4, 0x92);  /* 12 PM: noon */
    set(&r, 2, 0x59);
    set(&r, 0, 0x59);
    set(&r, 11, 0x00);
    pass(r.b, CLOCK_SECOND);
    assert_int_equal(get(&r, 4), 0x81);
    pass(r.b, 11 * 3600 * CLOCK_SECOND);
    assert_int_equal(get(&r, 4), 0x12); /* 12 AM: midnight */
    free(r.b);
}

static void update_in_progress_shows_shortly_before_the_second(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    assert_int_equal(get(&r, 10), 0x26);
    pass(r.b, 749000000);
    assert_int_equal(get(&r, 10), 0x26);
    pass(r.b, 900000);
    assert_int_equal(get(&r, 10), 0xA6);
    pass(r.b, 100000);
    assert_int_equal(get(&r, 10), 0x26);
    free(r.b);
}

static void the_periodic_interrupt_has_its_rate(void **state)
{
    struct rtc r;
    unsigned seen = 0;

    (void)state;
    start_at(&r, base);
    set(&r, 11, 0x42);
    for (unsigned i = 0; i < 10000; i++) {
        pass(r.b, CLOCK_SECOND / 10000);
        if (r.b->level[IRQ8]) {
            assert_int_equal(get(&r, 12) & 0xC0, 0xC0);
            assert_false(r.b->level[IRQ8]);
            seen++;
        }
    }
    assert_int_equal(seen, 1024);
    /* Nobody reads register C: the line stays up and no further timer is needed. */
    pass(r.b, CLOCK_SECOND);
    assert_true(r.b->level[IRQ8]);
    assert_null(r.b->clock.first);
    free(r.b);
}

static void the_update_interrupt_comes_each_second(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    set(&r, 11, 0x12);
    pass(r.b, 749999999);
    assert_false(r.b->level[IRQ8]);
    pass(r.b, 1);
    assert_true(r.b->level[IRQ8]);
    assert_int_equal(get(&r, 12) & 0x90, 0x90);
    assert_int_equal(get(&r, 12), 0);
    pass(r.b, CLOCK_SECOND);
    assert_int_equal(r.b->rises[IRQ8], 2);
    free(r.b);
}

static void the_alarm_matches_its_three_bytes(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    set(&r, 1, 0x00);
    set(&r, 3, 0x06);
    set(&r, 5, 0x04);
    set(&r, 11, 0x22);
    pass(r.b, 53 * CLOCK_SECOND);
    assert_false(r.b->level[IRQ8]);
    pass(r.b, CLOCK_SECOND);
    assert_true(r.b->level[IRQ8]);
    assert_int_equal(get(&r, 12) & 0xA0, 0xA0);
    pass(r.b, 86399 * CLOCK_SECOND);
    assert_false(r.b->level[IRQ8]);
    pass(r.b, CLOCK_SECOND);
    assert_true(r.b->level[IRQ8]);
    free(r.b);
}

static void alarm_bytes_from_c0_match_anything(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    set(&r, 1, 0x30);
    set(&r, 3, 0xC0);
    set(&r, 5, 0xFF);
    set(&r, 11, 0x22);
    for (unsigned i = 0; i < 5; i++) {
        pass(r.b, 60 * CLOCK_SECOND);
        assert_int_equal(r.b->rises[IRQ8], i + 1);
        get(&r, 12);
    }
    free(r.b);
}

static void an_alarm_that_never_matches_does_no_harm(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    set(&r, 1, 0x77);
    set(&r, 11, 0x22);
    pass(r.b, 86400 * CLOCK_SECOND);
    assert_int_equal(r.b->rises[IRQ8], 0);
    free(r.b);
}

static void flags_rise_without_their_interrupts(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    get(&r, 12);
    pass(r.b, CLOCK_SECOND);
    assert_int_equal(get(&r, 12), 0x50);
    assert_false(r.b->level[IRQ8]);
    free(r.b);
}

static void every_time_byte_may_hold_nonsense(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    for (unsigned value = 0; value < 256; value += 5) {
        for (unsigned index = 0; index < 10; index++)
            set(&r, index, value);
        set(&r, 0x32, value);
        set(&r, 11, value & 0x7F);
        set(&r, 10, value);
        set(&r, 10, 0x26);
        pass(r.b, CLOCK_SECOND * 3);
        get(&r, 0);
        get(&r, 12);
    }
    set(&r, 11, 0x06);
    pass(r.b, CLOCK_SECOND * 2);
    assert_in_range(get(&r, 0), 0, 59);
    assert_in_range(get(&r, 8), 1, 12);
    set(&r, 7, 0);
    set(&r, 8, 3); /* March 0 */
    pass(r.b, CLOCK_SECOND * 2);
    assert_int_equal(get(&r, 7), 1);
    assert_int_equal(get(&r, 8), 3);
    free(r.b);
}

static void the_first_update_comes_half_a_second_after_divider_reset(void **state)
{
    struct rtc r;

    (void)state;
    start_at(&r, base);
    set(&r, 10, 0x76);
    pass(r.b, 5 * CLOCK_SECOND);
    assert_int_equal(get(&r, 0), 0x06);
    set(&r, 10, 0x26);
    pass(r.b, CLOCK_SECOND / 2 - 1);
    assert_int_equal(get(&r, 0), 0x06);
    pass(r.b, 1);
    assert_int_equal(get(&r, 0), 0x07);
    free(r.b);
}

static void cmos_holds_the_memory_size_and_its_sum(void **state)
{
    struct rtc r;
    unsigned sum = 0;

    (void)state;
    start_at(&r, base);
    mc146818_set_memory(&r.chip, MIB(128));
    assert_int_equal(get(&r, 0x15) | get(&r, 0x16) << 8, 640);
    assert_int_equal(get(&r, 0x17) | get(&r, 0x18) << 8, 0xFFFF);
    assert_int_equal(get(&r, 0x30) | get(&r, 0x31) << 8, 0xFFFF);
    assert_int_equal(get(&r, 0x34) | get(&r, 0x35) << 8, 112 * 16);
    for (unsigned i = 0x10; i < 0x2E; i++)
        sum += get(&r, i);
    assert_int_equal(get(&r, 0x2E) << 8 | get(&r, 0x2F), sum);
    set(&r, 0x40, 0x5A);
    mc146818_reset(&r.chip);
    assert_int_equal(get(&r, 0x40), 0x5A);
    free(r.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_starts_with_the_hosts_time),
        cmocka_unit_test(the_calendar_agrees_with_the_c_library),
        cmocka_unit_test(a_time_that_is_set_runs_on),
        cmocka_unit_test(hours_can_be_counted_to_twelve),
        cmocka_unit_test(update_in_progress_shows_shortly_before_the_second),
        cmocka_unit_test(the_periodic_interrupt_has_its_rate),
        cmocka_unit_test(the_update_interrupt_comes_each_second),
        cmocka_unit_test(the_alarm_matches_its_three_bytes),
        cmocka_unit_test(alarm_bytes_from_c0_match_anything),
        cmocka_unit_test(an_alarm_that_never_matches_does_no_harm),
        cmocka_unit_test(flags_rise_without_their_interrupts),
        cmocka_unit_test(every_time_byte_may_hold_nonsense),
        cmocka_unit_test(the_first_update_comes_half_a_second_after_divider_reset),
        cmocka_unit_test(cmos_holds_the_memory_size_and_its_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
