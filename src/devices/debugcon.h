/*
 * The debug console (QEMU's -debugcon, after Bochs's port E9h): what is written appears on the
 * host.
 */
#ifndef DEVICES_DEBUGCON_H
#define DEVICES_DEBUGCON_H

#include "base/err.h"
#include "devices/bus.h"

struct debugcon {
    void (*send)(void *opaque, uint8_t byte); /* may be NULL */
    void *opaque;                             /* borrowed */
};

int debugcon_init(struct debugcon *d, struct bus *bus, uint16_t iobase,
                  void (*send)(void *opaque, uint8_t byte), void *opaque, struct err *err);

#endif
