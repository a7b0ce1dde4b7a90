/*
 * RSDP, RSDT, FADT (revision 3), FACS and DSDT (ACPI 6.3, chapters 5 and 20). There is no MADT:
 * interrupts go through the 8259 pair.
 *
 * The FADT says that there is no VGA and no keyboard controller: the one there has a keyboard on
 * which nobody types, and an operating system that knows ACPI need not look for it. Power button,
 * sleep button and wake-up alarm are absent. The DSDT holds what has to be in AML, \_S5 and the
 * ports of the board's own that nobody else may be given. It is written by a few functions that
 * append, one for each production of the grammar in use.
 */
#include "machine/acpi.h"

#include <string.h>

#include "devices/acpi_pm.h"

/* ---- appending ---- */

struct writer {
    uint8_t *area;
    uint32_t at; /* the next byte; stays below ACPI_TABLES_SIZE */
};

static void put(struct writer *w, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        if (w->at < ACPI_TABLES_SIZE)
            w->area[w->at++] = (uint8_t)(value >> (8 * i));
    }
}

static void put_text(struct writer *w, const char *text, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        put(w, (uint8_t)text[i], 1);
}

static void put_zeros(struct writer *w, unsigned bytes)
{
    while (bytes--)
        put(w, 0, 1);
}

static void align(struct writer *w, uint32_t to)
{
    while (w->at % to)
        put(w, 0, 1);
}

static void set_checksum(uint8_t *bytes, uint32_t size, uint32_t where)
{
    uint8_t sum = 0;

    bytes[where] = 0;
    for (uint32_t i = 0; i < size; i++)
        sum = (uint8_t)(sum + bytes[i]);
    bytes[where] = (uint8_t)-sum;
}

/* ---- tables ---- */

enum { HEADER_LENGTH = 4, HEADER_CHECKSUM = 9 };

/* Opens a table with its header (5.2.6); returns its offset. */
static uint32_t open_table(struct writer *w, const char *signature, uint8_t revision)
{
    uint32_t start;

    align(w, 16);
    start = w->at;
    put_text(w, signature, 4);
    put(w, 0, 4); /* length */
    put(w, revision, 1);
    put(w, 0, 1); /* checksum */
    put_text(w, "NOVT  ", 6);
    put_text(w, "NOVTPC  ", 8);
    put(w, 1, 4);
    put_text(w, "NOVT", 4);
    put(w, 1, 4);
    return start;
}

static void close_table(struct writer *w, uint32_t start)
{
    struct writer length = {w->area, start + HEADER_LENGTH};

    put(&length, w->at - start, 4);
    set_checksum(w->area + start, w->at - start, HEADER_CHECKSUM);
}

/* ---- AML (chapter 20) ---- */

enum {
    AML_NAME = 0x08,
    AML_BYTE = 0x0A,
    AML_DWORD = 0x0C,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_EXT = 0x5B,
    AML_EXT_DEVICE = 0x82,
    RESOURCE_IRQ = 0x22,
    RESOURCE_IO = 0x47,
    RESOURCE_END = 0x79,
};

/* A PkgLength of two bytes, filled in by close_package: it counts itself. */
static uint32_t open_package(struct writer *w)
{
    put(w, 0, 2);
    return w->at - 2;
}

static void close_package(struct writer *w, uint32_t start)
{
    uint32_t length = w->at - start;

    w->area[start] = (uint8_t)(0x40 | (length & 0xF));
    w->area[start + 1] = (uint8_t)(length >> 4);
}

static void name(struct writer *w, const char *segment)
{
    put(w, AML_NAME, 1);
    put_text(w, segment, 4);
}

/* "PNP0C02" as a compressed EISA identifier (19.3.4), which reads big-endian. */
static uint32_t eisa_id(const char *id)
{
    uint32_t value = 0;
    uint32_t swapped = 0;

    for (unsigned i = 0; i < 3; i++)
        value = value << 5 | ((uint32_t)id[i] - 0x40);
    for (unsigned i = 3; i < 7; i++)
        value = value << 4 | (uint32_t)(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10);
    for (unsigned i = 0; i < 4; i++)
        swapped = swapped << 8 | (value >> (8 * i) & 0xFF);
    return swapped;
}

struct io_range {
    uint16_t first;
    uint8_t count;
};

/* Device (name) { Name (_HID, id) Name (_CRS, ResourceTemplate () { IO ... IRQ }) }; irq 0: none */
static void device(struct writer *w, const char *segment, const char *id, const struct io_range *io,
                   unsigned io_count, unsigned irq)
{
    uint32_t outer, buffer;

    put(w, AML_EXT, 1);
    put(w, AML_EXT_DEVICE, 1);
    outer = open_package(w);
    put_text(w, segment, 4);
    name(w, "_HID");
    put(w, AML_DWORD, 1);
    put(w, eisa_id(id), 4);
    name(w, "_CRS");
    put(w, AML_BUFFER, 1);
    buffer = open_package(w);
    put(w, AML_BYTE, 1);
    put(w, io_count * 8 + (irq ? 3 : 0) + 2, 1);
    for (unsigned i = 0; i < io_count; i++) {
        put(w, RESOURCE_IO, 1);
        put(w, 1, 1); /* 16 address bits are decoded */
        put(w, io[i].first, 2);
        put(w, io[i].first, 2);
        put(w, 1, 1); /* alignment */
        put(w, io[i].count, 1);
    }
    if (irq) {
        put(w, RESOURCE_IRQ, 1);
        put(w, BIT(irq), 2);
    }
    put(w, RESOURCE_END, 1);
    put(w, 0, 1); /* no checksum */
    close_package(w, buffer);
    close_package(w, outer);
}

