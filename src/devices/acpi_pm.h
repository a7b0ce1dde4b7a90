/*
 * ACPI fixed hardware: PM1 event and control registers, the power management timer, and the port
 * through which the system is asked to enter and leave ACPI mode.
 */
#ifndef DEVICES_ACPI_PM_H
#define DEVICES_ACPI_PM_H

#include "base/err.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/wire.h"

/* Relative to the block's base. */
enum { ACPI_PM_EVENT = 0, ACPI_PM_CONTROL = 4, ACPI_PM_TIMER = 8, ACPI_PM_SIZE = 12 };

enum {
    ACPI_PM_SMI_PORT = 0xB2,
    ACPI_PM_ENABLE = 0xF1,  /* written to the SMI port: ACPI mode on */
    ACPI_PM_DISABLE = 0xF0, /* and off */
    ACPI_PM_S5 = 5,         /* SLP_TYP of soft off */
    ACPI_PM_TIMER_HZ = 3579545,
};

struct acpi_pm {
    uint16_t status, enable, control;
    uint8_t smi[2];
    uint64_t seen;       /* clock time up to which the timer's status bit is right */
    struct clock *clock; /* borrowed */
    struct clock_timer timer;
    struct wire sci;
    struct wire power_off; /* true: S5 was entered */
};

int acpi_pm_init(struct acpi_pm *a, struct bus *bus, uint16_t base, struct clock *clock,
                 struct wire sci, struct wire power_off, struct err *err);
void acpi_pm_reset(struct acpi_pm *a);

#endif
