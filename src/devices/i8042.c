/*
 * IBM PS/2 Technical Reference, keyboard controller and keyboard; commands as on the 8042 of an AT
 * with the PS/2 additions.
 *
 * There is one output buffer. Answers of the controller go straight into it; bytes of the keyboard
 * wait in the keyboard's queue until it is empty and the keyboard's clock is enabled. update()
 * moves them and turns the state into the levels of IRQ 1 and 12. Nothing takes time: the input
 * buffer is always empty.
 */
#include "devices/i8042.h"

#include <string.h>

enum {
    PORT_DATA = 0x60,
    STATUS_OBF = 0x01,
    STATUS_SYS = 0x04,
    STATUS_A2 = 0x08,
    STATUS_UNLOCKED = 0x10,
    STATUS_AUX = 0x20,
    STATUS_TIMEOUT = 0x40,
    MODE_IRQ1 = 0x01,
    MODE_IRQ12 = 0x02,
    MODE_SYS = 0x04,
    MODE_NO_KEYBOARD = 0x10,
    MODE_NO_AUX = 0x20,
    MODE_TRANSLATE = 0x40,
    OUT_NOT_RESET = 0x01,
    OUT_A20 = 0x02,
    OUT_IRQ1 = 0x10,
    OUT_IRQ12 = 0x20,
    INPUT_PORT = 0xA0, /* not locked; no manufacturing jumper */
    KEY_ACK = 0xFA,
    KEY_RESEND = 0xFE,
    KEY_BAT_OK = 0xAA,
};

enum controller_command {
    READ_RAM = 0x20,
    WRITE_RAM = 0x60,
    DISABLE_AUX = 0xA7,
    ENABLE_AUX = 0xA8,
    TEST_AUX = 0xA9,
    SELF_TEST = 0xAA,
    TEST_KEYBOARD = 0xAB,
    DISABLE_KEYBOARD = 0xAD,
    ENABLE_KEYBOARD = 0xAE,
    READ_INPUT_PORT = 0xC0,
    READ_OUTPUT_PORT = 0xD0,
    WRITE_OUTPUT_PORT = 0xD1,
    WRITE_KEYBOARD_OUTPUT = 0xD2,
    WRITE_AUX_OUTPUT = 0xD3,
    WRITE_AUX = 0xD4,
    DISABLE_A20 = 0xDD,
    ENABLE_A20 = 0xDF,
    READ_TEST_INPUTS = 0xE0,
    PULSE = 0xF0,
};

enum keyboard_command {
    SET_LEDS = 0xED,
    ECHO = 0xEE,
    SCAN_SET = 0xF0,
    IDENTIFY = 0xF2,
    SET_RATE = 0xF3,
    ENABLE_SCAN = 0xF4,
    DEFAULTS_DISABLE = 0xF5,
    DEFAULTS = 0xF6,
    ALL_MAKE_BREAK = 0xFA,
    RESEND = 0xFE,
    RESET = 0xFF,
};

static void put_output(struct i8042 *k, uint8_t byte, bool aux, bool timed_out)
{
    k->output = byte;
    k->from_aux = aux;
    k->timed_out = timed_out;
    k->full = true;
}

static void update(struct i8042 *k)
{
    if (!k->full && k->count && !(k->ram[0] & MODE_NO_KEYBOARD)) {
        uint8_t byte = k->queue[k->head];
        k->head = (k->head + 1) % sizeof(k->queue);
        k->count--;
        /* Of all that this keyboard says, translation to set 1 changes the second byte of its name.
         */
        put_output(k, k->ram[0] & MODE_TRANSLATE && byte == 0x83 ? 0x41 : byte, false, false);
    }
    wire_set(&k->wires.irq1, k->full && !k->from_aux && (k->ram[0] & MODE_IRQ1));
    wire_set(&k->wires.irq12, k->full && k->from_aux && (k->ram[0] & MODE_IRQ12));
}

static void keyboard_say(struct i8042 *k, uint8_t byte)
{
    if (k->count == sizeof(k->queue))
        return;
    k->queue[(k->head + k->count) % sizeof(k->queue)] = byte;
    k->count++;
    if (byte != KEY_RESEND)
        k->last_sent = byte;
}

/* A byte from the controller to the keyboard. */
static void keyboard_take(struct i8042 *k, uint8_t byte)
{
    uint8_t pending = k->keyboard_command;

    k->keyboard_command = 0;
    if (pending && byte < SET_LEDS) {
        keyboard_say(k, KEY_ACK);
        if (pending == SCAN_SET && byte == 0)
            keyboard_say(k, k->scan_set);
        else if (pending == SCAN_SET && byte <= 3)
            k->scan_set = byte;
        return;
    }
    switch (byte) {
    case SET_LEDS:
    case SCAN_SET:
    case SET_RATE:
        k->keyboard_command = byte;
        keyboard_say(k, KEY_ACK);
        break;
    case ECHO:
        keyboard_say(k, ECHO);
        break;
    case IDENTIFY:
        keyboard_say(k, KEY_ACK);
        keyboard_say(k, 0xAB);
        keyboard_say(k, 0x83);
        break;
    case DEFAULTS_DISABLE:
    case DEFAULTS:
        k->scan_set = 2;
        keyboard_say(k, KEY_ACK);
        break;
    case RESEND:
        keyboard_say(k, k->last_sent);
        break;
    case RESET:
        k->scan_set = 2;
        k->count = 0;
        keyboard_say(k, KEY_ACK);
        keyboard_say(k, KEY_BAT_OK);
        break;
    default:
        keyboard_say(k, (byte >= ENABLE_SCAN && byte <= 0xFD) ? KEY_ACK : KEY_RESEND);
        break;
    }
}

