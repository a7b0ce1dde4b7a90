/*
 * The board: which device sits where, and who is wired to whom. It is what the vCPU's ops and the
 * MMU's I/O reach. Everything here runs on the vCPU thread.
 */
#ifndef MACHINE_BOARD_H
#define MACHINE_BOARD_H

#include "devices/acpi_pm.h"
#include "devices/bus.h"
#include "devices/debug_exit.h"
#include "devices/debugcon.h"
#include "devices/i8042.h"
#include "devices/i8254.h"
#include "devices/i8259.h"
#include "devices/mc146818.h"
#include "devices/pci_config.h"
#include "devices/sysctl.h"
#include "devices/uart16550.h"
#include "machine/io_thread.h"
#include "machine/machine.h"
#include "machine/sink_buffer.h"

/* What the guest asks of the machine. The first request stands until it is taken. */
enum board_request { BOARD_NONE, BOARD_RESET, BOARD_POWER_OFF, BOARD_EXIT };

struct board {
    struct bus bus;
    struct i8259 pic;
    struct i8254 pit;
    struct mc146818 rtc;
    struct uart16550 com1;
    struct i8042 keyboard;
    struct sysctl sysctl;
    struct acpi_pm acpi;
    struct pci_config pci;
    struct debug_exit debug_exit;
    struct debugcon debugcon;

    uint8_t a20; /* the sources that hold the line up, a bit each */

    struct clock *clock;     /* borrowed */
    struct vcpu *vcpu;       /* borrowed */
    struct io_thread *input; /* borrowed */
    struct sink_buffer serial, debugcon_sink;

    enum board_request request;
    int exit_status; /* of BOARD_EXIT */
};

/* Builds the board and connects it to the vCPU and the MMU. */
int board_init(struct board *b, const struct machine_config *config, struct clock *clock,
               struct io_thread *input, struct vcpu *vcpu, struct mmu *mmu, struct err *err);
/* RESET for all devices, and what firmware leaves in memory. */
void board_reset(struct board *b, struct mmu *mmu);
/* Takes the request that is pending. */
enum board_request board_take_request(struct board *b);
/* Hands over what the guest has sent: to be called before sleeping and at the end. */
void board_flush(struct board *b);
/* Runs due timers and host input; also vcpu_ops.poll. */
void board_poll(struct board *b);
/* Describes memory and firmware for a loader. */
void board_describe(const struct board *b, struct mmu *mmu, struct boot_target *target);

#endif
