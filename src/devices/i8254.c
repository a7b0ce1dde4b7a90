/*
 * 8254 (Intel order number 231164). No counter counts: what a channel shows is computed from the
 * tick, of 1.193182 MHz host time, at which its counting element was loaded, so that nothing drifts
 * and a guest that is held up loses no time.
 *
 * advance() brings a channel to a tick: modes 2 and 3 go on by whole (half) periods, and take over
 * a new count where one ends, the others stay where they were loaded. After it, d = tick - start
 * says all:
 *
 *   mode 0, 1      OUT low until d = N; counts down through 0 to FFFF (9999)
 *   mode 2         OUT low for the last tick of a period of N
 *   mode 3         halves of (N+1)/2 high and N/2 low; counts down by two
 *   mode 4, 5      OUT low for the tick d = N
 *
 * Channel 0 drives IRQ 0. A host timer is set for the next rising edge (in mode 3 and 0 also the
 * falling one). When the host held the guest up for several periods, the first edge comes at once
 * and those owed follow half a period apart, between the regular ones, so that a guest that counts
 * ticks keeps the time. In modes 2, 4 and 5 the low tick, of 838 ns, is shown as a pulse at its
 * end.
 */
#include "devices/i8254.h"

#include <string.h>

enum {
    ACCESS_LATCH = 0,
    ACCESS_LOW = 1,
    ACCESS_HIGH = 2,
    ACCESS_BOTH = 3,
    READ_BACK = 3,
    READ_BACK_NO_COUNT = 0x20,
    READ_BACK_NO_STATUS = 0x10,
    STATUS_OUT = 0x80,
    STATUS_NULL = 0x40,
    PORT61_GATE2 = 0x01,
    PORT61_WRITABLE = 0x0F,
    PORT61_REFRESH = 0x10,
    PORT61_OUT2 = 0x20,
    OWED_MAX = 1000,
    MIN_TICKS = 24, /* 20 us: interrupts closer than this are merged, so that the guest gets on */
    REFRESH_NS = 15085, /* DRAM refresh request: 18 ticks */
};

static int64_t tick_now(struct i8254 *p)
{
    return (int64_t)clock_ticks(clock_now(p->clock), I8254_HZ);
}

/* Ticks of the present half of mode 3. */
static uint32_t half_ticks(const struct i8254_channel *c)
{
    uint32_t n = c->half ? c->current / 2 : (c->current + 1) / 2;
    return n ? n : 1;
}

