/*
 * A wire: where a device puts the level of an output without knowing who listens. A wire whose
 * `set` is NULL ends nowhere.
 */
#ifndef DEVICES_WIRE_H
#define DEVICES_WIRE_H

#include <stdbool.h>

struct wire {
    void (*set)(void *opaque, int line, bool level);
    void *opaque; /* borrowed */
    int line;     /* of the listener */
};

static inline void wire_set(const struct wire *w, bool level)
{
    if (w->set)
        w->set(w->opaque, w->line, level);
}

#endif
