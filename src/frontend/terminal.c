/*
 * Raw mode and its undoing.
 *
 * A terminal left raw is a nuisance, so the old state is put back from every way out: the normal
 * end (atexit), signals that end or stop the process, and our own crashes. The handlers of crashes
 * restore the default action, and then the terminal, and return: the faulting instruction faults
 * again and the process dies as it would have without them. Signals that ask the process to end are
 * main's (main.c).
 *
 * tcsetattr is async-signal-safe (POSIX.1-2017 2.4.3).
 */
#include "frontend/terminal.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

enum { CTRL_A = 1 };

/* The terminal to restore, for handlers and atexit: there is one stdin in a process. Set once by
   terminal_init. `entered` says whether raw mode is to be undone. */
static struct terminal *the_terminal;
static volatile sig_atomic_t entered;

static const int crash_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};

void terminal_restore(void)
{
    if (!entered)
        return;
    entered = 0;
    tcsetattr(the_terminal->fd, TCSANOW, &the_terminal->saved);
}

void terminal_enter(struct terminal *t)
{
    /* From the background, tcsetattr would stop the process: wait for SIGCONT. */
    if (!t->is_tty || tcgetpgrp(t->fd) != getpgrp())
        return;
    entered = 1;
    tcsetattr(t->fd, TCSANOW, &t->raw);
}

static void on_crash(int signal_number)
{
    signal(signal_number, SIG_DFL);
    terminal_restore();
    /* A fault happens again on return; one that was sent (kill, abort) has to be sent again. */
    raise(signal_number);
}

static void on_stop(int signal_number)
{
    (void)signal_number;
    terminal_restore();
    raise(SIGSTOP);
}

static void on_continue(int signal_number)
{
    (void)signal_number;
    terminal_enter(the_terminal);
}

static void handle(int signal_number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | flags};
    sigfillset(&action.sa_mask);
    sigaction(signal_number, &action, NULL);
}

void terminal_init(struct terminal *t, int fd, bool signals, void (*quit)(void *opaque),
                   void *opaque)
{
    *t = (struct terminal){.fd = fd, .quit = quit, .opaque = opaque};
    t->is_tty = isatty(fd) && tcgetattr(fd, &t->saved) == 0;
    if (!t->is_tty)
        return;
    t->raw = t->saved;
    /* QEMU's settings: output processing stays on, for what we print ourselves. */
    t->raw.c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    t->raw.c_oflag |= OPOST;
    t->raw.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
    if (!signals)
        t->raw.c_lflag &= ~(tcflag_t)ISIG;
    t->raw.c_cflag = (t->raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    t->raw.c_cc[VMIN] = 1;
    t->raw.c_cc[VTIME] = 0;

    the_terminal = t;
    atexit(terminal_restore);
    for (size_t i = 0; i < ARRAY_LEN(crash_signals); i++)
        handle(crash_signals[i], on_crash, 0);
    handle(SIGTSTP, on_stop, SA_RESTART);
    handle(SIGCONT, on_continue, SA_RESTART);
}

/* ---- Ctrl-A ---- */

static void help(void)
{
    fputs("\nCtrl-A h  this help\n"
          "Ctrl-A x  quit novt\n"
          "Ctrl-A Ctrl-A  send a Ctrl-A to the guest\n",
          stderr);
}

size_t terminal_filter(void *opaque, uint8_t *bytes, size_t count)
{
    struct terminal *t = opaque;
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t byte = bytes[i];
        if (!t->escaped) {
            if (byte == CTRL_A)
                t->escaped = true;
            else
                bytes[kept++] = byte;
            continue;
        }
        t->escaped = false;
        if (byte == CTRL_A) {
            bytes[kept++] = byte;
        } else if (byte == 'x') {
            fputs("\nnovt: quit by Ctrl-A x\n", stderr);
            t->quit(t->opaque);
        } else if (byte == 'h' || byte == '?') {
            help();
        }
    }
    return kept;
}
