/*
 * Time is CLOCK_MONOTONIC from the machine's making on; CLOCK_REALTIME is read once, for the
 * real-time clock. Deadlines are absolute, so that a late signal delays one expiry and nothing
 * after it.
 */
#define _GNU_SOURCE
#include "machine/host_clock.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "dbt/dbt.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static uint64_t read_clock(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * CLOCK_SECOND + (uint64_t)t.tv_nsec;
}

static uint64_t now(struct clock *c)
{
    return read_clock(CLOCK_MONOTONIC) - CONTAINER_OF(c, struct host_clock, clock)->origin;
}

static void arm(struct clock *c, uint64_t deadline)
{
    struct host_clock *h = CONTAINER_OF(c, struct host_clock, clock);
    struct itimerspec when = {{0, 0}, {0, 0}};

    if (!h->attached)
        return;
    if (deadline != CLOCK_NEVER) {
        uint64_t at = h->origin + deadline;
        when.it_value.tv_sec = (time_t)(at / CLOCK_SECOND);
        when.it_value.tv_nsec = (long)(at % CLOCK_SECOND);
    }
    timer_settime(h->timer, TIMER_ABSTIME, &when, NULL);
}

static const struct clock_ops ops = {now, arm};

void host_clock_init(struct host_clock *h)
{
    memset(h, 0, sizeof(*h));
    h->origin = read_clock(CLOCK_MONOTONIC);
    clock_init(&h->clock, &ops, read_clock(CLOCK_REALTIME));
}

int host_clock_attach(struct host_clock *h, struct err *err)
{
    struct sigevent event;

    memset(&event, 0, sizeof(event));
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = DBT_KICK_SIGNAL;
    event.sigev_notify_thread_id = gettid();
    if (timer_create(CLOCK_MONOTONIC, &event, &h->timer) < 0)
        return err_set(err, errno, "cannot make a host timer: %s", strerror(errno));
    h->attached = true;
    arm(&h->clock, h->clock.armed);
    return 0;
}

void host_clock_detach(struct host_clock *h)
{
    if (h->attached)
        timer_delete(h->timer);
    h->attached = false;
}
