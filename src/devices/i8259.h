/*
 * The pair of 8259A interrupt controllers of a PC: master at 20h, slave at A0h on the master's IR2,
 * and the edge/level registers of the PIIX at 4D0h.
 */
#ifndef DEVICES_I8259_H
#define DEVICES_I8259_H

#include "base/err.h"
#include "devices/bus.h"
#include "devices/wire.h"

struct i8259_chip {
    uint8_t irr, isr, imr;
    uint8_t lines;      /* levels on the inputs */
    uint8_t elcr;       /* 1: level-triggered */
    uint8_t elcr_valid; /* bits of elcr that can be set */
    uint8_t lowest;     /* input with the lowest priority */
    uint8_t base;       /* vector of IR0 */
    uint8_t cascade;    /* ICW3 */
    uint8_t init_step;  /* next ICW expected: 2, 3, 4, or 0 */
    bool single, icw4_needed;
    bool auto_eoi, auto_rotate, nested, special_mask;
    bool read_isr, poll;
    bool initialised; /* ICW2 to ICW4 have been seen since reset */
};

struct i8259 {
    struct i8259_chip master, slave;
    struct wire intr; /* to the CPU */
    bool intr_level;
    uint64_t counts[16]; /* interrupts acknowledged, by line */
    uint64_t spurious;
};

int i8259_init(struct i8259 *p, struct bus *bus, struct wire intr, struct err *err);
void i8259_reset(struct i8259 *p);
/* The input for IRQ 0-15 (2 is the cascade and ends nowhere). */
struct wire i8259_wire(struct i8259 *p, int irq);
/* The CPU's acknowledge cycle; gives the vector. A request that is gone gives IR7 of its chip. */
uint8_t i8259_acknowledge(struct i8259 *p);

#endif
