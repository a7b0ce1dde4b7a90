/*
 * Guest-physical memory. RAM and ROM are one memfd in which every byte stands at the offset of its
 * guest-physical address (the file is sparse, so holes cost nothing), seen by the VMM through one
 * view of 4 GiB of host addresses; windows map pieces of the same file. What each 4-KiB frame is,
 * is a byte of page_flags: nothing (I/O, or no memory at all), PAGE_RAM, PAGE_ROM, and PAGE_CODE
 * while translations made from it exist. Every write to RAM that does not come through a window
 * comes through here, through access.c or through walk.c (A and D bits), and all three report
 * frames with PAGE_CODE.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/fpu.h"
#include "mmu/internal.h"

#define RAM_MAX   (GIB(4) - MIB(512))
#define VGA_START KIB(640)
#define VGA_END   KIB(768)
#define FILE_SIZE GIB(4)

int ram_init(struct mmu *m, uint64_t size, struct err *err)
{
    m->fd = -1;
    if (size < MIB(1) || size > RAM_MAX || size % PAGE_SIZE)
        return err_set(err, EINVAL, "guest memory of %llu bytes is not between 1 MiB and 3584 MiB",
                       (unsigned long long)size);
    m->ram_size = size;
    m->fd = memfd_create("novt-ram", MFD_CLOEXEC);
    if (m->fd < 0 || ftruncate(m->fd, (off_t)FILE_SIZE) < 0)
        return err_set(err, errno, "cannot make a file for guest memory: %s", strerror(errno));
    m->ram = mmap(NULL, FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
    m->page_flags = mmap(NULL, FRAMES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->ram == MAP_FAILED || m->page_flags == MAP_FAILED)
        return err_set(err, errno, "cannot reserve 4 GiB of addresses for guest memory: %s",
                       strerror(errno));
    memset(m->page_flags, PAGE_RAM, size >> PAGE_SHIFT);
    memset(m->page_flags + (VGA_START >> PAGE_SHIFT), 0, (VGA_END - VGA_START) >> PAGE_SHIFT);
    return 0;
}

void ram_fini(struct mmu *m)
{
    if (m->ram && m->ram != MAP_FAILED)
        munmap(m->ram, FILE_SIZE);
    if (m->page_flags && m->page_flags != MAP_FAILED)
        munmap(m->page_flags, FRAMES);
    if (m->fd >= 0)
        close(m->fd);
}

uint64_t mmu_ram_size(const struct mmu *m)
{
    return m->ram_size;
}

const uint8_t *mmu_ram(const struct mmu *m)
{
    return m->ram;
}

const uint8_t *mmu_page_bytes(const struct mmu *m, uint32_t page)
{
    return m->ram + ((uint64_t)page << PAGE_SHIFT);
}

bool mmu_is_ram(const struct mmu *m, uint64_t gpa, uint64_t size)
{
    uint64_t frame = gpa >> PAGE_SHIFT;

    if (gpa >= GIB(4) || size > GIB(4) - gpa)
        return false;
    for (; frame << PAGE_SHIFT < gpa + size; frame++) {
        if (!(m->page_flags[frame] & PAGE_RAM))
            return false;
    }
    return true;
}

bool mmu_is_rom(const struct mmu *m, uint64_t gpa)
{
    return frame_flags(m, gpa >> PAGE_SHIFT) & PAGE_ROM;
}

void mmu_set_rom(struct mmu *m, uint32_t gpa, uint32_t size)
{
    uint64_t start = gpa & ~(uint64_t)PAGE_MASK;
    uint64_t end = ((uint64_t)gpa + size + PAGE_MASK) & ~(uint64_t)PAGE_MASK;

    if (end > GIB(4))
        end = GIB(4);
    for (uint64_t frame = start >> PAGE_SHIFT; frame < end >> PAGE_SHIFT; frame++)
        m->page_flags[frame] |= PAGE_RAM | PAGE_ROM;
    for (unsigned i = 0; i < ARRAY_LEN(m->by_id); i++) {
        if (m->by_id[i])
            window_unmap_all(m->by_id[i]);
    }
    m->generation++;
}

void ram_code_written(struct mmu *m, uint64_t frame, uint32_t offset, uint32_t size)
{
    m->page_flags[frame] &= (uint8_t)~PAGE_CODE;
    if (m->listener.code_written)
        m->listener.code_written(m->listener.opaque, (uint32_t)frame, offset, size);
}

void mmu_phys_read(struct mmu *m, uint32_t gpa, void *to, uint32_t size)
{
    uint8_t *p = to;

    while (size) {
        uint32_t part = min_u32(size, PAGE_SIZE - (gpa & PAGE_MASK));
        if (m->page_flags[gpa >> PAGE_SHIFT] & PAGE_RAM)
            memcpy(p, m->ram + gpa, part);
        else
            memset(p, 0xFF, part);
        p += part;
        gpa += part;
        size -= part;
    }
}

static void phys_write(struct mmu *m, uint32_t gpa, const void *from, uint32_t size, bool rom_too)
{
    const uint8_t *p = from;

    while (size) {
        uint32_t part = min_u32(size, PAGE_SIZE - (gpa & PAGE_MASK));
        uint8_t flags = m->page_flags[gpa >> PAGE_SHIFT];
        if ((flags & PAGE_RAM) && (rom_too || !(flags & PAGE_ROM))) {
            if (flags & PAGE_CODE)
                ram_code_written(m, gpa >> PAGE_SHIFT, gpa & PAGE_MASK, part);
            memcpy(m->ram + gpa, p, part);
        }
        p += part;
        gpa += part;
        size -= part;
    }
}

void mmu_phys_write(struct mmu *m, uint32_t gpa, const void *from, uint32_t size)
{
    phys_write(m, gpa, from, size, false);
}

void mmu_load(struct mmu *m, uint32_t gpa, const void *from, uint32_t size)
{
    phys_write(m, gpa, from, size, true);
}

/* The largest of 4, 2, 1 that is left and does not cross a dword, as the bus would cut it. */
static unsigned io_part(uint64_t gpa, uint32_t size)
{
    if (size >= 4 && !(gpa & 3))
        return 4;
    if (size >= 2 && (gpa & 3) != 3)
        return 2;
    return 1;
}

void ram_io_read(struct mmu *m, uint64_t gpa, void *to, uint32_t size)
{
    uint8_t *p = to;

    if (m->v)
        fpu_park(m->v);
    while (size) {
        unsigned part = io_part(gpa, size);
        uint32_t value = ~0u;
        if (m->io.read && gpa < GIB(4))
            value = m->io.read(m->io.opaque, (uint32_t)gpa, part);
        memcpy(p, &value, part);
        p += part;
        gpa += part;
        size -= part;
    }
}

void ram_io_write(struct mmu *m, uint64_t gpa, const void *from, uint32_t size)
{
    const uint8_t *p = from;

    if (m->v)
        fpu_park(m->v);
    while (size) {
        unsigned part = io_part(gpa, size);
        uint32_t value = 0;
        memcpy(&value, p, part);
        if (m->io.write && gpa < GIB(4))
            m->io.write(m->io.opaque, (uint32_t)gpa, part, value);
        p += part;
        gpa += part;
        size -= part;
    }
}
