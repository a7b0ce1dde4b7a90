/*
 * Host input: a thread that sleeps in poll() and hands what it reads to the vCPU thread.
 */
#ifndef MACHINE_IO_THREAD_H
#define MACHINE_IO_THREAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "machine/machine.h"

enum { IO_THREAD_RING = 4096 };

struct io_thread {
    struct machine_source source;
    /* Has the vCPU thread call io_thread_read; from the input thread. */
    void (*wake)(void *opaque);
    void *opaque; /* borrowed */

    pthread_t thread;
    bool started;
    int event; /* eventfd: room was made, or stop was set */
    atomic_bool stop, full;

    /* Bytes put and taken so far: the input thread writes `put`, the vCPU thread `taken`. */
    atomic_size_t put, taken;
    uint8_t ring[IO_THREAD_RING];
};

void io_thread_init(struct io_thread *t, const struct machine_source *source,
                    void (*wake)(void *opaque), void *opaque);
/* Starts the thread, unless there is no input. */
int io_thread_start(struct io_thread *t, struct err *err);
void io_thread_stop(struct io_thread *t);

/* The vCPU thread's side: what is there, and taking at most `max` bytes of it. */
bool io_thread_pending(const struct io_thread *t);
size_t io_thread_read(struct io_thread *t, uint8_t *to, size_t max);

#endif
