/*
 * The 8259A pair, through its ports and pins.
 */
#include "device_bench.h"

#include "devices/i8259.h"

struct pic {
    struct bench *b;
    struct i8259 chips;
};

enum { INTR = 0 };

static void start(struct pic *p, unsigned icw4)
{
    p->b = bench_create(0);
    assert_int_equal(i8259_init(&p->chips, &p->b->bus, bench_wire(p->b, INTR), &p->b->err), 0);
    out(p->b, 0x20, 0x11);
    out(p->b, 0x21, 0x20);
    out(p->b, 0x21, 0x04);
    out(p->b, 0x21, icw4);
    out(p->b, 0xA0, 0x11);
    out(p->b, 0xA1, 0x28);
    out(p->b, 0xA1, 0x02);
    out(p->b, 0xA1, icw4 & ~0x10u);
    out(p->b, 0x21, 0);
    out(p->b, 0xA1, 0);
}

static void line(struct pic *p, int irq, bool level)
{
    struct wire w = i8259_wire(&p->chips, irq);

    wire_set(&w, level);
}

static bool intr(const struct pic *p)
{
    return p->b->level[INTR];
}

static void an_edge_is_latched_and_acknowledged_once(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 1);
    line(&p, 3, true);
    assert_true(intr(&p));
    assert_int_equal(in(p.b, 0x20), 0x08);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x23);
    assert_false(intr(&p));
    assert_int_equal(in(p.b, 0x20), 0);
    out(p.b, 0x20, 0x0B);
    assert_int_equal(in(p.b, 0x20), 0x08);
    out(p.b, 0x20, 0x20);
    assert_int_equal(in(p.b, 0x20), 0);
    assert_false(intr(&p)); /* still high, but no new edge */
    line(&p, 3, false);
    line(&p, 3, true);
    assert_true(intr(&p));
    free(p.b);
}

static void a_level_asks_again_until_it_falls(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 1);
    out(p.b, 0x4D1, 0xFF);
    assert_int_equal(in(p.b, 0x4D1), 0xDE);
    out(p.b, 0x4D0, 0xFF);
    assert_int_equal(in(p.b, 0x4D0), 0xF8);
    line(&p, 9, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x29);
    out(p.b, 0xA0, 0x20);
    out(p.b, 0x20, 0x20);
    assert_true(intr(&p));
    line(&p, 9, false);
    assert_false(intr(&p));
    free(p.b);
}

static void a_request_that_is_gone_gives_input_seven(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 1);
    line(&p, 4, true);
    line(&p, 4, false);
    assert_false(intr(&p));
    assert_int_equal(i8259_acknowledge(&p.chips), 0x27);
    out(p.b, 0x20, 0x0B);
    assert_int_equal(in(p.b, 0x20), 0); /* no in-service bit: it takes no EOI */
    assert_int_equal(p.chips.spurious, 1);
    free(p.b);
}

static void the_slave_comes_through_the_cascade(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 1);
    line(&p, 12, true);
    assert_true(intr(&p));
    assert_int_equal(i8259_acknowledge(&p.chips), 0x2C);
    out(p.b, 0x20, 0x0B);
    out(p.b, 0xA0, 0x0B);
    assert_int_equal(in(p.b, 0x20), 0x04);
    assert_int_equal(in(p.b, 0xA0), 0x10);
    line(&p, 8, true); /* higher on the slave, but the master's input 2 is in service */
    assert_false(intr(&p));
    out(p.b, 0x20, 0x62);
    assert_true(intr(&p));
    assert_int_equal(i8259_acknowledge(&p.chips), 0x28);
    free(p.b);
}

static void fully_nested_mode_lets_the_slaves_better_input_through(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 0x11);
    line(&p, 12, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x2C);
    line(&p, 8, true);
    assert_true(intr(&p));
    assert_int_equal(i8259_acknowledge(&p.chips), 0x28);
    free(p.b);
}

static void priorities_block_what_is_below(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 1);
    line(&p, 4, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x24);
    line(&p, 6, true);
    assert_false(intr(&p));
    line(&p, 1, true);
    assert_true(intr(&p));
    assert_int_equal(i8259_acknowledge(&p.chips), 0x21);
    out(p.b, 0x20, 0x20); /* non-specific: 1 is the highest in service */
    out(p.b, 0x20, 0x0B);
    assert_int_equal(in(p.b, 0x20), 0x10);
    out(p.b, 0x20, 0x64); /* specific: 4 */
    assert_int_equal(i8259_acknowledge(&p.chips), 0x26);
    free(p.b);
}

