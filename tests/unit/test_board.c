/*
 * The board: that every device is where the schematic says and every wire ends where it should. The
 * vCPU is bare, and nothing executes.
 */
#include "device_bench.h"

#include <stdio.h>
#include <unistd.h>

#include "cpu/state.h"
#include "machine/board.h"

struct rig {
    struct bench *bench; /* for its clock only */
    struct vcpu *vcpu;
    struct mmu *mmu;
    struct board *board;
    struct io_thread *input;
    struct machine_config config;
    char sent[16];
    unsigned sent_count;
};

static void sink(void *opaque, const uint8_t *bytes, size_t count)
{
    struct rig *r = opaque;

    for (size_t i = 0; i < count; i++)
        r->sent[r->sent_count++ % sizeof(r->sent)] = (char)bytes[i];
}

static void no_wake(void *opaque)
{
    (void)opaque;
}

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct err err = {{0}};

    assert_non_null(r);
    *state = r;
    r->bench = bench_create(0);
    r->vcpu = aligned_alloc(64, (sizeof(*r->vcpu) + 63) & ~(size_t)63);
    r->board = calloc(1, sizeof(*r->board));
    r->input = calloc(1, sizeof(*r->input));
    assert_true(r->vcpu && r->board && r->input);
    memset(r->vcpu, 0, sizeof(*r->vcpu));
    machine_config_init(&r->config);
    r->config.serial = (struct machine_sink){sink, r};
    r->config.debug_exit = r->config.debugcon = true;
    r->config.debugcon_sink = r->config.serial;
    io_thread_init(r->input, &r->config.serial_input, no_wake, NULL);
    r->mmu = mmu_create(MIB(32), 0, &err);
    if (!r->mmu)
        fail_msg("%s", err.text);
    mmu_attach(r->mmu, r->vcpu);
    assert_int_equal(
        board_init(r->board, &r->config, &r->bench->clock, r->input, r->vcpu, r->mmu, &err), 0);
    board_reset(r->board, r->mmu);
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;

    mmu_destroy(r->mmu);
    free(r->input);
    free(r->board);
    free(r->vcpu);
    free(r->bench);
    free(r);
    return 0;
}

static uint32_t port_in(struct rig *r, uint16_t port, unsigned size)
{
    return r->vcpu->ops->io_read(r->vcpu->ops_opaque, port, size);
}

static void port_out(struct rig *r, uint16_t port, unsigned size, uint32_t value)
{
    r->vcpu->ops->io_write(r->vcpu->ops_opaque, port, size, value);
}

static void init_pic(struct rig *r)
{
    static const uint8_t words[][2] = {{0x20, 0x11}, {0x21, 0x20}, {0x21, 0x04}, {0x21, 0x01},
                                       {0xA0, 0x11}, {0xA1, 0x28}, {0xA1, 0x02}, {0xA1, 0x01},
                                       {0x21, 0x00}, {0xA1, 0x00}};

    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        port_out(r, words[i][0], 1, words[i][1]);
}

static int acknowledge(struct rig *r)
{
    return r->vcpu->ops->irq_ack(r->vcpu->ops_opaque);
}

static void the_timer_is_on_line_0_and_runs_in_poll(void **state)
{
    struct rig *r = *state;

    init_pic(r);
    port_out(r, 0x43, 1, 0x30);
    port_out(r, 0x40, 1, 0x10);
    port_out(r, 0x40, 1, 0x00);
    assert_false(r->vcpu->irq_line);
    r->bench->now += CLOCK_SECOND;
    assert_false(r->vcpu->irq_line);
    r->vcpu->ops->poll(r->vcpu->ops_opaque);
    assert_true(r->vcpu->irq_line);
    assert_int_equal(acknowledge(r), 0x20);
    assert_false(r->vcpu->irq_line);
    assert_int_equal(acknowledge(r), -1);
}

