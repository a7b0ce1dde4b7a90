/*
 * The address register takes doublewords only (PCI 2.2, 3.2.2.3.2); narrower accesses to it are
 * ordinary I/O, of which CF9h is the reset control register's. No device answers: data reads as
 * ones.
 */
#include "devices/pci_config.h"

#include <string.h>

static uint32_t address_read(void *opaque, uint16_t port, unsigned size)
{
    const struct pci_config *p = opaque;

    (void)port;
    (void)size;
    return p->address;
}

static void address_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct pci_config *p = opaque;

    (void)port;
    (void)size;
    p->address = value & 0x80FFFFFCu;
}

static uint32_t data_read(void *opaque, uint16_t port, unsigned size)
{
    (void)opaque;
    (void)port;
    (void)size;
    return ~0u;
}

static void data_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    (void)opaque;
    (void)port;
    (void)size;
    (void)value;
}

static const struct bus_ports ports[] = {
    {0, 1, BUS_DWORD, address_read, address_write},
    {4, 4, BUS_BYTE | BUS_WORD | BUS_DWORD, data_read, data_write},
};

void pci_config_reset(struct pci_config *p)
{
    p->address = 0;
}

int pci_config_init(struct pci_config *p, struct bus *bus, struct err *err)
{
    memset(p, 0, sizeof(*p));
    return bus_add_ports(bus, "PCI configuration", 0xCF8, ports, ARRAY_LEN(ports), p, err);
}
