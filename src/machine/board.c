/*
 * The schematic. Addresses and wires:
 *
 *     IRQ 0  i8254 channel 0       20h A0h 4D0h  i8259 pair
 *     IRQ 1  i8042 keyboard        40h 61h       i8254
 *     IRQ 4  COM1                  60h 64h       i8042
 *     IRQ 8  mc146818              70h           mc146818
 *     IRQ 9  ACPI SCI              80h 92h CF9h  system control
 *     IRQ 12 i8042 second port     B2h 600h      ACPI
 *                                  3F8h          COM1
 *     INTR   i8259 to the vCPU     CF8h CFCh     PCI configuration
 *
 * Reset lines of i8042, port 92h and CF9h, power-off and debug exit become requests: the vCPU is
 * stopped, and the run loop takes them. The A20 line can be driven and read back, but memory does
 * not heed it: it acts as if the line were always up (docs/limits.md).
 */
#include "machine/board.h"

#include <string.h>

#include "base/log.h"
#include "machine/acpi.h"

enum {
    IRQ_TIMER = 0,
    IRQ_KEYBOARD = 1,
    IRQ_COM1 = 4,
    IRQ_RTC = 8,
    IRQ_SCI = 9,
    IRQ_AUX = 12,
    COM1_BASE = 0x3F8,
    ACPI_PM_BASE = 0x600,
    RESET_PORT = 0xCF9,
    RESET_VALUE = 0x06,
    A20_KEYBOARD = 0,
    A20_PORT92 = 1,
    BDA = 0x400, /* BIOS data area */
    BDA_COM1 = 0x00,
    BDA_EBDA = 0x0E,
    BDA_EQUIPMENT = 0x10,
    BDA_MEMORY = 0x13,
    EBDA = 0x9FC00,
    EQUIPMENT_FPU_ONE_SERIAL = 0x0202,
    CMOS_EQUIPMENT_FPU = 0x02,
};

/* ---- wires that end on the board ---- */

static void request(struct board *b, enum board_request what)
{
    if (b->request == BOARD_NONE)
        b->request = what;
    b->vcpu->stop = true;
    b->vcpu->kicked = true;
}

static void set_intr(void *opaque, int line, bool level)
{
    struct board *b = opaque;

    (void)line;
    b->vcpu->irq_line = level;
}

static void set_a20(void *opaque, int line, bool level)
{
    struct board *b = opaque;

    b->a20 = (uint8_t)(level ? b->a20 | BIT(line) : b->a20 & ~BIT(line));
}

static void set_request(void *opaque, int line, bool level)
{
    if (level)
        request(opaque, (enum board_request)line);
}

static void request_exit(void *opaque, int status)
{
    struct board *b = opaque;

    if (b->request == BOARD_NONE)
        b->exit_status = status;
    request(b, BOARD_EXIT);
}

/* ---- the host's side of the serial port and the debug console ---- */

static void serial_send(void *opaque, uint8_t byte)
{
    sink_buffer_put(opaque, byte);
}

static size_t serial_fetch(void *opaque, uint8_t *to, size_t max)
{
    const struct board *b = CONTAINER_OF(opaque, struct board, serial);

    return io_thread_read(b->input, to, max);
}

/* ---- what the vCPU and the MMU call ---- */

static uint32_t io_read(void *opaque, uint16_t port, unsigned size)
{
    struct board *b = opaque;

    return bus_read_port(&b->bus, port, size);
}

static void io_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct board *b = opaque;

    bus_write_port(&b->bus, port, size, value);
}

static int irq_ack(void *opaque)
{
    struct board *b = opaque;

    return b->vcpu->irq_line ? i8259_acknowledge(&b->pic) : -1;
}

void board_flush(struct board *b)
{
    sink_buffer_flush(&b->serial);
    sink_buffer_flush(&b->debugcon_sink);
}

void board_poll(struct board *b)
{
    clock_run(b->clock);
    if (io_thread_pending(b->input))
        uart16550_input(&b->com1);
}

static void poll(void *opaque)
{
    board_poll(opaque);
}

static uint32_t memory_read(void *opaque, uint32_t gpa, unsigned size)
{
    struct board *b = opaque;

    return bus_read_memory(&b->bus, gpa, size);
}

static void memory_write(void *opaque, uint32_t gpa, unsigned size, uint32_t value)
{
    struct board *b = opaque;

    bus_write_memory(&b->bus, gpa, size, value);
}

static const struct vcpu_ops ops = {
    .io_read = io_read,
    .io_write = io_write,
    .irq_ack = irq_ack,
    .poll = poll,
};

/* ---- making it ---- */