static void the_other_devices_are_on_their_lines(void **state)
{
    struct rig *r = *state;

    init_pic(r);
    port_out(r, 0x3F9, 1, 0x02); /* COM1: transmitter empty */
    assert_int_equal(acknowledge(r), 0x24);
    port_out(r, 0x20, 1, 0x20);
    port_out(r, 0x60, 1, 0xEE); /* keyboard: echo */
    assert_int_equal(acknowledge(r), 0x21);
    port_out(r, 0x20, 1, 0x20);
    port_out(r, 0x70, 1, 0x0B); /* clock: update-ended interrupt */
    port_out(r, 0x71, 1, 0x12);
    r->bench->now += CLOCK_SECOND;
    board_poll(r->board);
    assert_int_equal(acknowledge(r), 0x28);
    port_out(r, 0xA0, 1, 0x20);
    port_out(r, 0x20, 1, 0x20);
    port_out(r, 0xB2, 1, 0xF1); /* ACPI: timer status */
    port_out(r, 0x602, 2, 1);
    r->bench->now += 3 * CLOCK_SECOND;
    board_poll(r->board);
    assert_int_equal(acknowledge(r), 0x29);
}

static void serial_and_debug_console_reach_their_sinks(void **state)
{
    struct rig *r = *state;

    port_out(r, 0x3F8, 1, 's');
    port_out(r, 0xE9, 1, 'd');
    assert_int_equal(r->sent_count, 0);
    board_flush(r->board);
    assert_int_equal(r->sent_count, 2);
    assert_memory_equal(r->sent, "sd", 2);
}

static void a_line_is_handed_over_when_it_ends_or_a_millisecond_old(void **state)
{
    struct rig *r = *state;

    port_out(r, 0x3F8, 1, 'a');
    port_out(r, 0x3F8, 1, '\n');
    assert_memory_equal(r->sent, "a\n", 2);
    port_out(r, 0x3F8, 1, '#');
    pass(r->bench, 999999);
    assert_int_equal(r->sent_count, 2);
    pass(r->bench, 1);
    assert_int_equal(r->sent_count, 3);
    for (unsigned i = 0; i < 300; i++)
        port_out(r, 0x3F8, 1, 'x');
    assert_int_equal(r->sent_count, 3 + 256);
}

static void each_reset_line_asks_for_a_reset(void **state)
{
    static const struct {
        uint16_t port;
        uint8_t value;
    } rows[] = {{0x64, 0xFE}, {0x92, 0x01}, {0xCF9, 0x06}};
    struct rig *r = *state;

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        r->vcpu->stop = r->vcpu->kicked = false;
        port_out(r, rows[i].port, 1, rows[i].value);
        assert_true(r->vcpu->stop && r->vcpu->kicked);
        assert_int_equal(board_take_request(r->board), BOARD_RESET);
        assert_int_equal(board_take_request(r->board), BOARD_NONE);
        board_reset(r->board, r->mmu);
    }
}

static void power_off_and_debug_exit_are_requests(void **state)
{
    struct rig *r = *state;

    port_out(r, 0x604, 2, 5 << 10 | 0x2000);
    port_out(r, 0x501, 1, 4); /* too late: the first request stands */
    assert_int_equal(board_take_request(r->board), BOARD_POWER_OFF);
    port_out(r, 0x501, 1, 5);
    port_out(r, 0xCF9, 1, 6);
    assert_int_equal(board_take_request(r->board), BOARD_EXIT);
    assert_int_equal(r->board->exit_status, 11);
}

static void a20_can_be_read_back_at_both_places(void **state)
{
    struct rig *r = *state;

    assert_int_equal(r->board->a20, 1); /* the keyboard controller's, as a BIOS leaves it */
    port_out(r, 0x92, 1, 2);
    assert_int_equal(r->board->a20, 3);
    port_out(r, 0x64, 1, 0xDD);
    assert_int_equal(r->board->a20, 2);
    assert_int_equal(port_in(r, 0x92, 1), 2);
}

