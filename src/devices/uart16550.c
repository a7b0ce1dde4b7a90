/*
 * PC16550D (National Semiconductor data sheet, June 1995).
 *
 * Sending takes no time: a byte written to THR is gone, THRE and TEMT stay set, and the
 * transmitter's interrupt is pending again at once. Receiving is as fast as the guest reads:
 * whenever there is room, bytes are fetched from the host (receive()), and what the host has beyond
 * that waits there, so that nothing is overrun but in loopback. Only the time-out of a FIFO below
 * its trigger level takes its four character times.
 *
 * The host side heeds RTS as a modem with hardware handshake does: Linux clears the FIFOs while it
 * opens a port, and sets RTS only then, so what was typed (or piped in) earlier is not lost. A
 * guest that enables the receive interrupt, or polls LSR without ever having written MCR, gets
 * bytes all the same.
 *
 * DCD, DSR and CTS are always on. The interrupt does not depend on OUT2, as guests that were only
 * tried on other virtual machines rely on it.
 */
#include "devices/uart16550.h"

#include <string.h>

enum {
    REG_DATA = 0, /* RBR, THR, DLL */
    REG_IER = 1,  /* IER, DLM */
    REG_IIR = 2,  /* IIR, FCR */
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCR = 7,
    IER_RDI = 0x01,
    IER_THRI = 0x02,
    IER_RLSI = 0x04,
    IER_MSI = 0x08,
    IIR_NONE = 0x01,
    IIR_MSI = 0x00,
    IIR_THRI = 0x02,
    IIR_RDI = 0x04,
    IIR_TIMEOUT = 0x0C,
    IIR_RLSI = 0x06,
    IIR_FIFOS = 0xC0,
    FCR_ENABLE = 0x01,
    FCR_CLEAR_RX = 0x02,
    FCR_TRIGGER_SHIFT = 6,
    LCR_LENGTH = 0x03,
    LCR_STOP = 0x04,
    LCR_PARITY = 0x08,
    LCR_BREAK = 0x40,
    LCR_DLAB = 0x80,
    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOP = 0x10,
    MCR_VALID = 0x1F,
    LSR_DR = 0x01,
    LSR_OE = 0x02,
    LSR_FE = 0x08,
    LSR_BI = 0x10,
    LSR_ERRORS = 0x1E,
    LSR_THRE = 0x20,
    LSR_TEMT = 0x40,
    LSR_FIFO_ERROR = 0x80,
    MSR_DCTS = 0x01,
    MSR_DDSR = 0x02,
    MSR_TERI = 0x04,
    MSR_DDCD = 0x08,
    MSR_DELTAS = 0x0F,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80,
    CRYSTAL_HZ = 1843200,
};

static bool fifos(const struct uart16550 *u)
{
    return u->fcr & FCR_ENABLE;
}

static unsigned capacity(const struct uart16550 *u)
{
    return fifos(u) ? UART16550_FIFO : 1;
}

static unsigned trigger(const struct uart16550 *u)
{
    static const uint8_t levels[] = {1, 4, 8, 14};

    return fifos(u) ? levels[u->fcr >> FCR_TRIGGER_SHIFT] : 1;
}

/* The interrupt of highest priority, as IIR shows it. */
static uint8_t cause(const struct uart16550 *u)
{
    if ((u->ier & IER_RLSI) && (u->lsr & LSR_ERRORS))
        return IIR_RLSI;
    if ((u->ier & IER_RDI) && u->count >= trigger(u))
        return IIR_RDI;
    if ((u->ier & IER_RDI) && u->timeout)
        return IIR_TIMEOUT;
    if ((u->ier & IER_THRI) && u->thre_pending)
        return IIR_THRI;
    if ((u->ier & IER_MSI) && (u->msr & MSR_DELTAS))
        return IIR_MSI;
    return IIR_NONE;
}

static void update(struct uart16550 *u)
{
    wire_set(&u->irq, cause(u) != IIR_NONE);
}

/* Four characters of start, data, parity and stop bits. */
static uint64_t timeout_ns(const struct uart16550 *u)
{
    unsigned bits =
        1 + 5 + (u->lcr & LCR_LENGTH) + !!(u->lcr & LCR_PARITY) + 1 + !!(u->lcr & LCR_STOP);
    unsigned divisor = u->divisor ? u->divisor : 1;

    return 4ull * bits * 16 * divisor * CLOCK_SECOND / CRYSTAL_HZ;
}