static bool periodic(const struct i8254_channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

static void take_count(struct i8254_channel *c)
{
    c->current = c->count;
    c->reload = false;
    c->null_count = false;
}

static void advance(struct i8254_channel *c, int64_t tick)
{
    if (!c->loaded || !periodic(c) || !c->gate)
        return;
    if (c->mode == 2) {
        if (c->reload && tick - c->start >= c->current) {
            c->start += c->current;
            take_count(c);
        }
        c->start += (tick - c->start) / c->current * c->current;
        return;
    }
    if (c->reload && tick - c->start >= half_ticks(c)) {
        c->start += half_ticks(c);
        c->half = !c->half;
        take_count(c);
    }
    c->start += (tick - c->start) / c->current * c->current;
    if (tick - c->start >= half_ticks(c)) {
        c->start += half_ticks(c);
        c->half = !c->half;
    }
}

static int64_t counted(const struct i8254_channel *c, int64_t tick)
{
    return c->stopped ? c->start : tick - c->start;
}

/* OUT at `tick`, to which the channel has been advanced. */
static bool output(const struct i8254_channel *c, int64_t tick)
{
    int64_t d = counted(c, tick);

    if (!c->loaded)
        return c->mode != 0;
    switch (c->mode) {
    case 0:
    case 1:
        return d >= c->current;
    case 2:
        return !c->gate || d < (int64_t)c->current - 1;
    case 3:
        return !c->gate || !c->half;
    default:
        return d != c->current;
    }
}

/* The counting element at `tick`. */
static uint32_t element(const struct i8254_channel *c, int64_t tick)
{
    uint32_t wrap = c->bcd ? 10000 : 0x10000;
    uint32_t value;
    int64_t d;

    if (!c->loaded)
        return c->current % wrap;
    d = counted(c, tick);
    if (periodic(c) && !c->gate)
        d = 0;
    if (c->mode == 3)
        value = (c->current & ~1u) - 2 * (uint32_t)d;
    else if (c->mode == 2)
        value = c->current - (uint32_t)d;
    else
        value = c->current + wrap - (uint32_t)(d % wrap);
    return value % wrap;
}

/* The same in the guest's number system. */
static uint16_t counter(const struct i8254_channel *c, int64_t tick)
{
    uint32_t value = element(c, tick);

    if (!c->bcd)
        return (uint16_t)value;
    return (uint16_t)(value / 1000 % 10 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 |
                      value % 10);
}

/* The first tick after `tick` at which something happens on OUT, or -1. */
static int64_t next_edge(const struct i8254_channel *c, int64_t tick)
{
    if (!c->loaded || c->stopped)
        return -1;
    switch (c->mode) {
    case 2:
        return c->gate ? c->start + c->current : -1;
    case 3:
        return c->gate ? c->start + half_ticks(c) : -1;
    case 0:
    case 1:
        return c->start + c->current > tick ? c->start + c->current : -1;
    default:
        return c->start + c->current + 1 > tick ? c->start + c->current + 1 : -1;
    }
}

/* Rising edges of OUT in (from, to]. Called before the channel is advanced to `to`. */
static uint64_t rising_edges(const struct i8254_channel *c, int64_t from, int64_t to)
{
    int64_t first;

    if (!c->loaded || c->stopped || (periodic(c) && !c->gate))
        return 0;
    if (c->mode == 2)
        return (uint64_t)((to - c->start) / c->current - (from - c->start) / c->current);
    if (c->mode == 3) {
        first = c->start + (c->half ? c->current / 2 : c->current);
        return to < first ? 0 : 1 + (uint64_t)((to - first) / c->current);
    }
    first = c->start + c->current + (c->mode >= 4);
    return first > from && first <= to;
}

/* Keeps account of edges that came too late; true if it is time for one of those owed. */
static bool owe(struct i8254 *p, int64_t tick, uint64_t edges)
{
    bool due = p->owed && tick >= p->owed_at && !edges;

    if (edges > 1) {
        p->ticks_late += edges - 1;
        p->owed += edges - 1;
        if (p->owed > OWED_MAX)
            p->owed = OWED_MAX;
    }
    if (due)
        p->owed--;
    if (edges || due)
        p->owed_at = tick + p->channel[0].current / 2;
    return due;
}

/* Shows on irq0 what channel 0 did until `tick`, and sets the timer for what it does next. */
static void show(struct i8254 *p, int64_t tick)
{
    struct i8254_channel *c = &p->channel[0];
    uint64_t edges = rising_edges(c, (int64_t)p->seen, tick);
    int64_t next;

    advance(c, tick);
    p->seen = (uint64_t)tick;
    if (periodic(c) && owe(p, tick, edges))
        edges = 1;
    if (edges) {
        wire_set(&p->irq0, false);
        wire_set(&p->irq0, true);
    }
    if (c->mode < 2 || c->mode == 3 || !c->loaded)
        wire_set(&p->irq0, output(c, tick));
    next = next_edge(c, tick);
    if (p->owed && p->owed_at < next)
        next = p->owed_at;
    if (next >= 0 && next < tick + MIN_TICKS && periodic(c))
        next = tick + MIN_TICKS;
    clock_timer_set(p->clock, &p->timer,
                    next < 0 ? CLOCK_NEVER : clock_tick_time((uint64_t)next, I8254_HZ));
}

static void expire(void *opaque, uint64_t now)
{
    struct i8254 *p = opaque;

    show(p, (int64_t)clock_ticks(now, I8254_HZ));
}

/* Brings channel `n` to now, before anything of it is read or changed. */
static int64_t sync_channel(struct i8254 *p, unsigned n)
{
    int64_t tick = tick_now(p);

    if (n == 0)
        show(p, tick);
    else
        advance(&p->channel[n], tick);
    return tick;
}

/* Loads the counting element: modes 0, 2, 3 and 4 by a write, any but 0 and 4 by a trigger. */
static void load(struct i8254_channel *c, int64_t tick)
{
    take_count(c);
    c->loaded = true;
    c->half = false;
    c->stopped = !c->gate && (c->mode == 0 || c->mode == 4);
    c->start = c->stopped ? 0 : tick;
}

/* Stops the counting element where it is. */
static void unload(struct i8254_channel *c, int64_t tick)
{
    c->current = element(c, tick);
    c->loaded = c->stopped = c->reload = c->half = false;
    c->start = 0;
}

static void write_count(struct i8254_channel *c, uint32_t value, int64_t tick)
{
    if (c->bcd)
        value =
            (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 + (value & 15);
    c->count = value ? value : c->bcd ? 10000 : 0x10000;
    /* Digits above 9, and the count of 1 that modes 2 and 3 forbid, must not upset the arithmetic.
     */
    if (c->bcd && c->count > 10000)
        c->count = 10000;
    c->null_count = true;
    c->count_written = true;
    if (c->mode == 1 || c->mode == 5)
        return;
    if (periodic(c) && c->loaded)
        c->reload = true;
    else if (!periodic(c) || c->gate)
        load(c, tick);
}

static void write_control(struct i8254 *p, uint32_t value)
{
    unsigned n = value >> 6;
    struct i8254_channel *c = &p->channel[n % 3];
    int64_t tick;

    if (n == READ_BACK)
        return;
    tick = sync_channel(p, n);
    if ((value >> 4 & 3) == ACCESS_LATCH) {
        if (!c->count_latched) {
            c->latched_count = counter(c, tick);
            c->count_latched = true;
        }
        return;
    }
    unload(c, tick);
    c->access = value >> 4 & 3;
    c->mode = value >> 1 & 7;
    if (c->mode > 5)
        c->mode -= 4;
    c->bcd = value & 1;
    c->null_count = true;
    c->count_written = c->low_written = c->high_next = false;
    c->count_latched = c->status_latched = false;
    if (n == 0) {
        p->owed = 0;
        show(p, tick);
    }
}

static void read_back(struct i8254 *p, uint32_t value)
{
    for (unsigned n = 0; n < 3; n++) {
        struct i8254_channel *c = &p->channel[n];
        int64_t tick;

        if (!(value & 2u << n))
            continue;
        tick = sync_channel(p, n);
        if (!(value & READ_BACK_NO_COUNT) && !c->count_latched) {
            c->latched_count = counter(c, tick);
            c->count_latched = true;
        }
        if (!(value & READ_BACK_NO_STATUS) && !c->status_latched) {
            c->latched_status =
                (uint8_t)((output(c, tick) ? STATUS_OUT : 0) | (c->null_count ? STATUS_NULL : 0) |
                          c->access << 4 | c->mode << 1 | c->bcd);
            c->status_latched = true;
        }
    }
}

static void pit_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct i8254 *p = opaque;
    unsigned n = port & 3;
    struct i8254_channel *c;
    int64_t tick;

    (void)size;
    if (n == 3) {
        if (value >> 6 == READ_BACK)
            read_back(p, value);
        else
            write_control(p, value);
        return;
    }
    c = &p->channel[n];
    tick = sync_channel(p, n);
    switch (c->access) {
    case ACCESS_LOW:
        write_count(c, value, tick);
        break;
    case ACCESS_HIGH:
        write_count(c, value << 8, tick);
        break;
    case ACCESS_BOTH:
        if (c->low_written) {
            write_count(c, value << 8 | c->low_byte, tick);
        } else {
            c->low_byte = (uint8_t)value;
            /* In mode 0 the first byte stops the count and drops OUT. */
            if (c->mode == 0)
                unload(c, tick);
        }
        c->low_written = !c->low_written;
        break;
    }
    if (n == 0)
        show(p, tick);
}

static uint32_t pit_read(void *opaque, uint16_t port, unsigned size)
{
    struct i8254 *p = opaque;
    unsigned n = port & 3;
    struct i8254_channel *c;
    uint16_t value;
    bool high;

    (void)size;
    if (n == 3)
        return 0xFF;
    c = &p->channel[n];
    if (c->status_latched) {
        c->status_latched = false;
        return c->latched_status;
    }
    value = c->count_latched ? c->latched_count : counter(c, sync_channel(p, n));
    high = c->access == ACCESS_HIGH || (c->access == ACCESS_BOTH && c->high_next);
    if (c->access == ACCESS_BOTH)
        c->high_next = !c->high_next;
    if (c->access != ACCESS_BOTH || high)
        c->count_latched = false;
    return high ? value >> 8 : value & 0xFF;
}

static void set_gate(struct i8254 *p, unsigned n, bool gate)
{
    struct i8254_channel *c = &p->channel[n];
    int64_t tick;

    if (c->gate == gate)
        return;
    tick = sync_channel(p, n);
    c->gate = gate;
    switch (c->mode) {
    case 0:
    case 4:
        if (c->loaded && c->stopped == gate) {
            c->start = tick - c->start; /* from a tick to ticks counted, and back */
            c->stopped = !gate;
        }
        break;
    default:
        if (gate && c->count_written)
            load(c, tick);
        break;
    }
}

static uint32_t port61_read(void *opaque, uint16_t port, unsigned size)
{
    struct i8254 *p = opaque;
    int64_t tick = sync_channel(p, 2);
    bool refresh = clock_now(p->clock) / REFRESH_NS & 1;

    (void)port;
    (void)size;
    return p->port61 | (refresh ? PORT61_REFRESH : 0) |
           (output(&p->channel[2], tick) ? PORT61_OUT2 : 0);
}

static void port61_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct i8254 *p = opaque;

    (void)port;
    (void)size;
    p->port61 = value & PORT61_WRITABLE;
    set_gate(p, 2, value & PORT61_GATE2);
}

static const struct bus_ports ports[] = {
    {0x40, 4, BUS_BYTE, pit_read, pit_write},
    {0x61, 1, BUS_BYTE, port61_read, port61_write},
};

void i8254_reset(struct i8254 *p)
{
    for (unsigned n = 0; n < 3; n++)
        p->channel[n] = (struct i8254_channel){.mode = 3,
                                               .access = ACCESS_BOTH,
                                               .gate = n < 2,
                                               .null_count = true,
                                               .count = 0x10000,
                                               .current = 0x10000};
    p->port61 = 0;
    p->owed = 0;
    p->seen = (uint64_t)tick_now(p);
    clock_timer_set(p->clock, &p->timer, CLOCK_NEVER);
    wire_set(&p->irq0, false);
}

int i8254_init(struct i8254 *p, struct bus *bus, struct clock *clock, struct wire irq0,
               struct err *err)
{
    memset(p, 0, sizeof(*p));
    p->clock = clock;
    p->irq0 = irq0;
    clock_timer_init(&p->timer, expire, p);
    i8254_reset(p);
    return bus_add_ports(bus, "interval timer", 0, ports, ARRAY_LEN(ports), p, err);
}