static void a_loader_is_told_about_memory(void **state)
{
    struct rig *r = *state;
    struct boot_target t;
    uint64_t end = 0;
    uint8_t signature[8], sum = 0, rsdp[20];

    board_describe(r->board, r->mmu, &t);
    assert_int_equal(t.ram_top, MIB(32));
    assert_int_equal(t.e820[0].base, 0);
    for (unsigned i = 0; i < t.e820_count; i++) {
        assert_true(t.e820[i].base >= end);
        end = t.e820[i].base + t.e820[i].size;
        if (t.e820[i].type == E820_RAM)
            assert_true(mmu_is_ram(r->mmu, t.e820[i].base, t.e820[i].size));
    }
    assert_int_equal(end, MIB(32));
    mmu_phys_read(r->mmu, t.rsdp, signature, 8);
    assert_memory_equal(signature, "RSD PTR ", 8);
    mmu_phys_read(r->mmu, t.rsdp, rsdp, sizeof(rsdp));
    for (unsigned i = 0; i < sizeof(rsdp); i++)
        sum = (uint8_t)(sum + rsdp[i]);
    assert_int_equal(sum, 0);
}

static void a_debug_port_on_a_device_is_refused(void **state)
{
    struct rig *r = *state;
    struct board *second = calloc(1, sizeof(*second));
    struct err err = {{0}};

    assert_non_null(second);
    r->config.debug_exit_iobase = 0x3F9;
    assert_true(board_init(second, &r->config, &r->bench->clock, r->input, r->vcpu, r->mmu, &err) <
                0);
    assert_non_null(strstr(err.text, "isa-debug-exit"));
    free(second);
}

/* ---- host input ---- */

static void wake_by_pipe(void *opaque)
{
    assert_int_equal(write(*(int *)opaque, "", 1), 1);
}

static size_t drop_a(void *opaque, uint8_t *bytes, size_t count)
{
    size_t left = 0;

    (void)opaque;
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != 'a')
            bytes[left++] = bytes[i];
    }
    return left;
}

static void input_arrives_in_order_through_a_full_ring(void **state)
{
    enum { TOTAL = 100000 };
    struct io_thread *t = calloc(1, sizeof(*t));
    struct err err = {{0}};
    struct machine_source source = {.filter = drop_a};
    int in_pipe[2], wake_pipe[2];
    unsigned expected = 0, got = 0;
    uint8_t bytes[4096], c;
    pid_t child;

    (void)state;
    assert_non_null(t);
    assert_int_equal(pipe(in_pipe) | pipe(wake_pipe), 0);
    source.fd = in_pipe[0];
    io_thread_init(t, &source, wake_by_pipe, &wake_pipe[1]);
    child = fork();
    if (child == 0) {
        for (unsigned i = 0; i < TOTAL; i++) {
            c = (uint8_t)('a' + i % 26);
            if (write(in_pipe[1], &c, 1) != 1)
                _exit(1);
        }
        _exit(0);
    }
    close(in_pipe[1]);
    assert_int_equal(io_thread_start(t, &err), 0);
    while (got < TOTAL / 26 * 25) {
        size_t n;
        assert_int_equal(read(wake_pipe[0], &c, 1), 1);
        if (got == 0)
            usleep(50000); /* let it fill up */
        while ((n = io_thread_read(t, bytes, 1 + got % sizeof(bytes))) > 0) {
            for (size_t i = 0; i < n; i++) {
                if (expected % 26 == 0)
                    expected++;
                assert_int_equal(bytes[i], 'a' + expected++ % 26);
            }
            got += (unsigned)n;
        }
    }
    io_thread_stop(t);
    close(in_pipe[0]);
    close(wake_pipe[0]);
    close(wake_pipe[1]);
    free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_timer_is_on_line_0_and_runs_in_poll, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_other_devices_are_on_their_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(serial_and_debug_console_reach_their_sinks, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_line_is_handed_over_when_it_ends_or_a_millisecond_old,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(each_reset_line_asks_for_a_reset, set_up, tear_down),
        cmocka_unit_test_setup_teardown(power_off_and_debug_exit_are_requests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a20_can_be_read_back_at_both_places, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_loader_is_told_about_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_debug_port_on_a_device_is_refused, set_up, tear_down),
        cmocka_unit_test(input_arrives_in_order_through_a_full_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