static uint32_t build_dsdt(struct writer *w, const struct acpi_config *config)
{
    const struct io_range board[] = {
        {0x61, 1},  {0x80, 1},
        {0x92, 1},  {ACPI_PM_SMI_PORT, 2},
        {0x4D0, 2}, {config->pm_base, ACPI_PM_SIZE},
    };
    const struct io_range rtc[] = {{0x70, 2}};
    uint32_t start = open_table(w, "DSDT", 1);
    uint32_t package;

    /* Name (_S5, Package (4) { S5, S5, 0, 0 }) */
    name(w, "_S5_");
    put(w, AML_PACKAGE, 1);
    package = open_package(w);
    put(w, 4, 1);
    put(w, AML_BYTE | ACPI_PM_S5 << 8, 2);
    put(w, AML_BYTE | ACPI_PM_S5 << 8, 2);
    put(w, 0, 2);
    close_package(w, package);

    put(w, AML_SCOPE, 1);
    package = open_package(w);
    put_text(w, "_SB_", 4);
    device(w, "MBRD", "PNP0C02", board, ARRAY_LEN(board), 0);
    device(w, "RTC_", "PNP0B00", rtc, ARRAY_LEN(rtc), 8);
    close_package(w, package);
    close_table(w, start);
    return start;
}

static uint32_t build_facs(struct writer *w)
{
    uint32_t start;

    align(w, 64);
    start = w->at;
    put_text(w, "FACS", 4);
    put(w, 64, 4);
    put_zeros(w, 24);
    put(w, 1, 1); /* version */
    put_zeros(w, 31);
    return start;
}

enum fadt {
    BOOT_LEGACY_DEVICES = 1 << 0,
    BOOT_NO_VGA = 1 << 2,
    FLAG_WBINVD = 1 << 0,
    FLAG_PROC_C1 = 1 << 2,
    FLAG_NO_POWER_BUTTON = 1 << 4,
    FLAG_NO_SLEEP_BUTTON = 1 << 5,
    FLAG_NO_RTC_WAKE = 1 << 6,
    FLAG_RESET_REG = 1 << 10,
    NO_C2 = 101,
    NO_C3 = 1001,
    CMOS_CENTURY_INDEX = 0x32,
};

/* 5.2.9, in the order of table 5-33. */
static uint32_t build_fadt(struct writer *w, const struct acpi_config *config, uint32_t facs,
                           uint32_t dsdt)
{
    uint32_t start = open_table(w, "FACP", 3);

    put(w, ACPI_TABLES + facs, 4);
    put(w, ACPI_TABLES + dsdt, 4);
    put(w, 0, 1);
    put(w, 1, 1); /* preferred profile: desktop */
    put(w, config->sci_irq, 2);
    put(w, ACPI_PM_SMI_PORT, 4);
    put(w, ACPI_PM_ENABLE, 1);
    put(w, ACPI_PM_DISABLE, 1);
    put_zeros(w, 2); /* S4BIOS_REQ, PSTATE_CNT */
    put(w, config->pm_base + ACPI_PM_EVENT, 4);
    put(w, 0, 4);
    put(w, config->pm_base + ACPI_PM_CONTROL, 4);
    put_zeros(w, 8); /* PM1b_CNT_BLK, PM2_CNT_BLK */
    put(w, config->pm_base + ACPI_PM_TIMER, 4);
    put_zeros(w, 8); /* GPE blocks */
    put(w, 4, 1);    /* PM1_EVT_LEN */
    put(w, 2, 1);    /* PM1_CNT_LEN */
    put(w, 0, 1);
    put(w, 4, 1); /* PM_TMR_LEN */
    put_zeros(w, 4);
    put(w, NO_C2, 2);
    put(w, NO_C3, 2);
    put_zeros(w, 8); /* flush sizes, duty cycle, day and month alarm */
    put(w, CMOS_CENTURY_INDEX, 1);
    put(w, BOOT_LEGACY_DEVICES | BOOT_NO_VGA, 2);
    put(w, 0, 1);
    put(w,
        FLAG_WBINVD | FLAG_PROC_C1 | FLAG_NO_POWER_BUTTON | FLAG_NO_SLEEP_BUTTON |
            FLAG_NO_RTC_WAKE | FLAG_RESET_REG,
        4);
    /* RESET_REG: I/O space, 8 bits, at offset 0, byte access */
    put(w, 1 | 8 << 8 | 1 << 24, 4);
    put(w, config->reset_port, 8);
    put(w, config->reset_value, 1);
    put_zeros(w, 3);
    put_zeros(w, 8 + 8 + 8 * 12); /* 64-bit addresses: the 32-bit ones above hold */
    close_table(w, start);
    return start;
}

uint32_t acpi_build(uint8_t area[ACPI_TABLES_SIZE], const struct acpi_config *config)
{
    enum { RSDP_SIZE = 20, RSDP_CHECKSUM = 8 };
    struct writer w = {area, RSDP_SIZE};
    struct writer rsdp = {area, 0};
    uint32_t facs, dsdt, fadt, rsdt;

    memset(area, 0, ACPI_TABLES_SIZE);
    facs = build_facs(&w);
    dsdt = build_dsdt(&w, config);
    fadt = build_fadt(&w, config, facs, dsdt);
    rsdt = open_table(&w, "RSDT", 1);
    put(&w, ACPI_TABLES + fadt, 4);
    close_table(&w, rsdt);

    put_text(&rsdp, "RSD PTR ", 8);
    put(&rsdp, 0, 1); /* checksum */
    put_text(&rsdp, "NOVT  ", 6);
    put(&rsdp, 0, 1); /* revision: ACPI 1.0 */
    put(&rsdp, ACPI_TABLES + rsdt, 4);
    set_checksum(area, RSDP_SIZE, RSDP_CHECKSUM);
    return w.at;
}
