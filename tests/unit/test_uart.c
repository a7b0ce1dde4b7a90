/*
 * The 16550A at 3F8h, with time stepped by hand and a host that is two arrays.
 */
#include "device_bench.h"

#include "devices/uart16550.h"

enum { IRQ4 = 0, BASE = 0x3F8, DATA = BASE, IER, IIR, LCR, MCR, LSR, MSR, SCR, FCR = IIR };

struct uart {
    struct bench *b;
    struct uart16550 chip;
    uint8_t sent[64];
    unsigned sent_count;
    uint8_t host[64];
    unsigned host_at, host_count;
};

static void host_send(void *opaque, uint8_t byte)
{
    struct uart *u = opaque;

    u->sent[u->sent_count++ % sizeof(u->sent)] = byte;
}

static size_t host_fetch(void *opaque, uint8_t *to, size_t max)
{
    struct uart *u = opaque;
    size_t n = 0;

    while (n < max && u->host_at < u->host_count)
        to[n++] = u->host[u->host_at++];
    return n;
}

static void start(struct uart *u)
{
    const struct uart16550_line line = {host_send, host_fetch, u};

    memset(u, 0, sizeof(*u));
    u->b = bench_create(0);
    assert_int_equal(uart16550_init(&u->chip, &u->b->bus, BASE, &u->b->clock,
                                    bench_wire(u->b, IRQ4), &line, &u->b->err),
                     0);
}

/* 115200 baud, 8N1, FIFOs with a trigger of 8, lines up. */
static void start_open(struct uart *u)
{
    start(u);
    out(u->b, LCR, 0x83);
    out(u->b, DATA, 1);
    out(u->b, IER, 0);
    out(u->b, LCR, 0x03);
    out(u->b, FCR, 0x87);
    out(u->b, MCR, 0x0B);
}

static void type(struct uart *u, const char *text)
{
    u->host_at = 0;
    u->host_count = (unsigned)strlen(text);
    memcpy(u->host, text, u->host_count);
    uart16550_input(&u->chip);
}

static void bytes_written_reach_the_host_in_order(void **state)
{
    struct uart u;

    (void)state;
    start_open(&u);
    for (const char *p = "novt\n"; *p; p++) {
        assert_int_equal(in(u.b, LSR) & 0x60, 0x60);
        out(u.b, DATA, (uint8_t)*p);
    }
    assert_int_equal(u.sent_count, 5);
    assert_memory_equal(u.sent, "novt\n", 5);
    free(u.b);
}

/* The steps of Linux's autoconfig() and autoconfig_16550a(). */
static void linux_takes_it_for_a_16550a(void **state)
{
    struct uart u;
    uint8_t status;

    (void)state;
    start(&u);
    out(u.b, IER, 0);
    assert_int_equal(in(u.b, IER) & 0x0F, 0);
    out(u.b, IER, 0x0F);
    assert_int_equal(in(u.b, IER), 0x0F);
    out(u.b, IER, 0);
    out(u.b, MCR, 0x10 | 0x0A);
    status = in(u.b, MSR) & 0xF0;
    assert_int_equal(status, 0x90);
    out(u.b, MCR, 0);
    out(u.b, LCR, 0xBF);
    assert_int_not_equal(in(u.b, IIR), 0); /* no EFR */
    out(u.b, LCR, 0);
    out(u.b, FCR, 1);
    assert_int_equal(in(u.b, IIR) >> 6, 3);
    out(u.b, LCR, 0x80);
    assert_int_not_equal(in(u.b, IIR), 0);
    out(u.b, FCR, 0x21); /* no 64-byte FIFO */
    assert_int_equal(in(u.b, IIR) & 0x20, 0);
    out(u.b, LCR, 0);
    out(u.b, IER, 0x40); /* no XScale unit enable */
    assert_int_equal(in(u.b, IER), 0);
    free(u.b);
}

static void enabling_the_transmitters_interrupt_raises_it_each_time(void **state)
{
    struct uart u;

    (void)state;
    start_open(&u);
    for (unsigned i = 0; i < 2; i++) {
        out(u.b, IER, 2);
        assert_true(u.b->level[IRQ4]);
        assert_int_equal(in(u.b, IIR), 0xC2);
        assert_false(u.b->level[IRQ4]);
        assert_int_equal(in(u.b, IIR), 0xC1);
        out(u.b, IER, 0);
    }
    free(u.b);
}