static void masks_hold_requests_back(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 1);
    out(p.b, 0x21, 0x02);
    assert_int_equal(in(p.b, 0x21), 0x02);
    line(&p, 1, true);
    assert_false(intr(&p));
    out(p.b, 0x21, 0x00);
    assert_true(intr(&p));
    out(p.b, 0x21, 0x04);
    line(&p, 1, false);
    line(&p, 10, true);
    assert_false(intr(&p));
    free(p.b);
}

static void automatic_end_of_interrupt_leaves_nothing_in_service(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 3);
    line(&p, 5, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x25);
    out(p.b, 0x20, 0x0B);
    assert_int_equal(in(p.b, 0x20), 0);
    free(p.b);
}

static void rotation_makes_the_served_input_the_lowest(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 1);
    line(&p, 3, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x23);
    out(p.b, 0x20, 0xA0); /* rotate on non-specific EOI: 3 is lowest, 4 highest */
    line(&p, 3, false);
    line(&p, 3, true);
    line(&p, 5, true);
    line(&p, 1, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x25);
    out(p.b, 0x20, 0x65);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x21);
    out(p.b, 0x20, 0x61);
    out(p.b, 0x20, 0xC0); /* set priority: 0 is lowest */
    line(&p, 0, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x23);
    free(p.b);
}

static void automatic_rotation_follows_each_acknowledge(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 3);
    out(p.b, 0x20, 0x80);
    line(&p, 3, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x23);
    line(&p, 1, true);
    line(&p, 6, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x26);
    free(p.b);
}

static void special_mask_mode_lets_lower_inputs_in(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 1);
    line(&p, 1, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x21);
    line(&p, 6, true);
    assert_false(intr(&p));
    out(p.b, 0x20, 0x68);
    out(p.b, 0x21, 0x02);
    assert_true(intr(&p));
    out(p.b, 0x20, 0x48);
    assert_false(intr(&p));
    free(p.b);
}

static void polling_acknowledges_without_the_cpu(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 1);
    line(&p, 5, true);
    out(p.b, 0x20, 0x0C);
    assert_int_equal(in(p.b, 0x20), 0x85);
    assert_false(intr(&p));
    out(p.b, 0x20, 0x0C);
    assert_int_equal(in(p.b, 0x20) & 0x80, 0);
    free(p.b);
}

static void initialisation_forgets_everything(void **state)
{
    struct pic p;

    (void)state;
    start(&p, 1);
    line(&p, 3, true);
    out(p.b, 0x21, 0xFF);
    out(p.b, 0x20, 0x11);
    assert_int_equal(in(p.b, 0x21), 0);
    out(p.b, 0x21, 0x47);
    out(p.b, 0x21, 0x04);
    out(p.b, 0x21, 0x01);
    assert_false(intr(&p)); /* the edge detectors were cleared */
    line(&p, 3, false);
    line(&p, 3, true);
    assert_int_equal(i8259_acknowledge(&p.chips), 0x43);
    free(p.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_edge_is_latched_and_acknowledged_once),
        cmocka_unit_test(a_level_asks_again_until_it_falls),
        cmocka_unit_test(a_request_that_is_gone_gives_input_seven),
        cmocka_unit_test(the_slave_comes_through_the_cascade),
        cmocka_unit_test(fully_nested_mode_lets_the_slaves_better_input_through),
        cmocka_unit_test(priorities_block_what_is_below),
        cmocka_unit_test(masks_hold_requests_back),
        cmocka_unit_test(automatic_end_of_interrupt_leaves_nothing_in_service),
        cmocka_unit_test(rotation_makes_the_served_input_the_lowest),
        cmocka_unit_test(automatic_rotation_follows_each_acknowledge),
        cmocka_unit_test(special_mask_mode_lets_lower_inputs_in),
        cmocka_unit_test(polling_acknowledges_without_the_cpu),
        cmocka_unit_test(initialisation_forgets_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
