/*
 * Port 92h as on the PS/2, port 80h as a latch that only a person looks at, port CF9h as in the
 * PIIX3 (RCR): a reset happens when RCPU goes from 0 to 1.
 */
#include "devices/sysctl.h"

#include <string.h>

enum {
    PORT_A = 0x92,
    PORT_POST = 0x80,
    PORT_RESET = 0xCF9,
    A_FAST_RESET = 0x01,
    A_A20 = 0x02,
    RCR_RCPU = 0x04,
    RCR_WRITABLE = 0x06,
};

static uint32_t sysctl_read(void *opaque, uint16_t port, unsigned size)
{
    const struct sysctl *s = opaque;

    (void)size;
    return port == PORT_A ? s->port92 : port == PORT_POST ? s->post : s->reset_control;
}

static void sysctl_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct sysctl *s = opaque;
    uint8_t old = s->port92;
    bool reset = false;

    (void)size;
    switch (port) {
    case PORT_A:
        s->port92 = (uint8_t)value;
        wire_set(&s->a20, value & A_A20);
        reset = (value & ~old) & A_FAST_RESET;
        break;
    case PORT_POST:
        s->post = (uint8_t)value;
        break;
    case PORT_RESET:
        reset = (value & ~s->reset_control) & RCR_RCPU;
        s->reset_control = value & RCR_WRITABLE;
        break;
    }
    if (reset)
        wire_set(&s->reset, true);
}

static const struct bus_ports ports[] = {
    {PORT_A, 1, BUS_BYTE, sysctl_read, sysctl_write},
    {PORT_POST, 1, BUS_BYTE, sysctl_read, sysctl_write},
    {PORT_RESET, 1, BUS_BYTE, sysctl_read, sysctl_write},
};

void sysctl_reset(struct sysctl *s)
{
    s->port92 = s->post = s->reset_control = 0;
    wire_set(&s->a20, false);
}

int sysctl_init(struct sysctl *s, struct bus *bus, struct wire a20, struct wire reset,
                struct err *err)
{
    memset(s, 0, sizeof(*s));
    s->a20 = a20;
    s->reset = reset;
    return bus_add_ports(bus, "system control", 0, ports, ARRAY_LEN(ports), s, err);
}
