/*
 * The keyboard controller with its keyboard, and the small system ports.
 */
#include "device_bench.h"

#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/i8042.h"
#include "devices/pci_config.h"
#include "devices/sysctl.h"

enum { IRQ1, IRQ12, A20, RESET };

struct keyboard {
    struct bench *b;
    struct i8042 chip;
};

static void start(struct keyboard *k)
{
    struct i8042_wires wires;

    k->b = bench_create(0);
    wires = (struct i8042_wires){bench_wire(k->b, IRQ1), bench_wire(k->b, IRQ12),
                                 bench_wire(k->b, A20), bench_wire(k->b, RESET)};
    assert_int_equal(i8042_init(&k->chip, &k->b->bus, &wires, &k->b->err), 0);
}

/* A byte is there, from the keyboard side, and this is it. */
static void expect(struct keyboard *k, uint8_t byte)
{
    assert_int_equal(in(k->b, 0x64) & 0x21, 0x01);
    assert_int_equal(in(k->b, 0x60), byte);
}

static void expect_nothing(struct keyboard *k)
{
    assert_int_equal(in(k->b, 0x64) & 0x01, 0);
}

static void the_self_tests_pass(void **state)
{
    struct keyboard k;

    (void)state;
    start(&k);
    expect_nothing(&k);
    out(k.b, 0x64, 0xAA);
    expect(&k, 0x55);
    assert_true(in(k.b, 0x64) & 0x04);
    out(k.b, 0x64, 0xAB);
    expect(&k, 0x00);
    out(k.b, 0x64, 0xA9);
    expect(&k, 0x00);
    expect_nothing(&k);
    free(k.b);
}

static void the_command_byte_is_kept(void **state)
{
    struct keyboard k;

    (void)state;
    start(&k);
    out(k.b, 0x64, 0x60);
    assert_true(in(k.b, 0x64) & 0x08);
    out(k.b, 0x60, 0x74);
    assert_false(in(k.b, 0x64) & 0x08);
    out(k.b, 0x64, 0x20);
    expect(&k, 0x74);
    out(k.b, 0x64, 0xA8);
    out(k.b, 0x64, 0xAE);
    out(k.b, 0x64, 0x20);
    expect(&k, 0x44);
    out(k.b, 0x64, 0xA7);
    out(k.b, 0x64, 0xAD);
    out(k.b, 0x64, 0x20);
    expect(&k, 0x74);
    free(k.b);
}

static void the_keyboard_answers_with_an_interrupt_a_byte(void **state)
{
    struct keyboard k;

    (void)state;
    start(&k);
    out(k.b, 0x60, 0xFF);
    assert_true(k.b->level[IRQ1]);
    expect(&k, 0xFA);
    expect(&k, 0xAA);
    assert_false(k.b->level[IRQ1]);
    assert_int_equal(k.b->rises[IRQ1], 2);
    out(k.b, 0x60, 0xF2);
    expect(&k, 0xFA);
    expect(&k, 0xAB);
    expect(&k, 0x41); /* translated */
    out(k.b, 0x60, 0xED);
    expect(&k, 0xFA);
    out(k.b, 0x60, 0x07);
    expect(&k, 0xFA);
    out(k.b, 0x60, 0xEE);
    expect(&k, 0xEE);
    out(k.b, 0x60, 0x12);
    expect(&k, 0xFE);
    expect_nothing(&k);
    free(k.b);
}

static void without_translation_the_name_is_plain(void **state)
{
    struct keyboard k;

    (void)state;
    start(&k);
    out(k.b, 0x64, 0x60);
    out(k.b, 0x60, 0x04);
    out(k.b, 0x60, 0xF2);
    assert_false(k.b->level[IRQ1]); /* disabled */
    expect(&k, 0xFA);
    expect(&k, 0xAB);
    expect(&k, 0x83);
    out(k.b, 0x60, 0xF0);
    expect(&k, 0xFA);
    out(k.b, 0x60, 0x00);
    expect(&k, 0xFA);
    expect(&k, 0x02);
    free(k.b);
}

static void a_disabled_keyboard_is_silent_until_enabled(void **state)
{
    struct keyboard k;

    (void)state;
    start(&k);
    out(k.b, 0x60, 0xF2);
    expect(&k, 0xFA);
    out(k.b, 0x64, 0xAD); /* AB is in the buffer already */
    expect(&k, 0xAB);
    expect_nothing(&k);
    out(k.b, 0x64, 0xAE);
    expect(&k, 0x41);
    out(k.b, 0x64, 0xAD);
    out(k.b, 0x60, 0xEE); /* talking to it enables it */
    expect(&k, 0xEE);
    free(k.b);
}

static void nobody_is_on_the_second_port(void **state)
{
    struct keyboard k;

    (void)state;
    start(&k);
    out(k.b, 0x64, 0xD4);
    out(k.b, 0x60, 0xF2);
    assert_int_equal(in(k.b, 0x64) & 0x61, 0x61); /* from the second port: time-out */
    assert_int_equal(in(k.b, 0x60), 0xFE);
    out(k.b, 0x64, 0x60);
    out(k.b, 0x60, 0x46);
    out(k.b, 0x64, 0xD3); /* the loopback works all the same */
    out(k.b, 0x60, 0x5A);
    assert_true(k.b->level[IRQ12]);
    assert_int_equal(in(k.b, 0x64) & 0x61, 0x21);
    assert_int_equal(in(k.b, 0x60), 0x5A);
    assert_false(k.b->level[IRQ12]);
    free(k.b);
}

