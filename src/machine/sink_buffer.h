/*
 * Bytes on their way to a sink, a line at a time instead of one by one.
 */
#ifndef MACHINE_SINK_BUFFER_H
#define MACHINE_SINK_BUFFER_H

#include "devices/clock.h"
#include "machine/machine.h"

struct sink_buffer {
    struct machine_sink sink;
    struct clock *clock; /* borrowed */
    struct clock_timer timer;
    unsigned count;
    uint8_t bytes[256];
};

void sink_buffer_init(struct sink_buffer *s, const struct machine_sink *sink, struct clock *clock);
void sink_buffer_put(struct sink_buffer *s, uint8_t byte);
/* To be called before the machine sleeps or ends. */
void sink_buffer_flush(struct sink_buffer *s);

#endif
