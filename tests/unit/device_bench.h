/*
 * A bench for one device: a bus, a clock that is stepped by hand, and wires that record their
 * level, how often they rose, and nothing else.
 */
#ifndef TESTS_DEVICE_BENCH_H
#define TESTS_DEVICE_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/base.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/wire.h"

enum { BENCH_LINES = 4 };

struct bench {
    struct bus bus;
    struct clock clock;
    uint64_t now;
    struct err err;
    bool level[BENCH_LINES];
    unsigned rises[BENCH_LINES];
};

static uint64_t bench_now(struct clock *c)
{
    return CONTAINER_OF(c, struct bench, clock)->now;
}

static void bench_arm(struct clock *c, uint64_t deadline)
{
    (void)c;
    (void)deadline;
}

static const struct clock_ops bench_clock_ops = {bench_now, bench_arm};

static inline struct bench *bench_create(uint64_t utc)
{
    struct bench *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    bus_init(&b->bus);
    clock_init(&b->clock, &bench_clock_ops, utc);
    return b;
}

static inline void bench_set(void *opaque, int line, bool level)
{
    struct bench *b = opaque;

    if (level && !b->level[line])
        b->rises[line]++;
    b->level[line] = level;
}

static inline struct wire bench_wire(struct bench *b, int line)
{
    return (struct wire){bench_set, b, line};
}

static inline uint8_t in(struct bench *b, uint16_t port)
{
    return (uint8_t)bus_read_port(&b->bus, port, 1);
}

static inline void out(struct bench *b, uint16_t port, uint32_t value)
{
    bus_write_port(&b->bus, port, 1, value);
}

/* Lets `ns` pass, running every timer at its own time. */
static inline void pass(struct bench *b, uint64_t ns)
{
    uint64_t end = b->now + ns;

    while (b->clock.first && b->clock.first->deadline <= end) {
        if (b->clock.first->deadline > b->now)
            b->now = b->clock.first->deadline;
        clock_run(&b->clock);
    }
    b->now = end;
}

#endif