/* The FIFO was read or filled: the time-out starts again, where one is to be. */
static void restart_timeout(struct uart16550 *u)
{
    u->timeout = false;
    clock_timer_set(u->clock, &u->timer,
                    fifos(u) && u->count && u->count < trigger(u)
                        ? clock_now(u->clock) + timeout_ns(u)
                        : CLOCK_NEVER);
}

static void expire(void *opaque, uint64_t now)
{
    struct uart16550 *u = opaque;

    (void)now;
    u->timeout = u->count != 0;
    update(u);
}

/* LSR shows the errors of the character at the top, and whether any other has some. */
static void show_top(struct uart16550 *u)
{
    u->lsr &= (uint8_t) ~(LSR_DR | LSR_FIFO_ERROR);
    if (!u->count)
        return;
    for (unsigned i = 0; fifos(u) && i < u->count; i++) {
        if (u->error[(u->head + i) % UART16550_FIFO])
            u->lsr |= LSR_FIFO_ERROR;
    }
    u->lsr |= LSR_DR | u->error[u->head];
    u->error[u->head] = 0;
}

static void push(struct uart16550 *u, uint8_t byte, uint8_t error)
{
    if (u->count == capacity(u)) {
        u->lsr |= LSR_OE;
        if (fifos(u))
            return; /* the FIFO stays; the character is lost */
        u->count = 0;
    }
    u->byte[(u->head + u->count) % UART16550_FIFO] = byte;
    u->error[(u->head + u->count) % UART16550_FIFO] = error;
    u->count++;
}

static bool wants_input(const struct uart16550 *u)
{
    if (u->mcr & MCR_LOOP)
        return false;
    return (u->mcr & MCR_RTS) || u->polled || (u->ier & IER_RDI);
}

/* Fetches from the host what there is room for. */
static void receive(struct uart16550 *u)
{
    uint8_t bytes[UART16550_FIFO];
    size_t count = 0;

    if (u->line.fetch && wants_input(u) && u->count < capacity(u))
        count = u->line.fetch(u->line.opaque, bytes, capacity(u) - u->count);
    for (size_t i = 0; i < count; i++)
        push(u, bytes[i], 0);
    u->received += count;
    if (count)
        restart_timeout(u);
    show_top(u);
    update(u);
}

void uart16550_input(struct uart16550 *u)
{
    if (wants_input(u) && u->count < capacity(u))
        receive(u);
}

static void transmit(struct uart16550 *u, uint8_t byte)
{
    u->thre_pending = false;
    update(u);
    if (u->mcr & MCR_LOOP) {
        push(u, byte & (uint8_t)(0xFF >> (3 - (u->lcr & LCR_LENGTH))), 0);
        show_top(u);
        restart_timeout(u);
    } else {
        u->sent++;
        if (u->line.send)
            u->line.send(u->line.opaque, byte);
    }
    u->thre_pending = true;
    update(u);
}

/* The modem's four lines, from the outside or from MCR in loopback; changes are noted in the
 * deltas. */
static void update_modem(struct uart16550 *u)
{
    uint8_t lines = MSR_DCD | MSR_DSR | MSR_CTS;
    uint8_t changed;

    if (u->mcr & MCR_LOOP)
        lines = (uint8_t)((u->mcr & MCR_RTS ? MSR_CTS : 0) | (u->mcr & MCR_DTR ? MSR_DSR : 0) |
                          (u->mcr & MCR_OUT1 ? MSR_RI : 0) | (u->mcr & MCR_OUT2 ? MSR_DCD : 0));
    changed = (u->msr ^ lines) & 0xF0;
    /* TERI: the trailing edge of RI only. */
    if (lines & MSR_RI)
        changed &= (uint8_t)~MSR_RI;
    u->msr = (uint8_t)(lines | (u->msr & MSR_DELTAS) | changed >> 4);
}

static void write_ier(struct uart16550 *u, uint8_t value)
{
    bool enabled = (value & ~u->ier) & IER_THRI;

    u->ier = value & (IER_RDI | IER_THRI | IER_RLSI | IER_MSI);
    if (enabled)
        u->thre_pending = true; /* THR is always empty */
    receive(u);
}

