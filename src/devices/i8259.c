/*
 * 8259A (Intel order number 231468), twice.
 *
 * An input's request is latched in IRR: by a rising edge, or, where ELCR says level, by the level
 * itself. In both modes it goes when the line falls before the acknowledge. Priority runs upwards
 * from the input after `lowest`. An input requests service if it is in IRR, not masked, and above
 * everything in ISR that blocks it: with special mask mode only what is not masked blocks; in
 * special fully nested mode IR2 of the master does not block itself. update() turns the state of
 * both chips into the level of INTR, and is called after every change.
 *
 * LTIM of ICW1 is ignored, as the PIIX does in favour of ELCR; so are the 8080 modes.
 */
#include "devices/i8259.h"

#include <string.h>

#include "base/log.h"

enum {
    ICW1_INIT = 0x10,
    ICW1_SINGLE = 0x02,
    ICW1_ICW4 = 0x01,
    ICW4_AEOI = 0x02,
    ICW4_NESTED = 0x10,
    OCW2_ROTATE = 0x80,
    OCW2_SPECIFIC = 0x40,
    OCW2_EOI = 0x20,
    OCW3 = 0x08,
    OCW3_ESMM = 0x40,
    OCW3_SMM = 0x20,
    OCW3_POLL = 0x04,
    OCW3_RR = 0x02,
    OCW3_RIS = 0x01,
    CASCADE = 2,
    NONE = 8,
};

/* The input with the highest priority in `set`, or NONE. */
static unsigned highest(const struct i8259_chip *c, uint8_t set)
{
    for (unsigned k = 1; k <= 8; k++) {
        unsigned n = (c->lowest + k) & 7;
        if (set & BIT(n))
            return n;
    }
    return NONE;
}

static unsigned rank(const struct i8259_chip *c, unsigned input)
{
    return input == NONE ? 8 : (input - c->lowest - 1) & 7;
}

/* The input that requests service, or NONE. */
static unsigned requesting(const struct i8259_chip *c, bool is_master)
{
    unsigned input = highest(c, c->irr & ~c->imr);
    uint8_t blocking = c->isr;

    if (c->special_mask)
        blocking &= ~c->imr;
    if (is_master && c->nested)
        blocking &= (uint8_t)~BIT(CASCADE);
    return input != NONE && rank(c, input) < rank(c, highest(c, blocking)) ? input : NONE;
}

static void set_input(struct i8259_chip *c, unsigned input, bool level)
{
    uint8_t bit = (uint8_t)BIT(input);

    if (!level)
        c->irr &= ~bit;
    else if ((c->elcr & bit) || !(c->lines & bit))
        c->irr |= bit;
    c->lines = (uint8_t)(level ? c->lines | bit : c->lines & ~bit);
}

static void update(struct i8259 *p)
{
    bool level;

    set_input(&p->master, CASCADE, p->slave.initialised && requesting(&p->slave, false) != NONE);
    level = p->master.initialised && requesting(&p->master, true) != NONE;
    if (level != p->intr_level) {
        p->intr_level = level;
        wire_set(&p->intr, level);
    }
}

/* The chip's part of an acknowledge cycle: the input, or NONE when nothing requests any more. */
static unsigned acknowledge(struct i8259_chip *c, bool is_master)
{
    unsigned input = requesting(c, is_master);

    if (input == NONE)
        return NONE;
    if (!(c->elcr & BIT(input)))
        c->irr &= (uint8_t)~BIT(input);
    if (!c->auto_eoi)
        c->isr |= (uint8_t)BIT(input);
    else if (c->auto_rotate)
        c->lowest = (uint8_t)input;
    return input;
}

uint8_t i8259_acknowledge(struct i8259 *p)
{
    unsigned input = acknowledge(&p->master, true);
    unsigned irq = input;
    uint8_t vector;

    if (input == CASCADE) {
        unsigned sub = acknowledge(&p->slave, false);
        irq = sub == NONE ? NONE : sub + 8;
        vector = (uint8_t)(p->slave.base + (sub == NONE ? 7 : sub));
        /* The slave's output falls for a moment, so that its next request is an edge at the master.
         */
        set_input(&p->master, CASCADE, false);
    } else {
        vector = (uint8_t)(p->master.base + (input == NONE ? 7 : input));
    }
    if (irq == NONE)
        p->spurious++;
    else
        p->counts[irq]++;
    if (log_on(LOG_IRQ))
        log_write("irq: %s%u acknowledged as vector %02x\n", irq == NONE ? "spurious, not " : "",
                  irq == NONE ? 0 : irq, vector);
    update(p);
    return vector;
}

static void set_irq(void *opaque, int line, bool level)
{
    struct i8259 *p = opaque;
    struct i8259_chip *c = line < 8 ? &p->master : &p->slave;
    unsigned input = (unsigned)line & 7;

    if (log_on(LOG_IRQ) && level != !!(c->lines & BIT(input)))
        log_write("irq: line %d %s\n", line, level ? "up" : "down");
    set_input(c, input, level);
    update(p);
}

