/*
 * A 16550A UART. Its line ends in a host: bytes sent go to `send`, bytes to be received are fetched
 * with `fetch` when there is room for them.
 */
#ifndef DEVICES_UART16550_H
#define DEVICES_UART16550_H

#include <stddef.h>

#include "base/err.h"
#include "devices/bus.h"
#include "devices/clock.h"
#include "devices/wire.h"

enum { UART16550_FIFO = 16 };

/* The other end of the line; either function may be NULL. */
struct uart16550_line {
    void (*send)(void *opaque, uint8_t byte);
    /* Gives at most `max` bytes and returns how many. */
    size_t (*fetch)(void *opaque, uint8_t *to, size_t max);
    void *opaque; /* borrowed */
};

struct uart16550 {
    uint8_t ier, lcr, mcr, lsr, msr, scr, fcr;
    uint16_t divisor;
    bool thre_pending; /* the transmitter's interrupt, until IIR is read or THR written */
    bool timeout;      /* characters have been left in the receive FIFO for four character times */
    bool mcr_written;  /* since reset */
    bool polled;       /* LSR was read before MCR was written */

    /* Receive FIFO: bytes and their LSR error bits. Without FIFOs one entry is used. */
    uint8_t byte[UART16550_FIFO], error[UART16550_FIFO];
    unsigned head, count;

    struct uart16550_line line;
    struct clock *clock; /* borrowed */
    struct clock_timer timer;
    struct wire irq;
    uint64_t sent, received;
};

int uart16550_init(struct uart16550 *u, struct bus *bus, uint16_t base, struct clock *clock,
                   struct wire irq, const struct uart16550_line *line, struct err *err);
void uart16550_reset(struct uart16550 *u);
/* The host has bytes: fetches what there is room for. */
void uart16550_input(struct uart16550 *u);

#endif
