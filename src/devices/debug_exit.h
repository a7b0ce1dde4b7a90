/*
 * The debug exit (QEMU's isa-debug-exit): writing v ends the machine with status (v << 1) | 1.
 */
#ifndef DEVICES_DEBUG_EXIT_H
#define DEVICES_DEBUG_EXIT_H

#include "base/err.h"
#include "devices/bus.h"

struct debug_exit {
    void (*request)(void *opaque, int status);
    void *opaque; /* borrowed */
};

/* `iosize` is 1, 2 or 4. */
int debug_exit_init(struct debug_exit *d, struct bus *bus, uint16_t iobase, uint16_t iosize,
                    void (*request)(void *opaque, int status), void *opaque, struct err *err);

#endif
