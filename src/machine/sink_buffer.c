/*
 * A byte waits until its line ends, the buffer is full, the machine goes to sleep, or DELAY has
 * passed, whichever is first: one system call a line, and nothing that a person would notice.
 */
#include "machine/sink_buffer.h"

#include <string.h>

enum { DELAY = 1000000 }; /* ns */

static void expire(void *opaque, uint64_t now)
{
    (void)now;
    sink_buffer_flush(opaque);
}

void sink_buffer_init(struct sink_buffer *s, const struct machine_sink *sink, struct clock *clock)
{
    memset(s, 0, sizeof(*s));
    s->sink = *sink;
    s->clock = clock;
    clock_timer_init(&s->timer, expire, s);
}

void sink_buffer_put(struct sink_buffer *s, uint8_t byte)
{
    if (!s->sink.write)
        return;
    if (!s->count)
        clock_timer_set(s->clock, &s->timer, clock_now(s->clock) + DELAY);
    s->bytes[s->count++] = byte;
    if (byte == '\n' || s->count == sizeof(s->bytes))
        sink_buffer_flush(s);
}

void sink_buffer_flush(struct sink_buffer *s)
{
    unsigned count = s->count;

    if (!count)
        return;
    s->count = 0;
    clock_timer_set(s->clock, &s->timer, CLOCK_NEVER);
    s->sink.write(s->sink.opaque, s->bytes, count);
}
