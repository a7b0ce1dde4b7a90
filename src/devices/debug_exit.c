/*
 * As QEMU's isa-debug-exit: any write to any of its ports counts; reads give zero.
 */
#include "devices/debug_exit.h"

#include <errno.h>

static uint32_t exit_read(void *opaque, uint16_t port, unsigned size)
{
    (void)opaque;
    (void)port;
    (void)size;
    return 0;
}

static void exit_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct debug_exit *d = opaque;

    (void)port;
    (void)size;
    d->request(d->opaque, (int)(value << 1 | 1));
}

enum { ALL_SIZES = BUS_BYTE | BUS_WORD | BUS_DWORD };

static const struct bus_ports ports1[] = {{0, 1, BUS_BYTE, exit_read, exit_write}};
static const struct bus_ports ports2[] = {{0, 2, ALL_SIZES, exit_read, exit_write}};
static const struct bus_ports ports4[] = {{0, 4, ALL_SIZES, exit_read, exit_write}};

int debug_exit_init(struct debug_exit *d, struct bus *bus, uint16_t iobase, uint16_t iosize,
                    void (*request)(void *opaque, int status), void *opaque, struct err *err)
{
    const struct bus_ports *ports = iosize == 1 ? ports1 : iosize == 2 ? ports2 : ports4;

    if (iosize != 1 && iosize != 2 && iosize != 4)
        return err_set(err, EINVAL, "isa-debug-exit: iosize must be 1, 2 or 4, not %u", iosize);
    *d = (struct debug_exit){request, opaque};
    return bus_add_ports(bus, "isa-debug-exit", iobase, ports, 1, d, err);
}
