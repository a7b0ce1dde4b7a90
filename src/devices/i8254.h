/*
 * The 8254 interval timer at 40h, and port 61h, which drives and shows its third channel.
 */
#ifndef DEVICES_I8254_H
#define DEVICES_I8254_H

#include "base/err.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/wire.h"

#define I8254_HZ 1193182u

struct i8254_channel {
    uint8_t mode;   /* 0-5 */
    uint8_t access; /* RW bits of the control word: 1 low byte, 2 high byte, 3 both */
    bool bcd;
    bool gate;
    bool low_written; /* access 3: the low byte has come, the high one has not */
    bool high_next;   /* access 3: the next read gives the high byte */
    uint8_t low_byte;

    bool loaded; /* the counting element holds a count and counts (unless the gate stops it) */
    bool null_count;
    bool count_written; /* since the control word */
    bool reload; /* modes 2 and 3: `count` takes over from `current` at the end of the (half) period
                  */
    uint32_t count;   /* count register, 1 to 10000h (BCD: to 10000) */
    uint32_t current; /* what the counting element was loaded with */
    int64_t start;    /* tick at which it was; while stopped: ticks counted so far */
    bool stopped;     /* modes 0 and 4 with the gate low */
    bool half;        /* mode 3: the low half; `start` is that of the half */

    bool count_latched, status_latched;
    uint16_t latched_count;
    uint8_t latched_status;
};

struct i8254 {
    struct i8254_channel channel[3];
    struct clock *clock; /* borrowed */
    struct clock_timer timer;
    struct wire irq0;
    uint64_t seen;   /* tick up to which channel 0 has been shown on irq0 */
    uint8_t port61;  /* bits 0-3 as written */
    uint64_t owed;   /* edges of irq0 that came too late and are still to be made up for */
    int64_t owed_at; /* tick of the next one */
    uint64_t ticks_late;
};

int i8254_init(struct i8254 *p, struct bus *bus, struct clock *clock, struct wire irq0,
               struct err *err);
void i8254_reset(struct i8254 *p);

#endif
