/*
 * One port. Reading it gives E9h, by which a guest finds out that it is there.
 */
#include "devices/debugcon.h"

enum { PRESENT = 0xE9 };

static uint32_t debugcon_read(void *opaque, uint16_t port, unsigned size)
{
    (void)opaque;
    (void)port;
    (void)size;
    return PRESENT;
}

static void debugcon_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct debugcon *d = opaque;

    (void)port;
    (void)size;
    if (d->send)
        d->send(d->opaque, (uint8_t)value);
}

static const struct bus_ports ports[] = {{0, 1, BUS_BYTE, debugcon_read, debugcon_write}};

int debugcon_init(struct debugcon *d, struct bus *bus, uint16_t iobase,
                  void (*send)(void *opaque, uint8_t byte), void *opaque, struct err *err)
{
    *d = (struct debugcon){send, opaque};
    return bus_add_ports(bus, "debugcon", iobase, ports, ARRAY_LEN(ports), d, err);
}
