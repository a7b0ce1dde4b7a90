/*
 * MC146818 (Motorola data sheet), with the PC's century byte.
 *
 * While the clock runs, the time is (seconds, second_start) and the ten time bytes are computed
 * when they are needed; while it stands (SET = 1, or the divider held in reset) the bytes are the
 * time. sync() brings the bytes and the three interrupt flags of register C up to now, so the flags
 * are right when they are read even if no interrupt is enabled; a timer is set only for enabled
 * ones. Periods missed meanwhile are one interrupt, as on the chip, where the flag is set already.
 *
 * UIP shows for the 244 us before an update; the update itself takes no time. The weekday runs on
 * from what the guest wrote.
 */
#include "devices/mc146818.h"

#include <string.h>

enum {
    SECONDS = 0,
    SECONDS_ALARM = 1,
    MINUTES = 2,
    MINUTES_ALARM = 3,
    HOURS = 4,
    HOURS_ALARM = 5,
    WEEKDAY = 6,
    DAY = 7,
    MONTH = 8,
    YEAR = 9,
    REG_A = 10,
    REG_B = 11,
    REG_C = 12,
    REG_D = 13,
    A_UIP = 0x80,
    A_DIVIDER = 0x70,
    A_DIVIDER_RUN = 0x20,
    A_DIVIDER_RESET = 0x60,
    A_RATE = 0x0F,
    B_SET = 0x80,
    B_PIE = 0x40,
    B_AIE = 0x20,
    B_UIE = 0x10,
    B_SQWE = 0x08,
    B_BINARY = 0x04,
    B_24H = 0x02,
    C_IRQF = 0x80,
    C_PF = 0x40,
    C_AF = 0x20,
    C_UF = 0x10,
    D_VRT = 0x80,
    HOUR_PM = 0x80,
    ANY = 0xC0, /* alarm bytes from here on match everything */
    UIP_NS = 244000,
    OSCILLATOR_HZ = 32768,
    DAY_SECONDS = 86400,
};

#define SECOND ((int64_t)CLOCK_SECOND)

/* ---- the calendar ---- */

/* Days from 1970-01-01 to a date of the Gregorian calendar; years are counted from March. */
static int64_t days_of_date(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    unsigned yoe = (unsigned)(y - era * 400);
    unsigned doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + (int64_t)(yoe * 365 + yoe / 4 - yoe / 100 + doy) - 719468;
}

static void date_of_days(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    unsigned doe = (unsigned)(z - era * 146097);
    unsigned yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    unsigned mp = (5 * doy + 2) / 153;

    *day = doy - (153 * mp + 2) / 5 + 1;
    *month = mp < 10 ? mp + 3 : mp - 9;
    *year = (int64_t)yoe + era * 400 + (*month <= 2);
}

/* 1 Sunday to 7 Saturday; 1970-01-01 was a Thursday. */
static unsigned weekday(int64_t days)
{
    return (unsigned)(((days + 4) % 7 + 7) % 7) + 1;
}

/* ---- number formats ---- */

static uint8_t encode(const struct mc146818 *r, unsigned value)
{
    return (uint8_t)(r->ram[REG_B] & B_BINARY ? value : value / 10 % 10 << 4 | value % 10);
}

static unsigned decode_byte(const struct mc146818 *r, uint8_t byte)
{
    return r->ram[REG_B] & B_BINARY ? byte : (byte >> 4) * 10u + (byte & 15);
}