struct wire i8259_wire(struct i8259 *p, int irq)
{
    if (irq < 0 || irq > 15 || irq == CASCADE)
        return (struct wire){0};
    return (struct wire){set_irq, p, irq};
}

static void write_icw1(struct i8259_chip *c, uint32_t value)
{
    c->init_step = 2;
    c->single = value & ICW1_SINGLE;
    c->icw4_needed = value & ICW1_ICW4;
    c->imr = 0;
    c->isr = 0;
    /* The edge detectors are cleared: a line that is high must fall and rise again. */
    c->irr = c->lines & c->elcr;
    c->lowest = 7;
    c->special_mask = c->read_isr = c->poll = false;
    c->auto_eoi = c->auto_rotate = c->nested = false;
    c->initialised = false;
}

static void write_ocw2(struct i8259_chip *c, uint32_t value)
{
    unsigned input = value & 7;

    if (value & OCW2_EOI) {
        if (!(value & OCW2_SPECIFIC))
            input = highest(c, c->special_mask ? c->isr & ~c->imr : c->isr);
        if (input == NONE)
            return;
        c->isr &= (uint8_t)~BIT(input);
        if (value & OCW2_ROTATE)
            c->lowest = (uint8_t)input;
    } else if (value & OCW2_SPECIFIC) {
        if (value & OCW2_ROTATE)
            c->lowest = (uint8_t)input;
    } else {
        c->auto_rotate = value & OCW2_ROTATE;
    }
}

static void write_ocw3(struct i8259_chip *c, uint32_t value)
{
    if (value & OCW3_ESMM)
        c->special_mask = value & OCW3_SMM;
    if (value & OCW3_POLL)
        c->poll = true;
    else if (value & OCW3_RR)
        c->read_isr = value & OCW3_RIS;
}

static void write_init(struct i8259_chip *c, uint32_t value)
{
    switch (c->init_step) {
    case 2:
        c->base = value & 0xF8;
        c->init_step = !c->single ? 3 : c->icw4_needed ? 4 : 0;
        break;
    case 3:
        c->cascade = (uint8_t)value;
        c->init_step = c->icw4_needed ? 4 : 0;
        break;
    case 4:
        c->auto_eoi = value & ICW4_AEOI;
        c->nested = value & ICW4_NESTED;
        c->init_step = 0;
        break;
    }
    c->initialised = c->init_step == 0;
}

static struct i8259_chip *chip(struct i8259 *p, uint16_t port)
{
    return port & 0x80 ? &p->slave : &p->master;
}

static void pic_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct i8259 *p = opaque;
    struct i8259_chip *c = chip(p, port);

    (void)size;
    if (!(port & 1)) {
        if (value & ICW1_INIT)
            write_icw1(c, value);
        else if (value & OCW3)
            write_ocw3(c, value);
        else
            write_ocw2(c, value);
    } else if (c->init_step) {
        write_init(c, value);
    } else {
        c->imr = (uint8_t)value;
    }
    update(p);
}

static uint32_t pic_read(void *opaque, uint16_t port, unsigned size)
{
    struct i8259 *p = opaque;
    struct i8259_chip *c = chip(p, port);

    (void)size;
    if (c->poll) {
        unsigned input = acknowledge(c, c == &p->master);
        c->poll = false;
        if (c == &p->slave)
            set_input(&p->master, CASCADE, false);
        update(p);
        return input == NONE ? 0 : 0x80 | input;
    }
    if (port & 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static uint32_t elcr_read(void *opaque, uint16_t port, unsigned size)
{
    const struct i8259 *p = opaque;

    (void)size;
    return port & 1 ? p->slave.elcr : p->master.elcr;
}

static void elcr_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct i8259 *p = opaque;
    struct i8259_chip *c = port & 1 ? &p->slave : &p->master;

    (void)size;
    c->elcr = (uint8_t)value & c->elcr_valid;
    c->irr |= c->lines & c->elcr;
    update(p);
}

static const struct bus_ports ports[] = {
    {0x20, 2, BUS_BYTE, pic_read, pic_write},
    {0xA0, 2, BUS_BYTE, pic_read, pic_write},
    {0x4D0, 2, BUS_BYTE, elcr_read, elcr_write},
};

static void chip_reset(struct i8259_chip *c, uint8_t elcr_valid)
{
    uint8_t lines = c->lines;

    *c = (struct i8259_chip){.lines = lines, .elcr_valid = elcr_valid, .lowest = 7};
}

void i8259_reset(struct i8259 *p)
{
    /* IRQ 0, 1, 2, 8 and 13 are always edge-triggered (PIIX3 datasheet, ELCR1 and ELCR2). */
    chip_reset(&p->master, 0xF8);
    chip_reset(&p->slave, 0xDE);
    update(p);
}

int i8259_init(struct i8259 *p, struct bus *bus, struct wire intr, struct err *err)
{
    memset(p, 0, sizeof(*p));
    p->intr = intr;
    i8259_reset(p);
    return bus_add_ports(bus, "interrupt controller", 0, ports, ARRAY_LEN(ports), p, err);
}
