/*
 * The small ports of a PC board: system control port A (92h: A20 and fast reset), the power-on self
 * test's port 80h, and the reset control register (CF9h).
 */
#ifndef DEVICES_SYSCTL_H
#define DEVICES_SYSCTL_H

#include "base/err.h"
#include "devices/bus.h"
#include "devices/wire.h"

struct sysctl {
    uint8_t port92, post, reset_control;
    struct wire a20, reset;
};

int sysctl_init(struct sysctl *s, struct bus *bus, struct wire a20, struct wire reset,
                struct err *err);
void sysctl_reset(struct sysctl *s);

#endif
