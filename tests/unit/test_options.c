/* The command line and the Ctrl-A filter, without a machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "base/log.h"
#include "frontend/options.h"
#include "frontend/terminal.h"

/* Parses up to seven words, NULL at their end. */
static int parse(struct options *o, struct err *err, const char *const *words)
{
    char *argv[9] = {"novt"};
    int argc = 1;
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    *err = (struct err){{0}};
    return options_parse(o, argc, argv, err);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void nothing_given_means_the_defaults(void **state)
{
    (void)state;
    struct options o;
    struct err err;
    assert_int_equal(parse(&o, &err, (const char *const[]){NULL}), 0);
    assert_int_equal(o.action, ACTION_RUN);
    assert_int_equal(o.ram_size, MIB(128));
    assert_int_equal(o.serial.kind, OUTPUT_STDIO);
    assert_false(o.serial_given || o.debug_exit || o.no_reboot || o.verify || o.stats);
    assert_int_equal(o.debug_exit_iobase, 0x501);
    assert_int_equal(o.debug_exit_iosize, 2);
    assert_int_equal(o.log_low, 0);
    assert_int_equal(o.log_high, UINT32_MAX);
}

static void sizes_have_qemu_suffixes(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t size; /* 0: refused */
    } cases[] = {
        {"2", MIB(2)},
        {"2M", MIB(2)},
        {"2m", MIB(2)},
        {"2048k", MIB(2)},
        {"2097152B", MIB(2)},
        {"2097153b", MIB(2) + 4096},
        {"1G", GIB(1)},
        {"1.5G", MIB(1536)},
        {"size=64", MIB(64)},
        {"3584", MIB(3584)},
        {"3.5G", MIB(3584)},
        {"0x40", MIB(64)},
        {"2.", MIB(2)},
        {"2.000001M", MIB(2) + 4096},
        {"1.999M", 0},
        {"0", 0},
        {"1T", 0},
        {"3585M", 0},
        {"", 0},
        {"M", 0},
        {".5G", 0},
        {"2 M", 0},
        {" 2", 0},
        {"-2", 0},
        {"+2", 0},
        {"2MB", 0},
        {"0x", 0},
        {"18446744073709551616", 0},
        {"17592186044416G", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct options o;
        struct err err;
        int ret = parse(&o, &err, WORDS("-m", cases[i].text));
        if (cases[i].size) {
            if (ret != 0 || o.ram_size != cases[i].size)
                fail_msg("-m %s gives %llu", cases[i].text, (unsigned long long)o.ram_size);
        } else if (ret == 0 || !strstr(err.text, "-m: ")) {
            fail_msg("-m %s is taken", cases[i].text);
        }
    }
}

static void address_filters_have_qemu_forms(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool good;
        uint32_t low, high;
    } cases[] = {
        {"0x1000..0x1fff", true, 0x1000, 0x1FFF},
        {"0x1000+0x200", true, 0x1000, 0x11FF},
        {"0x11ff-0x200", true, 0x1000, 0x11FF},
        {"0..0xffffffff", true, 0, 0xFFFFFFFF},
        {"0+0x100000000", true, 0, 0xFFFFFFFF},
        {"0x10-0x11", true, 0, 0x10},
        {"0x10-0x12", false, 0, 0},
        {"0x1000", false, 0, 0},
        {"0x1000..", false, 0, 0},
        {"0x1000.0x2000", false, 0, 0},
        {"0x1000+0", false, 0, 0},
        {"0xffffffff+2", false, 0, 0},
        {"0x2000..0x1000", false, 0, 0},
        {"1..2,3..4", false, 0, 0},
        {"", false, 0, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct options o;
        struct err err;
        int ret = parse(&o, &err, WORDS("-dfilter", cases[i].text));
        if ((ret == 0) != cases[i].good)
            fail_msg("-dfilter %s: %d", cases[i].text, ret);
        if (cases[i].good) {
            assert_int_equal(o.log_low, cases[i].low);
            assert_int_equal(o.log_high, cases[i].high);
        }
    }
}

static void options_take_one_dash_or_two(void **state)
{
    (void)state;
    struct options o;
    struct err err;
    assert_int_equal(parse(&o, &err, WORDS("--kernel", "k", "-append", "a", "--no-reboot")), 0);
    assert_string_equal(o.kernel, "k");
    assert_string_equal(o.append, "a");
    assert_true(o.no_reboot);
    assert_int_equal(parse(&o, &err, WORDS("-stats", "--d", "port,irq", "-D", "f")), 0);
    assert_true(o.stats);
    assert_int_equal(o.log_mask, LOG_PORT | LOG_IRQ);
    assert_true(parse(&o, &err, WORDS("---stats")) < 0);
    assert_non_null(strstr(err.text, "---stats"));
}

static void devices_have_their_properties(void **state)
{
    (void)state;
    struct options o;
    struct err err;
    assert_int_equal(
        parse(&o, &err, WORDS("-kernel", "k", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04")),
        0);
    assert_true(o.debug_exit);
    assert_int_equal(o.debug_exit_iobase, 0xF4);
    assert_int_equal(o.debug_exit_iosize, 4);
    static const char *const bad[] = {"isa-debug-exit,",
                                      "isa-debug-exit,iobase",
                                      "isa-debug-exit,iobase=",
                                      "isa-debug-exit,iobase=1,,",
                                      "isa-debug-exit,iosize=0",
                                      "isa-debug-exitx",
                                      ""};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (parse(&o, &err, WORDS("-kernel", "k", "-device", bad[i])) == 0)
            fail_msg("-device %s is taken", bad[i]);
    }
}

static void count_quit(void *opaque)
{
    ++*(int *)opaque;
}

static void the_filter_takes_out_ctrl_a_sequences_also_across_reads(void **state)
{
    (void)state;
    int quits = 0;
    struct terminal t = {.fd = -1, .quit = count_quit, .opaque = &quits};
    uint8_t bytes[] = "a\x01\x01"
                      "b\x01zc";
    assert_int_equal(terminal_filter(&t, bytes, 7), 4);
    assert_memory_equal(bytes,
                        "a\x01"
                        "bc",
                        4);
    uint8_t first[] = "d\x01", second[] = "xe";
    assert_int_equal(terminal_filter(&t, first, 2), 1);
    assert_int_equal(quits, 0);
    assert_int_equal(terminal_filter(&t, second, 2), 1);
    assert_int_equal(second[0], 'e');
    assert_int_equal(quits, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given_means_the_defaults),
        cmocka_unit_test(sizes_have_qemu_suffixes),
        cmocka_unit_test(address_filters_have_qemu_forms),
        cmocka_unit_test(options_take_one_dash_or_two),
        cmocka_unit_test(devices_have_their_properties),
        cmocka_unit_test(the_filter_takes_out_ctrl_a_sequences_also_across_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
