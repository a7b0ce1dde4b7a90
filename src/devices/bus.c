/*
 * Dispatch from port or physical address to a device. Ports are found through a table of one byte a
 * port; memory ranges are few and are searched.
 */
#include "devices/bus.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"

void bus_init(struct bus *b)
{
    memset(b, 0, sizeof(*b));
}

int bus_add_ports(struct bus *b, const char *name, uint16_t base, const struct bus_ports *ports,
                  unsigned count, void *opaque, struct err *err)
{
    if (count > BUS_MAX_PORTS - b->port_count)
        return err_set(err, ENOSPC, "no room on the I/O bus for %s", name);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned k = 0; k < ports[i].count; k++) {
            unsigned port = (uint32_t)base + ports[i].first + k;
            if (port > 0xFFFF)
                return err_set(err, EINVAL, "%s does not fit at I/O port 0x%x", name, base);
            if (b->port_slot[port])
                return err_set(err, EBUSY, "%s at I/O port 0x%x collides with %s", name, port,
                               b->ports[b->port_slot[port] - 1].name);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        b->ports[b->port_count++] = (struct bus_port_entry){&ports[i], name, opaque, base};
        for (unsigned k = 0; k < ports[i].count; k++)
            b->port_slot[base + ports[i].first + k] = (uint8_t)b->port_count;
    }
    return 0;
}

int bus_add_mmio(struct bus *b, const char *name, uint32_t base, uint32_t size,
                 const struct bus_mmio *mmio, void *opaque, struct err *err)
{
    if (b->mmio_count == BUS_MAX_MMIO)
        return err_set(err, ENOSPC, "no room on the memory bus for %s", name);
    for (unsigned i = 0; i < b->mmio_count; i++) {
        const struct bus_mmio_entry *e = &b->mmio[i];
        if ((uint64_t)base < (uint64_t)e->base + e->size &&
            (uint64_t)e->base < (uint64_t)base + size)
            return err_set(err, EBUSY, "%s at address 0x%x collides with %s", name, base, e->name);
    }
    b->mmio[b->mmio_count++] = (struct bus_mmio_entry){mmio, name, opaque, base, size};
    return 0;
}

/* The entry that takes the whole access, or NULL. */
static const struct bus_port_entry *port_entry(const struct bus *b, uint16_t port, unsigned size)
{
    unsigned slot = b->port_slot[port];
    const struct bus_port_entry *e;

    if (!slot)
        return NULL;
    e = &b->ports[slot - 1];
    if (!(e->ports->sizes & size))
        return NULL;
    if (e->ports->count > 1 && port + size > (uint32_t)e->base + e->ports->first + e->ports->count)
        return NULL;
    return e;
}

static const char *port_name(const struct bus *b, uint16_t port)
{
    return b->port_slot[port] ? b->ports[b->port_slot[port] - 1].name : "unassigned";
}

static uint32_t read_port(struct bus *b, uint16_t port, unsigned size)
{
    const struct bus_port_entry *e = port_entry(b, port, size);

    if (e && e->ports->read)
        return e->ports->read(e->opaque, (uint16_t)(port - e->base), size) &
               (uint32_t)width_mask(size);
    if (e || size == 1) {
        b->counters.unassigned_ports++;
        return (uint32_t)width_mask(size);
    }
    unsigned half = size / 2;
    uint32_t low = read_port(b, port, half);
    return low | read_port(b, (uint16_t)(port + half), half) << (8 * half);
}

static void write_port(struct bus *b, uint16_t port, unsigned size, uint32_t value)
{
    const struct bus_port_entry *e = port_entry(b, port, size);

    if (e && e->ports->write) {
        e->ports->write(e->opaque, (uint16_t)(port - e->base), size,
                        value & (uint32_t)width_mask(size));
    } else if (e || size == 1) {
        b->counters.unassigned_ports++;
    } else {
        unsigned half = size / 2;
        write_port(b, port, half, value);
        write_port(b, (uint16_t)(port + half), half, value >> (8 * half));
    }
}

uint32_t bus_read_port(struct bus *b, uint16_t port, unsigned size)
{
    uint32_t value = read_port(b, port, size);

    b->counters.port_accesses++;
    if (log_on(LOG_PORT))
        log_write("port: in  %04x.%u = %0*x (%s)\n", port, size, (int)size * 2, value,
                  port_name(b, port));
    return value;
}

void bus_write_port(struct bus *b, uint16_t port, unsigned size, uint32_t value)
{
    b->counters.port_accesses++;
    if (log_on(LOG_PORT))
        log_write("port: out %04x.%u = %0*x (%s)\n", port, size, (int)size * 2,
                  value & (uint32_t)width_mask(size), port_name(b, port));
    write_port(b, port, size, value);
}

static const struct bus_mmio_entry *mmio_entry(const struct bus *b, uint32_t gpa, unsigned size)
{
    for (unsigned i = 0; i < b->mmio_count; i++) {
        const struct bus_mmio_entry *e = &b->mmio[i];
        if (gpa >= e->base && gpa - e->base < e->size && e->size - (gpa - e->base) >= size)
            return e;
    }
    return NULL;
}

uint32_t bus_read_memory(struct bus *b, uint32_t gpa, unsigned size)
{
    const struct bus_mmio_entry *e = mmio_entry(b, gpa, size);

    b->counters.mmio_accesses++;
    if (e)
        return e->mmio->read(e->opaque, gpa - e->base, size) & (uint32_t)width_mask(size);
    b->counters.unassigned_memory++;
    if (log_on(LOG_PORT))
        log_write("port: read of unassigned memory %08x.%u\n", gpa, size);
    return (uint32_t)width_mask(size);
}

void bus_write_memory(struct bus *b, uint32_t gpa, unsigned size, uint32_t value)
{
    const struct bus_mmio_entry *e = mmio_entry(b, gpa, size);

    b->counters.mmio_accesses++;
    if (e) {
        e->mmio->write(e->opaque, gpa - e->base, size, value & (uint32_t)width_mask(size));
        return;
    }
    b->counters.unassigned_memory++;
    if (log_on(LOG_PORT))
        log_write("port: write of unassigned memory %08x.%u = %0*x\n", gpa, size, (int)size * 2,
                  value & (uint32_t)width_mask(size));
}
