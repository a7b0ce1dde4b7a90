/*
 * Loaders: a kernel file (Linux bzImage, multiboot 1 image, plain 32-bit ELF) becomes the
 * boot_image of a machine. loader_create opens the files and checks all that can be checked without
 * a machine, so that a bad file is refused before anything is done; boot_image.load does the rest,
 * at every reset, from the files, which stay open.
 *
 * Files are never trusted: every size and offset is checked against the file and against the
 * guest's RAM.
 */
#ifndef MACHINE_LOADER_H
#define MACHINE_LOADER_H

#include <stddef.h>

#include "base/err.h"
#include "machine/boot.h"

struct loader;

struct loader_request {
    const char *kernel; /* path; -kernel */
    const char *initrd; /* path, or NULL; -initrd. Multiboot: a list of "path args", with commas */
    const char *append; /* or NULL; -append */
};

/* The strings are copied. NULL with one sentence in `err`. */
struct loader *loader_create(const struct loader_request *request, struct err *err);
/* An image that is in memory already: borrowed. `name` stands in sentences. */
struct loader *loader_create_memory(const void *bytes, size_t size, const char *name,
                                    struct err *err);
void loader_destroy(struct loader *l);
struct boot_image loader_image(struct loader *l);

#endif