static void write_output_port(struct i8042 *k, uint8_t value)
{
    k->output_port = value;
    wire_set(&k->wires.a20, value & OUT_A20);
    if (!(value & OUT_NOT_RESET))
        wire_set(&k->wires.reset, true);
}

static uint8_t read_output_port(const struct i8042 *k)
{
    uint8_t value = k->output_port & (uint8_t) ~(OUT_IRQ1 | OUT_IRQ12);

    if (k->full)
        value |= k->from_aux ? OUT_IRQ12 : OUT_IRQ1;
    return value;
}

static void write_command(struct i8042 *k, uint8_t value)
{
    k->status |= STATUS_A2;
    k->command = 0;
    if ((value & 0xE0) == READ_RAM) {
        put_output(k, k->ram[value & 31], false, false);
        return;
    }
    if ((value & 0xE0) == WRITE_RAM) {
        k->command = value;
        return;
    }
    /* PULSE takes output lines low for 6 us: those whose bit is 0. Only the reset line notices. */
    if ((value & 0xF0) == PULSE) {
        if (!(value & OUT_NOT_RESET))
            wire_set(&k->wires.reset, true);
        return;
    }
    switch (value) {
    case DISABLE_AUX:
        k->ram[0] |= MODE_NO_AUX;
        break;
    case ENABLE_AUX:
        k->ram[0] &= (uint8_t)~MODE_NO_AUX;
        break;
    case TEST_AUX:
    case TEST_KEYBOARD:
        put_output(k, 0x00, false, false);
        break;
    case SELF_TEST:
        k->status |= STATUS_SYS;
        k->ram[0] |= MODE_SYS;
        put_output(k, 0x55, false, false);
        break;
    case DISABLE_KEYBOARD:
        k->ram[0] |= MODE_NO_KEYBOARD;
        break;
    case ENABLE_KEYBOARD:
        k->ram[0] &= (uint8_t)~MODE_NO_KEYBOARD;
        break;
    case READ_INPUT_PORT:
        put_output(k, INPUT_PORT, false, false);
        break;
    case READ_OUTPUT_PORT:
        put_output(k, read_output_port(k), false, false);
        break;
    case WRITE_OUTPUT_PORT:
    case WRITE_KEYBOARD_OUTPUT:
    case WRITE_AUX_OUTPUT:
    case WRITE_AUX:
        k->command = value;
        break;
    case DISABLE_A20:
        write_output_port(k, k->output_port & (uint8_t)~OUT_A20);
        break;
    case ENABLE_A20:
        write_output_port(k, k->output_port | OUT_A20);
        break;
    case READ_TEST_INPUTS:
        put_output(k, 0x00, false, false);
        break;
    }
}

static void write_data(struct i8042 *k, uint8_t value)
{
    uint8_t command = k->command;

    k->status &= (uint8_t)~STATUS_A2;
    k->command = 0;
    if ((command & 0xE0) == WRITE_RAM) {
        k->ram[command & 31] = value;
        if (command == WRITE_RAM)
            k->status = (uint8_t)((k->status & ~STATUS_SYS) | (value & MODE_SYS ? STATUS_SYS : 0));
        return;
    }
    switch (command) {
    case WRITE_OUTPUT_PORT:
        write_output_port(k, value);
        break;
    case WRITE_KEYBOARD_OUTPUT:
        put_output(k, value, false, false);
        break;
    case WRITE_AUX_OUTPUT:
        put_output(k, value, true, false);
        break;
    case WRITE_AUX:
        /* Nobody is there: the controller reports that the transmission timed out. */
        put_output(k, KEY_RESEND, true, true);
        break;
    default:
        /* Talking to the keyboard enables its clock. */
        k->ram[0] &= (uint8_t)~MODE_NO_KEYBOARD;
        keyboard_take(k, value);
        break;
    }
}

static void i8042_write(void *opaque, uint16_t port, unsigned size, uint32_t value)
{
    struct i8042 *k = opaque;

    (void)size;
    if (port == PORT_DATA)
        write_data(k, (uint8_t)value);
    else
        write_command(k, (uint8_t)value);
    update(k);
}

static uint32_t i8042_read(void *opaque, uint16_t port, unsigned size)
{
    struct i8042 *k = opaque;

    (void)size;
    if (port == PORT_DATA) {
        uint8_t value = k->output;
        k->full = false;
        /* The line falls before the next byte raises it again. */
        wire_set(&k->wires.irq1, false);
        wire_set(&k->wires.irq12, false);
        update(k);
        return value;
    }
    return k->status | STATUS_UNLOCKED | (k->full ? STATUS_OBF : 0) |
           (k->full && k->from_aux ? STATUS_AUX : 0) |
           (k->full && k->timed_out ? STATUS_TIMEOUT : 0);
}

static const struct bus_ports ports[] = {
    {0x60, 1, BUS_BYTE, i8042_read, i8042_write},
    {0x64, 1, BUS_BYTE, i8042_read, i8042_write},
};

void i8042_reset(struct i8042 *k)
{
    struct i8042_wires wires = k->wires;

    *k = (struct i8042){.wires = wires, .scan_set = 2};
    /* As a BIOS leaves it: tested, translating, A20 on. */
    k->ram[0] = MODE_SYS | MODE_TRANSLATE | MODE_IRQ1;
    k->status = STATUS_SYS;
    k->output_port = OUT_NOT_RESET | OUT_A20 | 0xC0;
    wire_set(&k->wires.a20, true);
    update(k);
}

int i8042_init(struct i8042 *k, struct bus *bus, const struct i8042_wires *wires, struct err *err)
{
    memset(k, 0, sizeof(*k));
    k->wires = *wires;
    i8042_reset(k);
    return bus_add_ports(bus, "keyboard controller", 0, ports, ARRAY_LEN(ports), k, err);
}
