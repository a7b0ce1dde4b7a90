/*
 * The machine's clock as devices see it: nanoseconds since the machine was made, and timers with
 * deadlines in the same unit. Whoever owns the clock supplies `now` and `arm`: the machine reads
 * host time and arms one host timer; a test steps a variable.
 *
 * Invariants: the list of timers is sorted by deadline; `arm` has been called with the first one's
 * deadline whenever that changed. Timers expire on the thread that calls clock_run, and only there.
 */
#ifndef DEVICES_CLOCK_H
#define DEVICES_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_SECOND 1000000000ull
#define CLOCK_NEVER  UINT64_MAX

struct clock;

struct clock_ops {
    uint64_t (*now)(struct clock *c);
    /* Have clock_run called at `deadline` or soon after; CLOCK_NEVER: no need. */
    void (*arm)(struct clock *c, uint64_t deadline);
};

struct clock_timer {
    /* `now` is not before the deadline that was set. The timer is off when this is called. */
    void (*expire)(void *opaque, uint64_t now);
    void *opaque; /* borrowed */
    uint64_t deadline;
    bool on;
    struct clock_timer *next;
};

struct clock {
    const struct clock_ops *ops; /* borrowed */
    uint64_t utc;                /* nanoseconds since 1970 at now() == 0 */
    struct clock_timer *first;
    uint64_t armed; /* what `arm` was last called with */
};

void clock_init(struct clock *c, const struct clock_ops *ops, uint64_t utc);
uint64_t clock_now(struct clock *c);

void clock_timer_init(struct clock_timer *t, void (*expire)(void *opaque, uint64_t now),
                      void *opaque);
/* Sets or moves the deadline; CLOCK_NEVER turns the timer off. */
void clock_timer_set(struct clock *c, struct clock_timer *t, uint64_t deadline);

/* Runs what is due; called by the clock's owner. */
void clock_run(struct clock *c);

/* How often `hz` has ticked at `ns`, and the first nanosecond at which tick `ticks` is reached. */
uint64_t clock_ticks(uint64_t ns, uint32_t hz);
uint64_t clock_tick_time(uint64_t ticks, uint32_t hz);

#endif
