/*
 * The bus: I/O ports and memory-mapped I/O, from address to device.
 *
 * A device declares its ports as a const array of struct bus_ports and adds it once. An access that
 * a device does not take in its size is split into halves, as an ISA bridge splits a word to byte
 * ports. What nobody claims reads as all ones and swallows writes; a counter and -d port tell.
 */
#ifndef DEVICES_BUS_H
#define DEVICES_BUS_H

#include "base/base.h"
#include "base/err.h"

/* Sizes that a range takes, as a set: the sizes themselves are the bits. */
enum { BUS_BYTE = 1, BUS_WORD = 2, BUS_DWORD = 4 };

struct bus_ports {
    uint16_t first; /* relative to the base given to bus_add_ports */
    uint16_t
        count; /* 1: accesses that start here, however wide; else the whole access lies inside */
    uint8_t sizes; /* set of BUS_BYTE, BUS_WORD, BUS_DWORD */
    /* `port` is relative to the same base. NULL: reads give all ones; writes are swallowed. */
    uint32_t (*read)(void *opaque, uint16_t port, unsigned size);
    void (*write)(void *opaque, uint16_t port, unsigned size, uint32_t value);
};

struct bus_mmio {
    uint32_t (*read)(void *opaque, uint32_t offset, unsigned size);
    void (*write)(void *opaque, uint32_t offset, unsigned size, uint32_t value);
};

enum { BUS_MAX_PORTS = 64, BUS_MAX_MMIO = 16 };

struct bus {
    /* For each port: 1 + index into ports[], or 0. */
    uint8_t port_slot[65536];
    struct bus_port_entry {
        const struct bus_ports *ports; /* borrowed */
        const char *name;              /* borrowed */
        void *opaque;                  /* borrowed */
        uint16_t base;
    } ports[BUS_MAX_PORTS];
    unsigned port_count;

    struct bus_mmio_entry {
        const struct bus_mmio *mmio; /* borrowed */
        const char *name;            /* borrowed */
        void *opaque;                /* borrowed */
        uint32_t base, size;
    } mmio[BUS_MAX_MMIO];
    unsigned mmio_count;

    struct bus_counters {
        uint64_t port_accesses, mmio_accesses, unassigned_ports, unassigned_memory;
    } counters;
};

void bus_init(struct bus *b);

/* Adds `count` ranges, all or none. -EBUSY where another device sits, -ENOSPC when the bus is full.
 */
int bus_add_ports(struct bus *b, const char *name, uint16_t base, const struct bus_ports *ports,
                  unsigned count, void *opaque, struct err *err);
int bus_add_mmio(struct bus *b, const char *name, uint32_t base, uint32_t size,
                 const struct bus_mmio *mmio, void *opaque, struct err *err);

/* Sizes are 1, 2 or 4; ports and addresses wrap. */
uint32_t bus_read_port(struct bus *b, uint16_t port, unsigned size);
void bus_write_port(struct bus *b, uint16_t port, unsigned size, uint32_t value);
uint32_t bus_read_memory(struct bus *b, uint32_t gpa, unsigned size);
void bus_write_memory(struct bus *b, uint32_t gpa, unsigned size, uint32_t value);

#endif
