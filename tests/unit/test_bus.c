/*
 * The bus: dispatch, splitting, and what nobody answers; and the clock's list of timers.
 */
#include "device_bench.h"

struct probe {
    unsigned reads, writes;
    uint16_t port;
    unsigned size;
    uint32_t value;
    uint8_t bytes[8];
};

static uint32_t probe_read(void *opaque, uint16_t port, unsigned size)
{
    struct probe *p = opaque;
    uint32_t value = 0;

    p->reads++;
    p->port = port;
    p->size = size;
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)p->bytes[(port + i) & 7] << (8 * i);
    return value;
}

static void probe_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct probe *p = opaque;

    p->writes++;
    p->port = port;
    p->size = size;
    p->value = value;
    for (unsigned i = 0; i < size; i++)
        p->bytes[(port + i) & 7] = (uint8_t)(value >> (8 * i));
}

static const struct bus_ports byte_ports[] = {{0, 4, BUS_BYTE, probe_read, probe_write}};
static const struct bus_ports wide_ports[] = {
    {0, 4, BUS_BYTE | BUS_WORD | BUS_DWORD, probe_read, probe_write}};
static const struct bus_ports dword_port[] = {{0, 1, BUS_DWORD, probe_read, probe_write}};

static void a_wide_access_to_byte_ports_is_split_in_order(void **state)
{
    struct bench *b = bench_create(0);
    struct probe p = {.bytes = {0x11, 0x22, 0x33, 0x44}};

    (void)state;
    assert_int_equal(bus_add_ports(&b->bus, "probe", 0x100, byte_ports, 1, &p, &b->err), 0);
    assert_int_equal(bus_read_port(&b->bus, 0x100, 4), 0x44332211);
    assert_int_equal(p.reads, 4);
    assert_int_equal(p.port, 3);
    bus_write_port(&b->bus, 0x101, 2, 0xBEEF);
    assert_int_equal(p.writes, 2);
    assert_int_equal(p.bytes[1], 0xEF);
    assert_int_equal(p.bytes[2], 0xBE);
    bus_write_port(&b->bus, 0x100, 4, 0xD4C3B2A1);
    assert_memory_equal(p.bytes, "\xA1\xB2\xC3\xD4", 4);
    free(b);
}

static void a_wide_port_takes_the_access_whole(void **state)
{
    struct bench *b = bench_create(0);
    struct probe p = {0};

    (void)state;
    assert_int_equal(bus_add_ports(&b->bus, "probe", 0x100, wide_ports, 1, &p, &b->err), 0);
    bus_write_port(&b->bus, 0x100, 4, 0x12345678);
    assert_int_equal(p.writes, 1);
    assert_int_equal(p.value, 0x12345678);
    assert_int_equal(bus_read_port(&b->bus, 0x100, 2), 0x5678);
    assert_int_equal(p.size, 2);
    free(b);
}

static void an_access_that_sticks_out_of_a_range_is_split(void **state)
{
    struct bench *b = bench_create(0);
    struct probe p = {.bytes = {1, 2, 3, 4}};

    (void)state;
    assert_int_equal(bus_add_ports(&b->bus, "probe", 0x100, wide_ports, 1, &p, &b->err), 0);
    assert_int_equal(bus_read_port(&b->bus, 0x102, 4), 0xFFFF0403);
    assert_int_equal(bus_read_port(&b->bus, 0xFF, 2), 0x01FF);
    free(b);
}

static void a_doubleword_register_leaves_bytes_to_others(void **state)
{
    struct bench *b = bench_create(0);
    struct probe d = {0}, c = {0};
    static const struct bus_ports neighbour[] = {{0, 1, BUS_BYTE, probe_read, probe_write}};

    (void)state;
    assert_int_equal(bus_add_ports(&b->bus, "dword", 0xCF8, dword_port, 1, &d, &b->err), 0);
    assert_int_equal(bus_add_ports(&b->bus, "byte", 0xCF9, neighbour, 1, &c, &b->err), 0);
    bus_write_port(&b->bus, 0xCF8, 4, 0x80000000);
    assert_int_equal(d.writes, 1);
    assert_int_equal(c.writes, 0);
    bus_write_port(&b->bus, 0xCF9, 1, 6);
    assert_int_equal(d.writes, 1);
    assert_int_equal(c.writes, 1);
    assert_int_equal(bus_read_port(&b->bus, 0xCF8, 1), 0xFF);
    assert_int_equal(d.reads, 0);
    free(b);
}

static void unassigned_ports_read_as_ones_and_are_counted(void **state)
{
    struct bench *b = bench_create(0);

    (void)state;
    assert_int_equal(bus_read_port(&b->bus, 0x1234, 1), 0xFF);
    assert_int_equal(b->bus.counters.unassigned_ports, 1);
    assert_int_equal(bus_read_port(&b->bus, 0xFFFF, 4), 0xFFFFFFFF);
    bus_write_port(&b->bus, 0x1234, 1, 0);
    assert_int_equal(b->bus.counters.unassigned_ports, 6);
    free(b);
}

