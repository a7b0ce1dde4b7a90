/*
 * The MC146818 real-time clock with its CMOS RAM at ports 70h and 71h, keeping the host's time in
 * UTC.
 */
#ifndef DEVICES_MC146818_H
#define DEVICES_MC146818_H

#include "base/err.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/wire.h"

/* CMOS bytes beyond the clock's own, by PC convention. */
enum mc146818_cmos {
    CMOS_SHUTDOWN = 0x0F,
    CMOS_EQUIPMENT = 0x14,
    CMOS_BASE_LOW = 0x15, /* KiB below 640K */
    CMOS_BASE_HIGH = 0x16,
    CMOS_EXT_LOW = 0x17, /* KiB above 1M, at most 65535 */
    CMOS_EXT_HIGH = 0x18,
    CMOS_SUM_HIGH = 0x2E, /* sum of 10h to 2Dh */
    CMOS_SUM_LOW = 0x2F,
    CMOS_EXT2_LOW = 0x30, /* as EXT */
    CMOS_EXT2_HIGH = 0x31,
    CMOS_CENTURY = 0x32,    /* BCD */
    CMOS_EXT16M_LOW = 0x34, /* 64-KiB units above 16M */
    CMOS_EXT16M_HIGH = 0x35,
};

struct mc146818 {
    uint8_t ram[128]; /* registers A to C and the time: as last brought up to date */
    uint8_t index;
    struct clock *clock; /* borrowed */
    struct clock_timer timer;
    struct wire irq8;

    bool running;           /* the seconds advance: oscillator on, SET = 0 */
    int64_t second_start;   /* clock time at which the present second began */
    int64_t seconds;        /* since 1970, of the guest's clock, at second_start */
    uint8_t weekday_offset; /* of what the guest wrote, from the true weekday */
    uint64_t periodic_seen; /* clock time up to which the periodic flag is right */
};

/* The clock is set to the host's time (clock.utc). */
int mc146818_init(struct mc146818 *r, struct bus *bus, struct clock *clock, struct wire irq8,
                  struct err *err);
/* RESET: interrupts off; time and RAM stay. */
void mc146818_reset(struct mc146818 *r);
/* Writes a CMOS byte beyond the clock's own (0Eh and up) and keeps the checksum. */
void mc146818_set(struct mc146818 *r, unsigned index, uint8_t value);
/* Fills in the memory size. */
void mc146818_set_memory(struct mc146818 *r, uint64_t ram_size);

#endif