static int init_devices(struct board *b, const struct machine_config *config, struct err *err)
{
    struct i8259 *pic = &b->pic;
    struct wire reset = {set_request, b, BOARD_RESET};
    struct wire power_off = {set_request, b, BOARD_POWER_OFF};
    const struct uart16550_line line = {serial_send, serial_fetch, &b->serial};
    const struct i8042_wires keyboard = {.irq1 = i8259_wire(pic, IRQ_KEYBOARD),
                                         .irq12 = i8259_wire(pic, IRQ_AUX),
                                         .a20 = {set_a20, b, A20_KEYBOARD},
                                         .reset = reset};
    int rc;

    if ((rc = i8259_init(pic, &b->bus, (struct wire){set_intr, b, 0}, err)))
        return rc;
    if ((rc = i8254_init(&b->pit, &b->bus, b->clock, i8259_wire(pic, IRQ_TIMER), err)))
        return rc;
    if ((rc = mc146818_init(&b->rtc, &b->bus, b->clock, i8259_wire(pic, IRQ_RTC), err)))
        return rc;
    if ((rc = uart16550_init(&b->com1, &b->bus, COM1_BASE, b->clock, i8259_wire(pic, IRQ_COM1),
                             &line, err)))
        return rc;
    if ((rc = i8042_init(&b->keyboard, &b->bus, &keyboard, err)))
        return rc;
    if ((rc = sysctl_init(&b->sysctl, &b->bus, (struct wire){set_a20, b, A20_PORT92}, reset, err)))
        return rc;
    if ((rc = acpi_pm_init(&b->acpi, &b->bus, ACPI_PM_BASE, b->clock, i8259_wire(pic, IRQ_SCI),
                           power_off, err)))
        return rc;
    if ((rc = pci_config_init(&b->pci, &b->bus, err)))
        return rc;
    if (config->debug_exit &&
        (rc = debug_exit_init(&b->debug_exit, &b->bus, config->debug_exit_iobase,
                              config->debug_exit_iosize, request_exit, b, err)))
        return rc;
    if (config->debugcon && (rc = debugcon_init(&b->debugcon, &b->bus, config->debugcon_iobase,
                                                serial_send, &b->debugcon_sink, err)))
        return rc;
    return 0;
}

int board_init(struct board *b, const struct machine_config *config, struct clock *clock,
               struct io_thread *input, struct vcpu *vcpu, struct mmu *mmu, struct err *err)
{
    const struct mmu_io io = {memory_read, memory_write, b};
    int rc;

    memset(b, 0, sizeof(*b));
    b->clock = clock;
    b->input = input;
    b->vcpu = vcpu;
    sink_buffer_init(&b->serial, &config->serial, clock);
    sink_buffer_init(&b->debugcon_sink, &config->debugcon_sink, clock);
    bus_init(&b->bus);
    rc = init_devices(b, config, err);
    if (rc)
        return rc;
    mc146818_set_memory(&b->rtc, mmu_ram_size(mmu));
    mc146818_set(&b->rtc, CMOS_EQUIPMENT, CMOS_EQUIPMENT_FPU);
    vcpu->ops = &ops;
    vcpu->ops_opaque = b;
    mmu_set_io(mmu, &io);
    return 0;
}

/* The ACPI tables and the few bytes of the BIOS data area that operating systems look at. */
static void load_firmware(struct mmu *mmu)
{
    const struct acpi_config acpi = {ACPI_PM_BASE, IRQ_SCI, RESET_PORT, RESET_VALUE};
    uint8_t tables[ACPI_TABLES_SIZE];
    uint8_t bda[0x100] = {0};
    uint16_t com1 = COM1_BASE, ebda = EBDA >> 4, equipment = EQUIPMENT_FPU_ONE_SERIAL;
    uint16_t memory = EBDA / 1024;
    uint8_t ebda_kib = 1;

    mmu_load(mmu, ACPI_TABLES, tables, acpi_build(tables, &acpi));
    memcpy(bda + BDA_COM1, &com1, 2);
    memcpy(bda + BDA_EBDA, &ebda, 2);
    memcpy(bda + BDA_EQUIPMENT, &equipment, 2);
    memcpy(bda + BDA_MEMORY, &memory, 2);
    mmu_load(mmu, BDA, bda, sizeof(bda));
    mmu_load(mmu, EBDA, &ebda_kib, 1);
}

void board_reset(struct board *b, struct mmu *mmu)
{
    b->request = BOARD_NONE;
    i8259_reset(&b->pic);
    i8254_reset(&b->pit);
    mc146818_reset(&b->rtc);
    uart16550_reset(&b->com1);
    i8042_reset(&b->keyboard);
    sysctl_reset(&b->sysctl);
    acpi_pm_reset(&b->acpi);
    pci_config_reset(&b->pci);
    load_firmware(mmu);
}

enum board_request board_take_request(struct board *b)
{
    enum board_request what = b->request;

    b->request = BOARD_NONE;
    return what;
}

void board_describe(const struct board *b, struct mmu *mmu, struct boot_target *target)
{
    uint64_t ram = mmu_ram_size(mmu);
    const struct e820_entry map[] = {
        {0, EBDA, E820_RAM},
        {EBDA, 0xA0000 - EBDA, E820_RESERVED},
        {0xF0000, 0x10000, E820_RESERVED}, /* the tables */
        {MIB(1), ram > MIB(1) ? ram - MIB(1) : 0, E820_RAM},
    };

    memset(target, 0, sizeof(*target));
    memcpy(target->e820, map, sizeof(map));
    target->e820_count = ARRAY_LEN(map);
    target->rsdp = ACPI_TABLES;
    target->ram_top = ram;
    target->mmu = mmu;
    target->vcpu = b->vcpu;
}