static void two_devices_at_one_port_are_refused(void **state)
{
    struct bench *b = bench_create(0);
    struct probe p = {0};

    (void)state;
    assert_int_equal(bus_add_ports(&b->bus, "first", 0x100, byte_ports, 1, &p, &b->err), 0);
    assert_true(bus_add_ports(&b->bus, "second", 0x103, byte_ports, 1, &p, &b->err) < 0);
    assert_non_null(strstr(b->err.text, "first"));
    assert_int_equal(bus_read_port(&b->bus, 0x104, 1), 0xFF);
    assert_true(bus_add_ports(&b->bus, "third", 0xFFFE, byte_ports, 1, &p, &b->err) < 0);
    free(b);
}

static uint32_t mmio_read(void *opaque, uint32_t offset, unsigned size)
{
    (void)opaque;
    return offset << 8 | size;
}

static void mmio_write(void *opaque, uint32_t offset, unsigned size, uint32_t value)
{
    uint32_t *last = opaque;

    (void)size;
    *last = offset + value;
}

static void memory_is_dispatched_by_range(void **state)
{
    static const struct bus_mmio mmio = {mmio_read, mmio_write};
    struct bench *b = bench_create(0);
    uint32_t last = 0;

    (void)state;
    assert_int_equal(bus_add_mmio(&b->bus, "regs", 0xFFFFF000, 0x1000, &mmio, &last, &b->err), 0);
    assert_true(bus_add_mmio(&b->bus, "more", 0xFFFFE800, 0x1000, &mmio, &last, &b->err) < 0);
    assert_int_equal(bus_read_memory(&b->bus, 0xFFFFF010, 4), 0x1004);
    bus_write_memory(&b->bus, 0xFFFFF020, 2, 5);
    assert_int_equal(last, 0x25);
    assert_int_equal(bus_read_memory(&b->bus, 0xA0000, 2), 0xFFFF);
    assert_int_equal(bus_read_memory(&b->bus, 0xFFFFFFFE, 4), 0xFFFFFFFF);
    assert_int_equal(b->bus.counters.unassigned_memory, 2);
    free(b);
}

struct tick {
    struct bench *bench;
    struct clock_timer timer;
    uint64_t at[4];
    unsigned count;
    uint64_t period;
};

static void tick(void *opaque, uint64_t now)
{
    struct tick *t = opaque;

    t->at[t->count++ & 3] = now;
    if (t->period)
        clock_timer_set(&t->bench->clock, &t->timer, t->timer.deadline + t->period);
}

static void timers_expire_in_the_order_of_their_deadlines(void **state)
{
    struct bench *b = bench_create(0);
    struct tick first = {.bench = b}, second = {.bench = b, .period = 10};

    (void)state;
    clock_timer_init(&first.timer, tick, &first);
    clock_timer_init(&second.timer, tick, &second);
    clock_timer_set(&b->clock, &first.timer, 25);
    clock_timer_set(&b->clock, &second.timer, 10);
    assert_ptr_equal(b->clock.first, &second.timer);
    assert_int_equal(b->clock.armed, 10);
    pass(b, 30);
    assert_int_equal(first.count, 1);
    assert_int_equal(first.at[0], 25);
    assert_int_equal(second.count, 3);
    assert_int_equal(second.at[2], 30);
    clock_timer_set(&b->clock, &second.timer, CLOCK_NEVER);
    assert_int_equal(b->clock.armed, CLOCK_NEVER);
    pass(b, 100);
    assert_int_equal(second.count, 3);
    free(b);
}

static void ticks_do_not_drift_or_wrap(void **state)
{
    const uint64_t year = 365ull * 86400;

    (void)state;
    assert_int_equal(clock_ticks(100 * year * CLOCK_SECOND, 1193182), 100 * year * 1193182);
    for (uint64_t n = 1; n < 1000000; n = n * 3 + 1) {
        uint64_t at = clock_tick_time(n, 1193182);
        assert_int_equal(clock_ticks(at, 1193182), n);
        assert_int_equal(clock_ticks(at - 1, 1193182), n - 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wide_access_to_byte_ports_is_split_in_order),
        cmocka_unit_test(a_wide_port_takes_the_access_whole),
        cmocka_unit_test(an_access_that_sticks_out_of_a_range_is_split),
        cmocka_unit_test(a_doubleword_register_leaves_bytes_to_others),
        cmocka_unit_test(unassigned_ports_read_as_ones_and_are_counted),
        cmocka_unit_test(two_devices_at_one_port_are_refused),
        cmocka_unit_test(memory_is_dispatched_by_range),
        cmocka_unit_test(timers_expire_in_the_order_of_their_deadlines),
        cmocka_unit_test(ticks_do_not_drift_or_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