static uint8_t encode_hour(const struct mc146818 *r, unsigned hour)
{
    if (r->ram[REG_B] & B_24H)
        return encode(r, hour);
    return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(const struct mc146818 *r, uint8_t byte)
{
    if (r->ram[REG_B] & B_24H)
        return decode_byte(r, byte);
    return decode_byte(r, byte & 0x7F) % 12 + (byte & HOUR_PM ? 12 : 0);
}

/* The time bytes from r->seconds. */
static void store_time(struct mc146818 *r)
{
    int64_t days = r->seconds / DAY_SECONDS;
    int64_t second = r->seconds % DAY_SECONDS;
    int64_t year;
    unsigned month, day;

    if (second < 0) {
        second += DAY_SECONDS;
        days--;
    }
    date_of_days(days, &year, &month, &day);
    r->ram[SECONDS] = encode(r, (unsigned)(second % 60));
    r->ram[MINUTES] = encode(r, (unsigned)(second / 60 % 60));
    r->ram[HOURS] = encode_hour(r, (unsigned)(second / 3600));
    r->ram[WEEKDAY] = encode(r, (weekday(days) - 1 + r->weekday_offset) % 7 + 1);
    r->ram[DAY] = encode(r, day);
    r->ram[MONTH] = encode(r, month);
    r->ram[YEAR] = encode(r, (unsigned)(year % 100));
    r->ram[CMOS_CENTURY] = (uint8_t)(year / 1000 % 10 << 4 | year / 100 % 10);
}

/* r->seconds from the time bytes, whatever the guest put there. */
static void load_time(struct mc146818 *r)
{
    unsigned century = (r->ram[CMOS_CENTURY] >> 4) * 10u + (r->ram[CMOS_CENTURY] & 15);
    unsigned month = decode_byte(r, r->ram[MONTH]);
    unsigned day = decode_byte(r, r->ram[DAY]);
    int64_t days = days_of_date(century * 100 + decode_byte(r, r->ram[YEAR]) % 100,
                                month < 1    ? 1
                                : month > 12 ? 12
                                             : month,
                                day ? day : 1);

    r->seconds = days * DAY_SECONDS + decode_hour(r, r->ram[HOURS]) * 3600 +
                 decode_byte(r, r->ram[MINUTES]) * 60 + decode_byte(r, r->ram[SECONDS]);
    r->weekday_offset = (uint8_t)((decode_byte(r, r->ram[WEEKDAY]) + 7 - weekday(days)) % 7);
}

/* ---- interrupts ---- */

/* Rate of the periodic interrupt in Hz, 0 for none. */
static uint32_t periodic_hz(const struct mc146818 *r)
{
    unsigned rate = r->ram[REG_A] & A_RATE;

    if (!rate || (r->ram[REG_A] & A_DIVIDER) != A_DIVIDER_RUN)
        return 0;
    return OSCILLATOR_HZ >> ((rate < 3 ? rate + 7 : rate) - 1);
}

/* Seconds from the present one to the next that the alarm matches: 1 to 86400, or 0 for never. */
static unsigned alarm_distance(const struct mc146818 *r)
{
    uint8_t hour = r->ram[HOURS_ALARM], minute = r->ram[MINUTES_ALARM],
            second = r->ram[SECONDS_ALARM];
    unsigned now = (unsigned)((r->seconds % DAY_SECONDS + DAY_SECONDS) % DAY_SECONDS);

    for (unsigned day = 0; day < 2; day++) {
        for (unsigned h = 0; h < 24; h++) {
            if (hour < ANY && decode_hour(r, hour) != h)
                continue;
            for (unsigned m = 0; m < 60; m++) {
                if (minute < ANY && decode_byte(r, minute) != m)
                    continue;
                if (day * DAY_SECONDS + h * 3600 + m * 60 + 59 <= now)
                    continue;
                for (unsigned s = 0; s < 60; s++) {
                    unsigned at = day * DAY_SECONDS + h * 3600 + m * 60 + s;
                    if ((second >= ANY || decode_byte(r, second) == s) && at > now)
                        return at - now;
                }
            }
        }
    }
    return 0;
}

static void update_irq(struct mc146818 *r)
{
    bool irq = r->ram[REG_C] & r->ram[REG_B] & (C_PF | C_AF | C_UF);

    if (irq)
        r->ram[REG_C] |= C_IRQF;
    else
        r->ram[REG_C] &= (uint8_t)~C_IRQF;
    wire_set(&r->irq8, irq);
}

/* How far into the second of r->seconds `now` is. */
static int64_t in_second(const struct mc146818 *r, uint64_t now)
{
    return (int64_t)now - r->second_start;
}

/* Brings time bytes and flags up to `now`. */
static void sync(struct mc146818 *r, uint64_t now)
{
    uint32_t hz = periodic_hz(r);

    if (hz && clock_ticks(now, hz) != clock_ticks(r->periodic_seen, hz))
        r->ram[REG_C] |= C_PF;
    r->periodic_seen = now;
    if (r->running && in_second(r, now) >= SECOND) {
        int64_t passed = in_second(r, now) / SECOND;
        unsigned distance = alarm_distance(r);

        r->ram[REG_C] |= C_UF;
        if (distance && (int64_t)distance <= passed)
            r->ram[REG_C] |= C_AF;
        r->seconds += passed;
        r->second_start += passed * SECOND;
        store_time(r);
    }
}

/* Sets the timer for the next enabled interrupt whose flag is not up already. */
static void schedule(struct mc146818 *r)
{
    uint64_t deadline = CLOCK_NEVER;
    uint8_t wanted = r->ram[REG_B] & ~r->ram[REG_C];
    uint32_t hz = periodic_hz(r);

    if ((wanted & B_PIE) && hz)
        deadline = clock_tick_time(clock_ticks(r->periodic_seen, hz) + 1, hz);
    if (r->running) {
        int64_t in = wanted & B_UIE ? 1 : wanted & B_AIE ? alarm_distance(r) : 0;
        uint64_t at = (uint64_t)(r->second_start + in * SECOND);
        if (in && at < deadline)
            deadline = at;
    }
    clock_timer_set(r->clock, &r->timer, deadline);
}

static void expire(void *opaque, uint64_t now)
{
    struct mc146818 *r = opaque;

    sync(r, now);
    update_irq(r);
    schedule(r);
}

/* Starts or stops the seconds after a change of registers A or B; `divider_started`: half a second
 * to go. */
static void run_or_stop(struct mc146818 *r, uint64_t now, bool divider_started)
{
    bool run = !(r->ram[REG_B] & B_SET) && (r->ram[REG_A] & A_DIVIDER) == A_DIVIDER_RUN;

    if (divider_started) {
        r->second_start = (int64_t)now - SECOND / 2;
    } else if (run && !r->running) {
        /* SET does not touch the divider: its phase stays. */
        r->second_start += in_second(r, now) / SECOND * SECOND;
    }
    if (run && !r->running)
        load_time(r);
    r->running = run;
}

static bool updating(const struct mc146818 *r, uint64_t now)
{
    return r->running && SECOND - in_second(r, now) <= UIP_NS;
}

static bool is_time(unsigned index)
{
    return index == SECONDS || index == MINUTES || index == HOURS ||
           (index >= WEEKDAY && index <= YEAR) || index == CMOS_CENTURY;
}

static uint32_t rtc_read(void *opaque, uint16_t port, unsigned size)
{
    struct mc146818 *r = opaque;
    uint64_t now = clock_now(r->clock);
    uint8_t value;

    (void)size;
    if (port == 0)
        return 0xFF;
    sync(r, now);
    value = r->ram[r->index];
    if (r->index == REG_A) {
        value = (uint8_t)(value | (updating(r, now) ? A_UIP : 0));
    } else if (r->index == REG_C) {
        update_irq(r);
        value = r->ram[REG_C];
        r->ram[REG_C] = 0;
    }
    update_irq(r);
    schedule(r);
    return value;
}

static void write_register(struct mc146818 *r, unsigned index, uint8_t value, uint64_t now)
{
    uint8_t old = r->ram[index];

    switch (index) {
    case REG_A:
        r->ram[REG_A] = value & (uint8_t)~A_UIP;
        run_or_stop(r, now,
                    (old & A_DIVIDER_RESET) == A_DIVIDER_RESET &&
                        (value & A_DIVIDER) == A_DIVIDER_RUN);
        break;
    case REG_B:
        if (value & B_SET)
            value &= (uint8_t)~B_UIE;
        r->ram[REG_B] = value;
        run_or_stop(r, now, false);
        break;
    case REG_C:
    case REG_D:
        break;
    default:
        r->ram[index] = value;
        if (is_time(index) && r->running)
            load_time(r);
        break;
    }
}

static void rtc_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct mc146818 *r = opaque;
    uint64_t now = clock_now(r->clock);

    (void)size;
    if (port == 0) {
        r->index = value & 0x7F; /* bit 7 masks NMI, of which this machine has no source */
        return;
    }
    sync(r, now);
    write_register(r, r->index, (uint8_t)value, now);
    update_irq(r);
    schedule(r);
}

