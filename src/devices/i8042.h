/*
 * The 8042 keyboard controller at 60h and 64h: A20 and reset lines, and a PS/2 keyboard on its
 * first port on which nobody types. The second port has nothing attached.
 */
#ifndef DEVICES_I8042_H
#define DEVICES_I8042_H

#include "base/err.h"
#include "devices/bus.h"
#include "devices/wire.h"

struct i8042_wires {
    struct wire irq1, irq12;
    struct wire a20;   /* level */
    struct wire reset; /* true: the CPU is to be reset */
};

struct i8042 {
    uint8_t ram[32]; /* byte 0 is the command byte */
    uint8_t status;  /* SYS, A2; the rest is made up when it is read */
    uint8_t command; /* that waits for its data byte, or 0 */
    uint8_t output_port;

    bool full; /* output buffer: byte and where it is from */
    uint8_t output;
    bool from_aux, timed_out;

    uint8_t queue[16]; /* what the keyboard has to say */
    unsigned head, count;
    uint8_t keyboard_command; /* that waits for its data byte, or 0 */
    uint8_t last_sent;
    uint8_t scan_set;

    struct i8042_wires wires;
};

int i8042_init(struct i8042 *k, struct bus *bus, const struct i8042_wires *wires, struct err *err);
void i8042_reset(struct i8042 *k);

#endif
