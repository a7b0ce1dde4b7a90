/*
 * Where the guest's bytes go: a file descriptor as a machine_sink.
 */
#ifndef FRONTEND_OUTPUT_H
#define FRONTEND_OUTPUT_H

#include "base/err.h"
#include "frontend/options.h"
#include "machine/machine.h"

struct output {
    int fd; /* -1: discard */
    bool owned;
};

/* Opens nothing yet: the sink can be given to a machine before output_open. */
void output_init(struct output *out);
int output_open(struct output *out, const char *option, const struct option_chardev *where,
                struct err *err);
void output_close(struct output *out);
struct machine_sink output_sink(struct output *out);

#endif
