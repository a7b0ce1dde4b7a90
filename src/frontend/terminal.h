/*
 * The user's terminal: raw while a machine runs, restored however the process ends, and the Ctrl-A
 * commands of QEMU's -nographic.
 */
#ifndef FRONTEND_TERMINAL_H
#define FRONTEND_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

struct terminal {
    int fd;       /* stdin */
    bool is_tty;  /* otherwise only Ctrl-A sequences are taken out */
    bool escaped; /* a Ctrl-A was the last byte: input thread only */
    struct termios saved, raw;
    void (*quit)(void *opaque);
    void *opaque; /* borrowed */
};

/*
 * Remembers the state of `fd` and installs handlers for the signals of crashes, which restore it;
 * call it before dbt_create, which passes faults that are not the guest's on. Nothing changes
 * before terminal_enter. `signals`: Ctrl-C, Ctrl-Z and Ctrl-\ stay signals instead of going to the
 * guest. `quit` is called by Ctrl-A x.
 */
void terminal_init(struct terminal *t, int fd, bool signals, void (*quit)(void *opaque),
                   void *opaque);
/* Raw mode, unless another process group has the terminal. No-op when it is none. */
void terminal_enter(struct terminal *t);
/* Restores; safe in signal handlers, more than once, and without terminal_enter. */
void terminal_restore(void);

/* The filter of a machine_source (machine/machine.h): `opaque` is the terminal. */
size_t terminal_filter(void *opaque, uint8_t *bytes, size_t count);

#endif
