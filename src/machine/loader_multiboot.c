/*
 * Multiboot 1 (the Multiboot Specification 0.6.96): the header stands in the first 8 KiB of the
 * file, aligned to 4 bytes; the addresses to load come from it (the "a.out kludge", flag 16) or
 * from ELF program headers. -initrd names the modules, "path args,path args", as QEMU has it.
 *
 * Modules follow the kernel, page aligned. The information structure, with all that it points to
 * and the GDT, is one block at 9000h, or behind the modules where the kernel itself occupies that.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/loader_format.h"

enum {
    SEARCH = 8192,
    HEADER_MAGIC = 0x1BADB002,
    ENTRY_MAGIC = 0x2BADB002,
    INFO_AT = 0x9000,
    INFO_ROOM = 0x80000, /* from INFO_AT on, below the EBDA */
    ESP_BELOW = 16,
};

/* Bits 0-15 of the header's flags must be understood. Bit 2 asks for a video mode: QEMU, too, boots
   such kernels without one, and they see that there is none from the information structure. */
enum { WANT_ALIGN = 1 << 0, WANT_MEMORY = 1 << 1, WANT_VIDEO = 1 << 2, HAS_ADDRESSES = 1 << 16 };

struct header {
    uint32_t magic, flags, checksum;
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

enum info_flag {
    INFO_MEMORY = 1 << 0,
    INFO_CMDLINE = 1 << 2,
    INFO_MODULES = 1 << 3,
    INFO_MMAP = 1 << 6,
    INFO_LOADER_NAME = 1 << 9,
};

struct info {
    uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4],
        mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name,
        apm_table, vbe[4];
};

struct module_entry {
    uint32_t start, end, string, reserved;
};

struct mmap_entry {
    uint32_t size; /* of what follows */
    uint64_t base, length;
    uint32_t type;
} __attribute__((packed));

/* Offset of the header in the file, or -1. */
static int64_t find_header(const struct loader *l, struct header *h)
{
    uint8_t head[SEARCH];
    size_t size = l->kernel.size < SEARCH ? (size_t)l->kernel.size : SEARCH;
    if (loader_file_read(&l->kernel, 0, head, size, NULL) < 0)
        return -1;
    for (size_t at = 0; at + 12 <= size; at += 4) {
        *h = (struct header){0};
        memcpy(h, head + at, size - at < sizeof(*h) ? size - at : sizeof(*h));
        if (h->magic == HEADER_MAGIC && h->magic + h->flags + h->checksum == 0)
            return (int64_t)at;
    }
    return -1;
}

static int kludge_segment(struct loader *l, const struct header *h, uint64_t at, struct err *err)
{
    const char *path = l->kernel.path;
    if (at + sizeof(*h) > l->kernel.size)
        return err_set(err, ENOEXEC, "-kernel: '%s' is truncated in its multiboot header", path);
    uint64_t before = (uint64_t)h->header_addr - h->load_addr;
    if (h->header_addr < h->load_addr || before > at)
        return err_set(err, ENOEXEC, "-kernel: '%s' has a multiboot header with bad addresses",
                       path);
    uint64_t offset = at - before;
    uint64_t file_size = l->kernel.size - offset;
    if (h->load_end_addr) {
        if (h->load_end_addr < h->load_addr)
            return err_set(err, ENOEXEC, "-kernel: '%s' has a multiboot header with bad addresses",
                           path);
        if (h->load_end_addr - h->load_addr > file_size)
            return err_set(err, ENOEXEC,
                           "-kernel: '%s' is truncated: it ends before its load_end_addr", path);
        file_size = h->load_end_addr - h->load_addr;
    }
    uint64_t size = file_size;
    if (h->bss_end_addr > h->load_addr + file_size)
        size = h->bss_end_addr - h->load_addr;
    if (h->load_addr + size > GIB(4))
        return err_set(err, ENOEXEC, "-kernel: '%s' does not fit below 4 GiB", path);
    l->segments[0] = (struct loader_segment){.offset = offset,
                                             .gpa = h->load_addr,
                                             .file_size = (uint32_t)file_size,
                                             .size = (uint32_t)size};
    l->segment_count = 1;
    l->entry = h->entry_addr;
    return 0;
}

static int open_modules(struct loader *l, struct err *err)
{
    const char *at = l->initrd;
    while (at && *at) {
        size_t len = strcspn(at, ",");
        int ret = loader_add_module(l, at, len, true, err);
        if (ret < 0)
            return ret;
        at += len + (at[len] == ',');
    }
    return 0;
}

static int probe(struct loader *l, struct err *err)
{
    struct header h;
    int64_t at = find_header(l, &h);
    if (at < 0)
        return 0;
    uint32_t unknown = h.flags & 0xFFFF & ~(uint32_t)(WANT_ALIGN | WANT_MEMORY | WANT_VIDEO);
    if (unknown)
        return err_set(err, ENOEXEC,
                       "-kernel: '%s' asks for unknown multiboot features (flags %#x)",
                       l->kernel.path, unknown);
    int ret = h.flags & HAS_ADDRESSES ? kludge_segment(l, &h, (uint64_t)at, err)
                                      : loader_elf_segments(l, err);
    if (ret == 0)
        ret = open_modules(l, err);
    return ret < 0 ? ret : 1;
}

/* The information block while it is built: `gpa` is where bytes[0] will be. */
struct block {
    uint8_t *bytes;
    uint32_t gpa, used, room;
};

/* Reserves `size` bytes, 8-aligned, and copies them there; gives the guest address. The room was
   computed before, so that it suffices. */