static const struct bus_ports ports[] = {
    {0, 2, BUS_BYTE, rtc_read, rtc_write},
};

void mc146818_set(struct mc146818 *r, unsigned index, uint8_t value)
{
    unsigned sum = 0;

    if (index <= REG_D || index >= sizeof(r->ram))
        return;
    r->ram[index] = value;
    for (unsigned i = 0x10; i < CMOS_SUM_HIGH; i++)
        sum += r->ram[i];
    r->ram[CMOS_SUM_HIGH] = (uint8_t)(sum >> 8);
    r->ram[CMOS_SUM_LOW] = (uint8_t)sum;
}

static void set_word(struct mc146818 *r, unsigned index, uint64_t value)
{
    if (value > 0xFFFF)
        value = 0xFFFF;
    mc146818_set(r, index, (uint8_t)value);
    mc146818_set(r, index + 1, (uint8_t)(value >> 8));
}

void mc146818_set_memory(struct mc146818 *r, uint64_t ram_size)
{
    uint64_t above_1m = ram_size > MIB(1) ? ram_size - MIB(1) : 0;
    uint64_t above_16m = ram_size > MIB(16) ? ram_size - MIB(16) : 0;

    set_word(r, CMOS_BASE_LOW, 640);
    set_word(r, CMOS_EXT_LOW, above_1m / 1024);
    set_word(r, CMOS_EXT2_LOW, above_1m / 1024);
    set_word(r, CMOS_EXT16M_LOW, above_16m / 65536);
}

void mc146818_reset(struct mc146818 *r)
{
    uint64_t now = clock_now(r->clock);

    sync(r, now);
    r->ram[REG_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    r->ram[REG_C] = 0;
    r->index = 0;
    update_irq(r);
    schedule(r);
}

int mc146818_init(struct mc146818 *r, struct bus *bus, struct clock *clock, struct wire irq8,
                  struct err *err)
{
    uint64_t now = clock_now(clock);
    uint64_t utc = clock->utc + now;

    memset(r, 0, sizeof(*r));
    r->clock = clock;
    r->irq8 = irq8;
    clock_timer_init(&r->timer, expire, r);
    r->ram[REG_A] = A_DIVIDER_RUN | 6;
    r->ram[REG_B] = B_24H;
    r->ram[REG_D] = D_VRT;
    r->seconds = (int64_t)(utc / CLOCK_SECOND);
    r->second_start = (int64_t)now - (int64_t)(utc % CLOCK_SECOND);
    r->periodic_seen = now;
    r->running = true;
    store_time(r);
    return bus_add_ports(bus, "real-time clock", 0x70, ports, ARRAY_LEN(ports), r, err);
}
