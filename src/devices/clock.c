/*
 * The list of timers of a clock, and the arithmetic between nanoseconds and ticks. The products
 * take 128 bits, so that nothing wraps or drifts however long a machine runs.
 */
#include "devices/clock.h"

#include <stddef.h>

typedef unsigned __int128 u128;

void clock_init(struct clock *c, const struct clock_ops *ops, uint64_t utc)
{
    *c = (struct clock){.ops = ops, .utc = utc, .armed = CLOCK_NEVER};
}

uint64_t clock_now(struct clock *c)
{
    return c->ops->now(c);
}

void clock_timer_init(struct clock_timer *t, void (*expire)(void *opaque, uint64_t now),
                      void *opaque)
{
    *t = (struct clock_timer){.expire = expire, .opaque = opaque};
}

static void rearm(struct clock *c)
{
    uint64_t deadline = c->first ? c->first->deadline : CLOCK_NEVER;

    if (deadline == c->armed)
        return;
    c->armed = deadline;
    c->ops->arm(c, deadline);
}

static void unlink_timer(struct clock *c, struct clock_timer *t)
{
    struct clock_timer **p = &c->first;

    if (!t->on)
        return;
    while (*p != t)
        p = &(*p)->next;
    *p = t->next;
    t->on = false;
}

void clock_timer_set(struct clock *c, struct clock_timer *t, uint64_t deadline)
{
    if (t->on && t->deadline == deadline)
        return;
    unlink_timer(c, t);
    t->deadline = deadline;
    if (deadline != CLOCK_NEVER) {
        struct clock_timer **p = &c->first;
        while (*p && (*p)->deadline <= deadline)
            p = &(*p)->next;
        t->next = *p;
        t->on = true;
        *p = t;
    }
    rearm(c);
}

void clock_run(struct clock *c)
{
    uint64_t now = clock_now(c);

    if (!c->first || c->first->deadline > now)
        return;
    /* Only what was due on entry: an expired timer that sets itself into the past waits for the
       next run, for which the deadline is armed again. */
    while (c->first && c->first->deadline <= now) {
        struct clock_timer *t = c->first;
        unlink_timer(c, t);
        t->expire(t->opaque, now);
    }
    c->armed = CLOCK_NEVER;
    rearm(c);
}

uint64_t clock_ticks(uint64_t ns, uint32_t hz)
{
    return (uint64_t)((u128)ns * hz / CLOCK_SECOND);
}

uint64_t clock_tick_time(uint64_t ticks, uint32_t hz)
{
    return (uint64_t)(((u128)ticks * CLOCK_SECOND + hz - 1) / hz);
}
