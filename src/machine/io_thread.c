/*
 * A ring with one writer and one reader, and an eventfd on which the writer sleeps while the ring
 * is full: a guest that does not read stops the thread, which stops whoever writes to our input.
 * All signals are blocked in the thread; the kick that it sends goes to the vCPU thread alone.
 *
 * Neither side can miss the other: the reader takes bytes and then looks at `full`; the writer sets
 * `full` and then looks at the ring once more before it sleeps (both sequentially consistent).
 */
#include "machine/io_thread.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static size_t room(const struct io_thread *t)
{
    return IO_THREAD_RING - (atomic_load(&t->put) - atomic_load(&t->taken));
}

static void put(struct io_thread *t, const uint8_t *bytes, size_t count)
{
    size_t at = atomic_load(&t->put);

    for (size_t i = 0; i < count; i++)
        t->ring[(at + i) % IO_THREAD_RING] = bytes[i];
    atomic_store(&t->put, at + count);
}

/* Reads once; false when there will be no more. */
static bool read_some(struct io_thread *t, size_t max)
{
    uint8_t bytes[512];
    ssize_t got = read(t->source.fd, bytes, max < sizeof(bytes) ? max : sizeof(bytes));
    size_t count;

    if (got < 0)
        return errno == EINTR || errno == EAGAIN;
    if (got == 0)
        return false;
    count = (size_t)got;
    if (t->source.filter)
        count = t->source.filter(t->source.opaque, bytes, count);
    if (count) {
        put(t, bytes, count);
        t->wake(t->opaque);
    }
    return true;
}

static void *run(void *opaque)
{
    struct io_thread *t = opaque;
    bool open = true;

    while (!atomic_load(&t->stop)) {
        struct pollfd fds[2] = {{.fd = t->event, .events = POLLIN},
                                {.fd = t->source.fd, .events = POLLIN}};
        size_t max = room(t);

        atomic_store(&t->full, max == 0);
        if (max == 0)
            max = room(t);
        if (poll(fds, open && max ? 2 : 1, -1) < 0 && errno != EINTR)
            break;
        if (fds[0].revents & POLLIN) {
            eventfd_t value;
            eventfd_read(t->event, &value);
        }
        if (open && max && fds[1].revents)
            open = !(fds[1].revents & POLLNVAL) && read_some(t, max);
    }
    return NULL;
}

void io_thread_init(struct io_thread *t, const struct machine_source *source,
                    void (*wake)(void *opaque), void *opaque)
{
    memset(t, 0, sizeof(*t));
    t->source = *source;
    t->wake = wake;
    t->opaque = opaque;
    t->event = -1;
}

int io_thread_start(struct io_thread *t, struct err *err)
{
    sigset_t all, old;
    int rc;

    if (t->source.fd < 0)
        return 0;
    t->event = eventfd(0, EFD_CLOEXEC);
    if (t->event < 0)
        return err_set(err, errno, "cannot make an eventfd: %s", strerror(errno));
    atomic_store(&t->stop, false);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&t->thread, NULL, run, t);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) {
        close(t->event);
        t->event = -1;
        return err_set(err, rc, "cannot start the input thread: %s", strerror(rc));
    }
    t->started = true;
    return 0;
}

void io_thread_stop(struct io_thread *t)
{
    if (!t->started)
        return;
    atomic_store(&t->stop, true);
    eventfd_write(t->event, 1);
    pthread_join(t->thread, NULL);
    close(t->event);
    t->event = -1;
    t->started = false;
}

bool io_thread_pending(const struct io_thread *t)
{
    return atomic_load(&t->put) != atomic_load(&t->taken);
}

size_t io_thread_read(struct io_thread *t, uint8_t *to, size_t max)
{
    size_t at = atomic_load(&t->taken);
    size_t count = atomic_load(&t->put) - at;

    if (count > max)
        count = max;
    for (size_t i = 0; i < count; i++)
        to[i] = t->ring[(at + i) % IO_THREAD_RING];
    atomic_store(&t->taken, at + count);
    if (count && atomic_exchange(&t->full, false) && t->started)
        eventfd_write(t->event, 1);
    return count;
}