static void each_byte_sent_raises_the_transmitters_interrupt_again(void **state)
{
    struct uart u;

    (void)state;
    start_open(&u);
    out(u.b, IER, 2);
    in(u.b, IIR);
    out(u.b, DATA, 'x');
    assert_true(u.b->level[IRQ4]);
    assert_int_equal(u.b->rises[IRQ4], 2);
    in(u.b, IIR);
    assert_false(u.b->level[IRQ4]);
    free(u.b);
}

static void received_bytes_interrupt_at_the_trigger_level(void **state)
{
    struct uart u;

    (void)state;
    start_open(&u);
    out(u.b, IER, 1);
    type(&u, "1234567");
    assert_false(u.b->level[IRQ4]);
    type(&u, "8");
    assert_true(u.b->level[IRQ4]);
    assert_int_equal(in(u.b, IIR), 0xC4);
    assert_int_equal(in(u.b, DATA), '1');
    assert_int_equal(in(u.b, IIR), 0xC1);
    assert_int_equal(in(u.b, LSR) & 1, 1);
    free(u.b);
}

static void fewer_bytes_time_out_after_four_characters(void **state)
{
    struct uart u;

    (void)state;
    start_open(&u);
    out(u.b, IER, 1);
    type(&u, "ab");
    pass(u.b, 340000); /* 4 x 10 bits at 115200 baud are 347 us */
    assert_false(u.b->level[IRQ4]);
    pass(u.b, 10000);
    assert_true(u.b->level[IRQ4]);
    assert_int_equal(in(u.b, IIR), 0xCC);
    assert_int_equal(in(u.b, DATA), 'a');
    assert_false(u.b->level[IRQ4]);
    pass(u.b, 350000);
    assert_true(u.b->level[IRQ4]);
    assert_int_equal(in(u.b, DATA), 'b');
    pass(u.b, CLOCK_SECOND);
    assert_false(u.b->level[IRQ4]);
    assert_int_equal(in(u.b, LSR) & 1, 0);
    free(u.b);
}

static void what_does_not_fit_waits_at_the_host(void **state)
{
    struct uart u;
    const char *text = "the quick brown fox jumps over the lazy dog";

    (void)state;
    start_open(&u);
    type(&u, text);
    assert_int_equal(u.host_at, 16);
    for (const char *p = text; *p; p++) {
        assert_int_equal(in(u.b, LSR) & 0x03, 1);
        assert_int_equal(in(u.b, DATA), *p);
    }
    assert_int_equal(in(u.b, LSR) & 0x03, 0);
    assert_int_equal(u.host_at, u.host_count);
    free(u.b);
}

static void without_fifos_one_byte_is_taken_at_a_time(void **state)
{
    struct uart u;

    (void)state;
    start_open(&u);
    out(u.b, FCR, 0);
    out(u.b, IER, 1);
    type(&u, "xy");
    assert_int_equal(u.host_at, 1);
    assert_int_equal(in(u.b, IIR), 0x04);
    assert_int_equal(in(u.b, DATA), 'x');
    assert_int_equal(in(u.b, DATA), 'y');
    assert_false(u.b->level[IRQ4]);
    free(u.b);
}

static void input_waits_until_the_guest_has_opened_the_port(void **state)
{
    struct uart u;

    (void)state;
    start(&u);
    out(u.b, MCR, 0); /* what Linux's probe leaves */
    type(&u, "early");
    assert_int_equal(u.host_at, 0);
    out(u.b, FCR, 0x07); /* opening clears the FIFOs */
    out(u.b, MCR, 0x0B);
    assert_int_equal(in(u.b, DATA), 'e');
    free(u.b);
}

static void a_guest_that_polls_and_sets_nothing_up_gets_input(void **state)
{
    struct uart u;

    (void)state;
    start(&u);
    type(&u, "k");
    assert_int_equal(in(u.b, LSR) & 1, 1);
    assert_int_equal(in(u.b, DATA), 'k');
    free(u.b);
}

static void loopback_returns_what_is_sent(void **state)
{
    struct uart u;

    (void)state;
    start_open(&u);
    out(u.b, MCR, 0x10);
    for (unsigned i = 0; i < 16; i++)
        out(u.b, DATA, i);
    assert_int_equal(u.sent_count, 0);
    assert_int_equal(in(u.b, LSR) & 0x03, 1);
    out(u.b, DATA, 99);
    assert_int_equal(in(u.b, LSR) & 0x03, 3); /* overrun, shown once */
    assert_int_equal(in(u.b, LSR) & 0x03, 1);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(in(u.b, DATA), i);
    assert_int_equal(in(u.b, LSR) & 0x01, 0);
    out(u.b, LCR, 0x00); /* five bits */
    out(u.b, DATA, 0xFF);
    assert_int_equal(in(u.b, DATA), 0x1F);
    free(u.b);
}