static uint32_t block_add(struct block *b, const void *from, size_t size)
{
    uint32_t at = (b->used + 7) & ~7u;
    if (at + size > b->room)
        return 0;
    memcpy(b->bytes + at, from, size);
    b->used = at + (uint32_t)size;
    return b->gpa + at;
}

static size_t block_room(const struct loader *l)
{
    size_t room = 4096 + strlen(l->kernel.path) + (l->append ? strlen(l->append) : 0);
    for (unsigned i = 0; i < l->module_count; i++)
        room += strlen(l->modules[i].text) + 64;
    return (room + 0xFFF) & ~(size_t)0xFFF;
}

/* Loads the modules behind the kernel; gives their table and the first free page behind. */
static int load_modules(struct loader *l, const struct boot_target *t,
                        struct module_entry table[LOADER_MAX_MODULES], uint64_t *end,
                        struct err *err)
{
    uint64_t at = loader_segments_end(l);
    if (at < MIB(1))
        at = MIB(1);
    for (unsigned i = 0; i < l->module_count; i++) {
        const struct loader_file *f = &l->modules[i].file;
        at = (at + PAGE_MASK) & ~(uint64_t)PAGE_MASK;
        if (!loader_is_free_ram(t, at, f->size))
            return err_set(
                err, ENOMEM,
                "-initrd: '%s' (%llu KiB) does not fit into memory behind the kernel with "
                "-m %lluM",
                f->path, (unsigned long long)(f->size >> 10),
                (unsigned long long)(mmu_ram_size(t->mmu) >> 20));
        int ret = loader_file_load(f, 0, (uint32_t)f->size, t->mmu, (uint32_t)at, err);
        if (ret < 0)
            return ret;
        table[i] = (struct module_entry){.start = (uint32_t)at, .end = (uint32_t)(at + f->size)};
        at += f->size;
    }
    *end = (at + PAGE_MASK) & ~(uint64_t)PAGE_MASK;
    return 0;
}

static void add_memory_map(struct block *b, struct info *info, const struct boot_target *t)
{
    struct mmap_entry map[E820_MAX];
    uint64_t lower = 0, upper = 0;
    for (unsigned i = 0; i < t->e820_count; i++) {
        const struct e820_entry *e = &t->e820[i];
        map[i] = (struct mmap_entry){sizeof(map[i]) - 4, e->base, e->size, e->type};
        if (e->type == E820_RAM && e->base == 0)
            lower = e->size;
        if (e->type == E820_RAM && e->base == MIB(1))
            upper = e->size;
    }
    info->mem_lower = (uint32_t)(lower >> 10);
    info->mem_upper = (uint32_t)(upper >> 10);
    info->mmap_length = (uint32_t)(t->e820_count * sizeof(map[0]));
    info->mmap_addr = block_add(b, map, info->mmap_length);
    info->flags |= INFO_MEMORY | INFO_MMAP;
}

static void fill_block(struct loader *l, const struct boot_target *t, struct block *b,
                       struct module_entry *modules)
{
    struct info info = {0};
    b->used = sizeof(info);
    add_memory_map(b, &info, t);

    /* The command line begins with the image's name, as GRUB and QEMU have it. */
    size_t path_len = strlen(l->kernel.path);
    info.cmdline = block_add(b, l->kernel.path, path_len + 1);
    if (l->append) {
        b->bytes[b->used - 1] = ' ';
        memcpy(b->bytes + b->used, l->append, strlen(l->append) + 1);
        b->used += (uint32_t)strlen(l->append) + 1;
    }
    info.flags |= INFO_CMDLINE;

    for (unsigned i = 0; i < l->module_count; i++)
        modules[i].string = block_add(b, l->modules[i].text, strlen(l->modules[i].text) + 1);
    info.mods_count = l->module_count;
    info.mods_addr = block_add(b, modules, l->module_count * sizeof(modules[0]));
    info.flags |= INFO_MODULES;

    info.boot_loader_name = block_add(b, "novt", 5);
    info.flags |= INFO_LOADER_NAME;
    memcpy(b->bytes, &info, sizeof(info));
}

static int load(struct loader *l, const struct boot_target *t, struct err *err)
{
    int ret = loader_load_segments(l, t, err);
    if (ret < 0)
        return ret;
    struct module_entry modules[LOADER_MAX_MODULES] = {{0}};
    uint64_t end = 0;
    ret = load_modules(l, t, modules, &end, err);
    if (ret < 0)
        return ret;

    struct block b = {.room = (uint32_t)block_room(l)};
    uint64_t at = INFO_AT;
    if (b.room > INFO_ROOM || loader_occupied(l, at, b.room))
        at = end;
    if (!loader_is_free_ram(t, at, b.room))
        return err_set(err, ENOMEM,
                       "-m: no room for the multiboot information behind '%s' with -m %lluM",
                       l->kernel.path, (unsigned long long)(mmu_ram_size(t->mmu) >> 20));
    b.gpa = (uint32_t)at;
    b.bytes = calloc(1, b.room);
    if (!b.bytes)
        return err_set(err, ENOMEM, "-kernel: no memory");
    fill_block(l, t, &b, modules);
    mmu_load(t->mmu, b.gpa, b.bytes, b.room);
    free(b.bytes);

    /* The GDT and, below it, a little stack are the end of the block: the room is rounded up and
       has a page to spare (block_room). */
    uint32_t gdt = b.gpa + b.room - LOADER_GDT_SIZE;
    loader_flat_state(t, gdt, l->entry, gdt - ESP_BELOW);
    t->vcpu->regs[REG_AX] = ENTRY_MAGIC;
    t->vcpu->regs[REG_BX] = b.gpa;
    return 0;
}

const struct loader_format loader_multiboot = {.name = "multiboot", .probe = probe, .load = load};
