/*
 * A machine: CPU, memory, engine and board, from a configuration that the frontend fills in, and
 * the loop that runs it. Two machines may live in one process, each run by a thread of its own.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "dbt/dbt.h"
#include "machine/boot.h"

struct machine;

/* Where bytes from the guest go. Called on the vCPU thread; `write` NULL: they are discarded. */
struct machine_sink {
    void (*write)(void *opaque, const uint8_t *bytes, size_t count);
    void *opaque; /* borrowed */
};

/*
 * Where bytes for the guest come from. A thread of the machine reads `fd` (-1: none) while there is
 * room and hands them over; end of file ends the input only. `filter` (may be NULL) is called on
 * that thread with each run of bytes read; it takes out what is not for the guest (Ctrl-A
 * sequences) in place, returns how many are left, and may call machine_quit.
 */
struct machine_source {
    int fd;
    size_t (*filter)(void *opaque, uint8_t *bytes, size_t count);
    void *opaque; /* borrowed */
};

struct machine_config {
    uint64_t ram_size; /* bytes, a multiple of 4 KiB, 2 MiB to 3.5 GiB */

    struct boot_image image;

    struct machine_sink serial; /* COM1 */
    struct machine_source serial_input;

    bool debug_exit;            /* -device isa-debug-exit */
    uint16_t debug_exit_iobase; /* QEMU's default is 501h */
    uint16_t debug_exit_iosize; /* QEMU's default is 2; 1, 2 or 4 */

    bool debugcon;            /* -debugcon */
    uint16_t debugcon_iobase; /* QEMU's default is E9h */
    struct machine_sink debugcon_sink;

    bool no_reboot; /* -no-reboot: a reset request ends the run with status 0, a triple fault with 3
                     */

    struct dbt_options engine;
    unsigned vma_budget; /* as for mmu_create; 0: the default */
};

/* A configuration in which everything optional is absent; ram_size 128 MiB. */
void machine_config_init(struct machine_config *config);

/*
 * Builds the machine and loads the image. NULL with one sentence in `err`. The configuration is
 * copied; what it points to is borrowed until machine_destroy.
 */
struct machine *machine_create(const struct machine_config *config, struct err *err);
void machine_destroy(struct machine *m);

/* Statuses with which machine_run ends, besides that of the debug exit, (value << 1) | 1. */
enum machine_status {
    MACHINE_OK = 0,           /* power-off, quit, reset request with no_reboot */
    MACHINE_FAILED = 1,       /* the image could not be loaded again (err is filled in) */
    MACHINE_TRIPLE_FAULT = 3, /* with no_reboot */
    MACHINE_DIVERGED = 4,     /* --verify found a difference */
};

/*
 * Runs until the guest or machine_quit ends it; returns the exit status. Meanwhile every signal but
 * the engine's is blocked in the calling thread: a process that wants to see SIGTERM and the like
 * runs the machine on a second thread, or waits for them there. What the guest does last is on its
 * sinks on return.
 */
int machine_run(struct machine *m, struct err *err);

/* Asks machine_run to return MACHINE_OK. From any thread, or a signal handler; also before
 * machine_run. */
void machine_quit(struct machine *m);

/* The guest's registers, a few lines in QEMU's manner. Not while another thread is in machine_run.
 */
void machine_print_state(struct machine *m, FILE *to);
/* --stats: counters of the engine, the memory and the board, a line of English each. */
void machine_print_stats(struct machine *m, FILE *to);

#endif
