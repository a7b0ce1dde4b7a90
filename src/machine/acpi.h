/*
 * The ACPI tables of the board, as firmware would leave them below 1 MiB.
 */
#ifndef MACHINE_ACPI_H
#define MACHINE_ACPI_H

#include "base/base.h"

/* Guest-physical place of the tables; the root pointer comes first. */
enum { ACPI_TABLES = 0xF0000, ACPI_TABLES_SIZE = 0x1000 };

struct acpi_config {
    uint16_t pm_base; /* of the block of devices/acpi_pm.h */
    uint8_t sci_irq;
    uint16_t reset_port; /* and what to write there */
    uint8_t reset_value;
};

/* Fills `area`, which goes to ACPI_TABLES; returns the bytes used. */
uint32_t acpi_build(uint8_t area[ACPI_TABLES_SIZE], const struct acpi_config *config);

#endif