static void the_output_port_drives_a20_and_reset(void **state)
{
    struct keyboard k;

    (void)state;
    start(&k);
    assert_true(k.b->level[A20]);
    out(k.b, 0x64, 0xD1);
    out(k.b, 0x60, 0xDD);
    assert_false(k.b->level[A20]);
    assert_false(k.b->level[RESET]);
    out(k.b, 0x64, 0xD0);
    expect(&k, 0xCD);
    out(k.b, 0x64, 0xDF);
    assert_true(k.b->level[A20]);
    out(k.b, 0x64, 0xDD);
    assert_false(k.b->level[A20]);
    out(k.b, 0x64, 0xF1);
    assert_false(k.b->level[RESET]);
    out(k.b, 0x64, 0xFE);
    assert_true(k.b->level[RESET]);
    free(k.b);
}

static void every_command_and_argument_is_survived(void **state)
{
    struct keyboard k;

    (void)state;
    start(&k);
    for (unsigned i = 0; i < 65536; i++) {
        out(k.b, 0x64, i >> 8);
        out(k.b, 0x60, i & 0xFF);
        if (i % 3 == 0)
            in(k.b, 0x60);
    }
    free(k.b);
}

static void port_92_has_a20_and_a_reset_on_the_rising_bit(void **state)
{
    struct bench *b = bench_create(0);
    struct sysctl s;

    (void)state;
    assert_int_equal(sysctl_init(&s, &b->bus, bench_wire(b, A20), bench_wire(b, RESET), &b->err),
                     0);
    assert_false(b->level[A20]);
    out(b, 0x92, 0x02);
    assert_true(b->level[A20]);
    assert_int_equal(in(b, 0x92), 0x02);
    assert_int_equal(b->rises[RESET], 0);
    out(b, 0x92, 0x03);
    assert_int_equal(b->rises[RESET], 1);
    out(b, 0x80, 0x42);
    assert_int_equal(in(b, 0x80), 0x42);
    free(b);
}

static void the_reset_register_wants_an_edge(void **state)
{
    struct bench *b = bench_create(0);
    struct sysctl s;

    (void)state;
    assert_int_equal(sysctl_init(&s, &b->bus, bench_wire(b, A20), bench_wire(b, RESET), &b->err),
                     0);
    out(b, 0xCF9, 0x02);
    assert_int_equal(b->rises[RESET], 0);
    assert_int_equal(in(b, 0xCF9), 0x02);
    out(b, 0xCF9, 0x06);
    assert_int_equal(b->rises[RESET], 1);
    free(b);
}

static void the_pci_bus_is_there_and_empty(void **state)
{
    struct bench *b = bench_create(0);
    struct pci_config p;

    (void)state;
    assert_int_equal(pci_config_init(&p, &b->bus, &b->err), 0);
    bus_write_port(&b->bus, 0xCF8, 4, 0x80000803);
    assert_int_equal(bus_read_port(&b->bus, 0xCF8, 4), 0x80000800);
    assert_int_equal(bus_read_port(&b->bus, 0xCFC, 4), 0xFFFFFFFF);
    assert_int_equal(bus_read_port(&b->bus, 0xCFE, 2), 0xFFFF);
    assert_int_equal(in(b, 0xCF8), 0xFF);
    free(b);
}

static void take_status(void *opaque, int status)
{
    *(int *)opaque = status;
}

static void the_debug_exit_gives_its_value_and_a_one(void **state)
{
    struct bench *b = bench_create(0);
    struct debug_exit d;
    int status = -1;

    (void)state;
    assert_int_equal(debug_exit_init(&d, &b->bus, 0x501, 2, take_status, &status, &b->err), 0);
    out(b, 0x501, 0x10);
    assert_int_equal(status, 0x21);
    bus_write_port(&b->bus, 0x501, 2, 3);
    assert_int_equal(status, 7);
    assert_true(debug_exit_init(&d, &b->bus, 0x600, 3, take_status, &status, &b->err) < 0);
    free(b);
}

static void take_byte(void *opaque, uint8_t byte)
{
    *(uint8_t *)opaque = byte;
}

static void the_debug_console_says_that_it_is_there(void **state)
{
    struct bench *b = bench_create(0);
    struct debugcon d;
    uint8_t byte = 0;

    (void)state;
    assert_int_equal(debugcon_init(&d, &b->bus, 0xE9, take_byte, &byte, &b->err), 0);
    assert_int_equal(in(b, 0xE9), 0xE9);
    out(b, 0xE9, 'n');
    assert_int_equal(byte, 'n');
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_self_tests_pass),
        cmocka_unit_test(the_command_byte_is_kept),
        cmocka_unit_test(the_keyboard_answers_with_an_interrupt_a_byte),
        cmocka_unit_test(without_translation_the_name_is_plain),
        cmocka_unit_test(a_disabled_keyboard_is_silent_until_enabled),
        cmocka_unit_test(nobody_is_on_the_second_port),
        cmocka_unit_test(the_output_port_drives_a20_and_reset),
        cmocka_unit_test(every_command_and_argument_is_survived),
        cmocka_unit_test(port_92_has_a20_and_a_reset_on_the_rising_bit),
        cmocka_unit_test(the_reset_register_wants_an_edge),
        cmocka_unit_test(the_pci_bus_is_there_and_empty),
        cmocka_unit_test(the_debug_exit_gives_its_value_and_a_one),
        cmocka_unit_test(the_debug_console_says_that_it_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
