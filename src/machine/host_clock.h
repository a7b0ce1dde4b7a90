/*
 * The machine's clock: the only reader of host time. One POSIX timer, for the earliest deadline,
 * sends the engine's kick to the vCPU thread; clock_run is then called from the engine's poll.
 */
#ifndef MACHINE_HOST_CLOCK_H
#define MACHINE_HOST_CLOCK_H

#include <time.h>

#include "base/err.h"
#include "devices/clock.h"

struct host_clock {
    struct clock clock;
    uint64_t origin; /* CLOCK_MONOTONIC at now() == 0 */
    timer_t timer;
    bool attached;
};

void host_clock_init(struct host_clock *h);
/* From now on the calling thread is kicked when a timer is due; undone by host_clock_detach. */
int host_clock_attach(struct host_clock *h, struct err *err);
void host_clock_detach(struct host_clock *h);

#endif