static void write_fcr(struct uart16550 *u, uint8_t value)
{
    bool clear =
        ((value ^ u->fcr) & FCR_ENABLE) || ((value & FCR_ENABLE) && (value & FCR_CLEAR_RX));

    u->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | 3 << FCR_TRIGGER_SHIFT) : 0;
    if (clear) {
        u->head = u->count = 0;
        u->lsr &= (uint8_t)~LSR_ERRORS;
    }
    restart_timeout(u);
    receive(u);
}

static void write_lcr(struct uart16550 *u, uint8_t value)
{
    bool break_starts = (value & ~u->lcr) & LCR_BREAK;

    u->lcr = value;
    if (break_starts && (u->mcr & MCR_LOOP)) {
        push(u, 0, LSR_BI | LSR_FE);
        show_top(u);
        restart_timeout(u);
        update(u);
    }
}

static void uart_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct uart16550 *u = opaque;
    uint8_t byte = (uint8_t)value;

    (void)size;
    switch (port) {
    case REG_DATA:
        if (u->lcr & LCR_DLAB)
            u->divisor = (uint16_t)((u->divisor & 0xFF00) | byte);
        else
            transmit(u, byte);
        break;
    case REG_IER:
        if (u->lcr & LCR_DLAB)
            u->divisor = (uint16_t)(byte << 8 | (u->divisor & 0xFF));
        else
            write_ier(u, byte);
        break;
    case REG_IIR:
        write_fcr(u, byte);
        break;
    case REG_LCR:
        write_lcr(u, byte);
        break;
    case REG_MCR:
        u->mcr = byte & MCR_VALID;
        u->mcr_written = true;
        u->polled = false;
        update_modem(u);
        receive(u);
        break;
    case REG_SCR:
        u->scr = byte;
        break;
    }
}

static uint8_t read_rbr(struct uart16550 *u)
{
    uint8_t byte = u->byte[u->head];

    if (u->count) {
        u->head = (u->head + 1) % UART16550_FIFO;
        u->count--;
    }
    restart_timeout(u);
    receive(u);
    return byte;
}

static uint32_t uart_read(void *opaque, uint16_t port, unsigned size)
{
    struct uart16550 *u = opaque;
    uint8_t value;

    (void)size;
    switch (port) {
    case REG_DATA:
        return u->lcr & LCR_DLAB ? u->divisor & 0xFF : read_rbr(u);
    case REG_IER:
        return u->lcr & LCR_DLAB ? u->divisor >> 8 : u->ier;
    case REG_IIR:
        value = cause(u);
        if (value == IIR_THRI) {
            u->thre_pending = false;
            update(u);
        }
        return value | (fifos(u) ? IIR_FIFOS : 0);
    case REG_LCR:
        return u->lcr;
    case REG_MCR:
        return u->mcr;
    case REG_LSR:
        if (!u->mcr_written && !u->polled) {
            u->polled = true;
            receive(u);
        }
        value = u->lsr;
        u->lsr &= (uint8_t)~LSR_ERRORS;
        show_top(u);
        update(u);
        return value;
    case REG_MSR:
        value = u->msr;
        u->msr &= (uint8_t)~MSR_DELTAS;
        update(u);
        return value;
    default:
        return u->scr;
    }
}

static const struct bus_ports ports[] = {
    {0, 8, BUS_BYTE, uart_read, uart_write},
};

void uart16550_reset(struct uart16550 *u)
{
    u->ier = u->lcr = u->mcr = u->scr = u->fcr = 0;
    u->lsr = LSR_THRE | LSR_TEMT;
    u->msr = MSR_DCD | MSR_DSR | MSR_CTS;
    u->divisor = 12; /* 9600 baud, as a BIOS leaves it */
    u->thre_pending = u->timeout = u->mcr_written = u->polled = false;
    u->head = u->count = 0;
    clock_timer_set(u->clock, &u->timer, CLOCK_NEVER);
    wire_set(&u->irq, false);
}

int uart16550_init(struct uart16550 *u, struct bus *bus, uint16_t base, struct clock *clock,
                   struct wire irq, const struct uart16550_line *line, struct err *err)
{
    memset(u, 0, sizeof(*u));
    u->clock = clock;
    u->irq = irq;
    u->line = *line;
    clock_timer_init(&u->timer, expire, u);
    uart16550_reset(u);
    return bus_add_ports(bus, "serial port", base, ports, ARRAY_LEN(ports), u, err);
}
