/*
 * What the loaders of the different formats share: the files, a list of what goes where, and the
 * flat protected-mode state that all of them start the CPU in.
 */
#ifndef MACHINE_LOADER_FORMAT_H
#define MACHINE_LOADER_FORMAT_H

#include "base/base.h"
#include "machine/loader.h"

/* A file, or bytes in memory that stand for one. loader_file.c */
struct loader_file {
    const char *option; /* "-kernel", "-initrd": for sentences */
    char *path;
    int fd;               /* -1: in memory */
    const uint8_t *bytes; /* in memory */
    uint8_t *owned;       /* the same, when it is to be freed */
    uint64_t size;
};

int loader_file_open(struct loader_file *f, const char *option, const char *path, struct err *err);
void loader_file_close(struct loader_file *f);
/* Reads exactly `size` bytes at `offset`; a file that has become shorter is an error. */
int loader_file_read(const struct loader_file *f, uint64_t offset, void *to, size_t size,
                     struct err *err);
/* Copies [offset, offset+size) to guest memory, which has been checked. */
int loader_file_load(const struct loader_file *f, uint64_t offset, uint32_t size, struct mmu *mmu,
                     uint32_t gpa, struct err *err);

/* A piece of the kernel file and where it goes; zeros fill it up to `size`. */
struct loader_segment {
    uint64_t offset;
    uint32_t gpa, file_size, size;
};

enum { LOADER_MAX_SEGMENTS = 64, LOADER_MAX_MODULES = 16 };

struct loader_module {
    struct loader_file file;
    char *text; /* "path args" */
};

struct loader {
    const struct loader_format *format;
    struct loader_file kernel;
    char *initrd, *append; /* as asked for, or NULL */

    /* ELF and multiboot */
    struct loader_segment segments[LOADER_MAX_SEGMENTS];
    unsigned segment_count;
    uint32_t entry;

    /* Multiboot: all; Linux: the first is the initrd. */
    struct loader_module modules[LOADER_MAX_MODULES];
    unsigned module_count;

    /* bzImage: the setup header, boot_params from 1F1h on */
    struct {
        uint8_t header[0x290 - 0x1F1];
        unsigned header_size;
        unsigned version;
        uint32_t offset, size; /* of the protected-mode part in the file */
        uint32_t need_end;   /* where the memory ends that the kernel needs before it reads e820 */
        uint32_t initrd_max; /* highest address that an initrd may use */
    } bz;
};

struct loader_format {
    const char *name;
    /* 1: it is this format and in order; 0: it is not; negative errno: it is, and is bad. */
    int (*probe)(struct loader *l, struct err *err);
    int (*load)(struct loader *l, const struct boot_target *t, struct err *err);
};

extern const struct loader_format loader_linux, loader_multiboot, loader_elf;

/* ELF by libelf, for both formats that use it: fills in segments and entry. */
int loader_elf_segments(struct loader *l, struct err *err);
/* Copies the segments, and zeros what the file does not fill. */
int loader_load_segments(struct loader *l, const struct boot_target *t, struct err *err);
/* The end of the highest segment. */
uint64_t loader_segments_end(const struct loader *l);
/* Whether a segment uses part of [gpa, gpa+size). */
bool loader_occupied(const struct loader *l, uint64_t gpa, uint64_t size);
/* Adds a module: `text` is a path, and with `has_args` anything after a space is not part of it. */
int loader_add_module(struct loader *l, const char *text, size_t len, bool has_args,
                      struct err *err);
/* All of [gpa, gpa+size) is RAM that the e820 map offers. */
bool loader_is_free_ram(const struct boot_target *t, uint64_t gpa, uint64_t size);

/*
 * Protected mode, paging and interrupts off, CS 10h and all others 18h flat, from a GDT that is put
 * at `gdt` (32 bytes); general registers are zero, EIP is `entry`.
 */
enum { LOADER_GDT_SIZE = 32 };
void loader_flat_state(const struct boot_target *t, uint32_t gdt, uint32_t entry, uint32_t esp);

#endif
