#include "frontend/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

void output_init(struct output *out)
{
    *out = (struct output){.fd = -1};
}

int output_open(struct output *out, const char *option, const struct option_chardev *where,
                struct err *err)
{
    output_init(out);
    if (where->kind == OUTPUT_STDIO) {
        out->fd = STDOUT_FILENO;
    } else if (where->kind == OUTPUT_FILE) {
        out->fd = open(where->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (out->fd < 0)
            return err_set(err, errno, "%s: cannot open '%s': %s", option, where->path,
                           strerror(errno));
        out->owned = true;
    }
    return 0;
}

void output_close(struct output *out)
{
    if (out->owned)
        close(out->fd);
    output_init(out);
}

/*
 * Writes all of it. A descriptor that somebody else has made non-blocking is waited for; one that
 * is broken (nobody reads the pipe any more, disk full) discards from then on: the guest's
 * wire is unplugged, which is no reason for it to stop.
 */
static void output_write(void *opaque, const uint8_t *bytes, size_t count)
{
    struct output *out = opaque;
    while (count && out->fd >= 0) {
        ssize_t done = write(out->fd, bytes, count);
        if (done >= 0) {
            bytes += done;
            count -= (size_t)done;
        } else if (errno == EAGAIN) {
            struct pollfd p = {.fd = out->fd, .events = POLLOUT};
            poll(&p, 1, -1);
        } else if (errno != EINTR) {
            output_close(out);
        }
    }
}

struct machine_sink output_sink(struct output *out)
{
    return (struct machine_sink){.write = output_write, .opaque = out};
}
