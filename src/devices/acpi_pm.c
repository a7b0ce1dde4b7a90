/*
 * ACPI 6.3, 4.8.3. The timer has 24 bits; TMR_STS is set whenever bit 23 changes, which is found
 * out when somebody looks, and by a clock timer while TMR_EN is set. SCI is a level: SCI_EN and any
 * enabled status.
 *
 * There is no firmware behind the SMI port: it switches SCI_EN itself, as a SMI handler would.
 */
#include "devices/acpi_pm.h"

#include <string.h>

enum {
    TMR_STS = 0x0001,
    STATUS_VALID = 0x8731, /* TMR, BM, GBL, PWRBTN, SLPBTN, RTC, WAK */
    ENABLE_VALID = 0x0721,
    SCI_EN = 0x0001,
    SLP_TYP_SHIFT = 10,
    SLP_EN = 0x2000,
    CONTROL_STORED = 0x1C03, /* SCI_EN, BM_RLD, SLP_TYP */
    COUNTER_MASK = 0xFFFFFF,
    HALF_TICKS = 1 << 23,
};

static uint64_t halves(uint64_t ns)
{
    return clock_ticks(ns, ACPI_PM_TIMER_HZ) / HALF_TICKS;
}

/* Brings TMR_STS up to now, SCI to its level, and sets the timer. */
static void update(struct acpi_pm *a)
{
    uint64_t now = clock_now(a->clock);
    uint64_t deadline = CLOCK_NEVER;

    if (halves(now) != halves(a->seen))
        a->status |= TMR_STS;
    a->seen = now;
    wire_set(&a->sci, (a->control & SCI_EN) && (a->status & a->enable));
    if ((a->enable & TMR_STS) && !(a->status & TMR_STS))
        deadline = clock_tick_time((halves(now) + 1) * HALF_TICKS, ACPI_PM_TIMER_HZ);
    clock_timer_set(a->clock, &a->timer, deadline);
}

static void expire(void *opaque, uint64_t now)
{
    (void)now;
    update(opaque);
}

static uint32_t word_read(const struct acpi_pm *a, unsigned offset)
{
    switch (offset) {
    case ACPI_PM_EVENT:
        return a->status;
    case ACPI_PM_EVENT + 2:
        return a->enable;
    case ACPI_PM_CONTROL:
        return a->control;
    default:
        return 0;
    }
}

/* Registers are words; narrower and wider accesses take bytes of them. */
static uint32_t pm_read(void *opaque, uint16_t port, unsigned size)
{
    struct acpi_pm *a = opaque;
    uint32_t low;

    update(a);
    if (port >= ACPI_PM_TIMER) {
        uint32_t count =
            (uint32_t)clock_ticks(clock_now(a->clock), ACPI_PM_TIMER_HZ) & COUNTER_MASK;
        return count >> (8 * (port & 3));
    }
    low = word_read(a, port & ~1u);
    if (size == 4 && !(port & 3))
        return low | word_read(a, port + 2u) << 16;
    return low >> (8 * (port & 1));
}

static void control_write(struct acpi_pm *a, uint16_t value)
{
    a->control = (uint16_t)((value & CONTROL_STORED & ~SCI_EN) | (a->control & SCI_EN));
    if ((value & SLP_EN) && (value >> SLP_TYP_SHIFT & 7) == ACPI_PM_S5)
        wire_set(&a->power_off, true);
}

static void word_write(struct acpi_pm *a, unsigned offset, uint16_t value, uint16_t mask)
{
    switch (offset) {
    case ACPI_PM_EVENT:
        a->status &= (uint16_t) ~(value & mask & STATUS_VALID);
        break;
    case ACPI_PM_EVENT + 2:
        a->enable = (uint16_t)((a->enable & ~mask) | (value & mask & ENABLE_VALID));
        break;
    case ACPI_PM_CONTROL:
        control_write(a, (uint16_t)((a->control & ~mask) | (value & mask)));
        break;
    }
}

static void pm_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct acpi_pm *a = opaque;
    unsigned shift = 8 * (port & 1);

    update(a);
    word_write(a, port & ~1u, (uint16_t)(value << shift), (uint16_t)(width_mask(size) << shift));
    if (size == 4 && !(port & 3))
        word_write(a, port + 2u, (uint16_t)(value >> 16), 0xFFFF);
    update(a);
}

static uint32_t smi_read(void *opaque, uint16_t port, unsigned size)
{
    const struct acpi_pm *a = opaque;

    (void)size;
    return a->smi[port];
}

static void smi_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct acpi_pm *a = opaque;

    (void)size;
    a->smi[port] = (uint8_t)value;
    if (port == 0 && value == ACPI_PM_ENABLE)
        a->control |= SCI_EN;
    else if (port == 0 && value == ACPI_PM_DISABLE)
        a->control &= (uint16_t)~SCI_EN;
    update(a);
}

static const struct bus_ports pm_ports[] = {
    {0, ACPI_PM_SIZE, BUS_BYTE | BUS_WORD | BUS_DWORD, pm_read, pm_write},
};

static const struct bus_ports smi_ports[] = {
    {0, 2, BUS_BYTE, smi_read, smi_write},
};

void acpi_pm_reset(struct acpi_pm *a)
{
    a->status = a->enable = a->control = 0;
    a->smi[0] = a->smi[1] = 0;
    a->seen = clock_now(a->clock);
    update(a);
}

int acpi_pm_init(struct acpi_pm *a, struct bus *bus, uint16_t base, struct clock *clock,
                 struct wire sci, struct wire power_off, struct err *err)
{
    int rc;

    memset(a, 0, sizeof(*a));
    a->clock = clock;
    a->sci = sci;
    a->power_off = power_off;
    clock_timer_init(&a->timer, expire, a);
    acpi_pm_reset(a);
    rc = bus_add_ports(bus, "ACPI", base, pm_ports, ARRAY_LEN(pm_ports), a, err);
    if (rc)
        return rc;
    return bus_add_ports(bus, "SMI port", ACPI_PM_SMI_PORT, smi_ports, ARRAY_LEN(smi_ports), a,
                         err);
}
