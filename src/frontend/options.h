/*
 * The command line, in QEMU's spelling and meaning wherever QEMU has the option, one dash or two.
 * Parsing touches nothing but the struct: files are opened later, by main.
 */
#ifndef FRONTEND_OPTIONS_H
#define FRONTEND_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

/* Where a character device goes. */
enum option_output { OUTPUT_NULL, OUTPUT_STDIO, OUTPUT_FILE };

struct option_chardev {
    enum option_output kind;
    const char *path; /* OUTPUT_FILE; borrowed from argv */
};

enum option_action { ACTION_RUN, ACTION_HELP, ACTION_VERSION, ACTION_LOG_HELP, ACTION_DEVICE_HELP };

struct options {
    enum option_action action;
    const char *kernel, *initrd, *append; /* borrowed from argv, NULL when absent */
    uint64_t ram_size;

    struct option_chardev serial;
    bool serial_given; /* by -serial; then Ctrl-C and its kin stay the terminal's, as in QEMU */
    bool debugcon_given;
    struct option_chardev debugcon;

    bool no_reboot;
    bool debug_exit;
    uint16_t debug_exit_iobase, debug_exit_iosize;

    uint32_t log_mask, log_low, log_high;
    const char *log_path;
    bool stats, verify;
};

/* Returns 0, or a negative errno with a sentence in `err`. */
int options_parse(struct options *o, int argc, char *const *argv, struct err *err);
void options_help(FILE *to);
void options_device_help(FILE *to);

#endif