static void loopback_joins_modem_outputs_to_inputs(void **state)
{
    static const struct {
        uint8_t mcr, msr;
    } rows[] = {{0x01, 0x20}, {0x02, 0x10}, {0x04, 0x40}, {0x08, 0x80}, {0x0F, 0xF0}, {0x00, 0x00}};
    struct uart u;

    (void)state;
    start_open(&u);
    assert_int_equal(in(u.b, MSR), 0xB0);
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        out(u.b, MCR, 0x10u | rows[i].mcr);
        assert_int_equal(in(u.b, MSR) & 0xF0, rows[i].msr);
    }
    out(u.b, IER, 8);
    out(u.b, MCR, 0x14);
    assert_false(u.b->level[IRQ4]); /* the leading edge of RI does not count */
    out(u.b, MCR, 0x11);
    assert_true(u.b->level[IRQ4]);
    assert_int_equal(in(u.b, IIR), 0xC0);
    assert_int_equal(in(u.b, MSR), 0x26); /* DSR on: DDSR, TERI */
    assert_false(u.b->level[IRQ4]);
    free(u.b);
}

static void a_break_in_loopback_is_a_line_status_interrupt(void **state)
{
    struct uart u;

    (void)state;
    start_open(&u);
    out(u.b, MCR, 0x10);
    out(u.b, IER, 5);
    out(u.b, LCR, 0x43);
    assert_int_equal(in(u.b, IIR), 0xC6);
    assert_int_equal(in(u.b, LSR) & 0x99, 0x99);
    assert_int_equal(in(u.b, LSR) & 0x9E, 0);
    assert_int_equal(in(u.b, DATA), 0);
    free(u.b);
}

static void divisor_and_scratch_are_registers_of_their_own(void **state)
{
    struct uart u;

    (void)state;
    start_open(&u);
    out(u.b, SCR, 0xA5);
    out(u.b, LCR, 0x80);
    out(u.b, DATA, 0x34);
    out(u.b, IER, 0x12);
    assert_int_equal(in(u.b, DATA), 0x34);
    assert_int_equal(in(u.b, IER), 0x12);
    out(u.b, LCR, 0x03);
    assert_int_equal(in(u.b, IER), 0);
    assert_int_equal(in(u.b, SCR), 0xA5);
    assert_int_equal(u.sent_count, 0);
    out(u.b, LCR, 0x80);
    out(u.b, DATA, 0);
    out(u.b, IER, 0); /* a divisor of zero must not stop anything */
    out(u.b, LCR, 0x03);
    type(&u, "z");
    pass(u.b, CLOCK_SECOND);
    free(u.b);
}

static void clearing_the_fifo_drops_what_is_in_it(void **state)
{
    struct uart u;

    (void)state;
    start_open(&u);
    type(&u, "gone");
    out(u.b, FCR, 0x83);
    assert_int_equal(in(u.b, LSR) & 1, 0);
    assert_null(u.b->clock.first);
    free(u.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_written_reach_the_host_in_order),
        cmocka_unit_test(linux_takes_it_for_a_16550a),
        cmocka_unit_test(enabling_the_transmitters_interrupt_raises_it_each_time),
        cmocka_unit_test(each_byte_sent_raises_the_transmitters_interrupt_again),
        cmocka_unit_test(received_bytes_interrupt_at_the_trigger_level),
        cmocka_unit_test(fewer_bytes_time_out_after_four_characters),
        cmocka_unit_test(what_does_not_fit_waits_at_the_host),
        cmocka_unit_test(without_fifos_one_byte_is_taken_at_a_time),
        cmocka_unit_test(input_waits_until_the_guest_has_opened_the_port),
        cmocka_unit_test(a_guest_that_polls_and_sets_nothing_up_gets_input),
        cmocka_unit_test(loopback_returns_what_is_sent),
        cmocka_unit_test(loopback_joins_modem_outputs_to_inputs),
        cmocka_unit_test(a_break_in_loopback_is_a_line_status_interrupt),
        cmocka_unit_test(divisor_and_scratch_are_registers_of_their_own),
        cmocka_unit_test(clearing_the_fifo_drops_what_is_in_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
