/*
 * Linux bzImages by the 32-bit boot protocol (Documentation/arch/x86/boot.rst): the real-mode setup
 * is not run; its header is copied into a zero page (struct boot_params), the protected-mode part
 * goes to 1 MiB, and the CPU enters there with ESI = zero page.
 *
 *   0x8000   GDT
 *   0x10000  boot_params, one page
 *   0x20000  command line
 *   1 MiB    protected-mode kernel; it moves itself to where it wants to be decompressed
 *   high     initrd, ending at the end of RAM or at initrd_addr_max, page aligned
 *
 * Offsets below are those of struct boot_params, which for the setup header are those of the file
 * too.
 */
#include <errno.h>
#include <string.h>

#include "machine/loader_format.h"

enum {
    GDT_AT = 0x8000,
    PARAMS_AT = 0x10000,
    CMDLINE_AT = 0x20000,
    KERNEL_AT = 0x100000,
    SECTOR = 512,
};

enum boot_params_offset {
    BP_EXT_MEM_K = 0x002,
    BP_ACPI_RSDP = 0x070,
    BP_ALT_MEM_K = 0x1E0,
    BP_E820_COUNT = 0x1E8,
    BP_HEADER = 0x1F1,
    BP_SETUP_SECTS = 0x1F1,
    BP_SYSSIZE = 0x1F4,
    BP_BOOT_FLAG = 0x1FE,
    BP_JUMP = 0x200, /* a short jump over the header: its operand tells where the header ends */
    BP_MAGIC = 0x202,
    BP_VERSION = 0x206,
    BP_TYPE_OF_LOADER = 0x210,
    BP_LOADFLAGS = 0x211,
    BP_CODE32_START = 0x214,
    BP_RAMDISK_IMAGE = 0x218,
    BP_RAMDISK_SIZE = 0x21C,
    BP_CMD_LINE_PTR = 0x228,
    BP_INITRD_ADDR_MAX = 0x22C,
    BP_KERNEL_ALIGNMENT = 0x230,
    BP_RELOCATABLE = 0x234,
    BP_XLOADFLAGS = 0x236,
    BP_CMDLINE_SIZE = 0x238,
    BP_PAYLOAD_OFFSET = 0x248,
    BP_PAYLOAD_LENGTH = 0x24C,
    BP_PREF_ADDRESS = 0x258,
    BP_INIT_SIZE = 0x260,
    BP_HEADER_MAX = 0x290,
    BP_E820 = 0x2D0,
};

enum { LOADED_HIGH = 1 << 0, XLF_KERNEL_64 = 1 << 0, LOADER_UNDEFINED = 0xFF };

/* Fields are little-endian and unaligned in places. */
static uint32_t get(const struct loader *l, unsigned offset, unsigned size)
{
    uint32_t value = 0;
    if (offset + size <= BP_HEADER + l->bz.header_size)
        memcpy(&value, l->bz.header + (offset - BP_HEADER), size);
    return value;
}

static void put(uint8_t *params, unsigned offset, unsigned size, uint64_t value)
{
    memcpy(params + offset, &value, size);
}

/* Reads the header and checks it against the file. 1, 0 or negative, as probe. */
static int read_header(struct loader *l, struct err *err)
{
    const char *path = l->kernel.path;
    uint8_t head[BP_VERSION + 2];
    if (l->kernel.size < sizeof(head))
        return 0;
    int ret = loader_file_read(&l->kernel, 0, head, sizeof(head), err);
    if (ret < 0)
        return ret;
    if (memcmp(head + BP_MAGIC, "HdrS", 4) != 0 || head[BP_BOOT_FLAG] != 0x55 ||
        head[BP_BOOT_FLAG + 1] != 0xAA)
        return 0;

    unsigned end = BP_JUMP + 2u + head[BP_JUMP + 1];
    if (end > BP_HEADER_MAX)
        end = BP_HEADER_MAX;
    if (head[BP_JUMP] != 0xEB || end < BP_VERSION + 2 || l->kernel.size < end)
        return err_set(err, ENOEXEC, "-kernel: '%s' is corrupt: bad Linux setup header", path);
    l->bz.header_size = end - BP_HEADER;
    ret = loader_file_read(&l->kernel, BP_HEADER, l->bz.header, l->bz.header_size, err);
    if (ret < 0)
        return ret;
    l->bz.version = get(l, BP_VERSION, 2);
    return 1;
}

static int check_header(struct loader *l, struct err *err)
{
    const char *path = l->kernel.path;
    unsigned version = l->bz.version;
    if (version < 0x202 || !(get(l, BP_LOADFLAGS, 1) & LOADED_HIGH))
        return err_set(
            err, ENOEXEC,
            "-kernel: '%s' is a Linux image of boot protocol %u.%02u that cannot be loaded "
            "at 1 MiB (no bzImage)",
            path, version >> 8, version & 0xFF);
    if (version >= 0x20C && get(l, BP_XLOADFLAGS, 2) & XLF_KERNEL_64)
        return err_set(
            err, ENOEXEC,
            "-kernel: '%s' is a 64-bit (x86-64) Linux kernel: the machine is a 32-bit PC", path);

    unsigned sectors = get(l, BP_SETUP_SECTS, 1);
    uint64_t offset = ((uint64_t)(sectors ? sectors : 4) + 1) * SECTOR;
    uint64_t size = (uint64_t)get(l, BP_SYSSIZE, version >= 0x204 ? 4 : 2) * 16;
    if (version < 0x204 && offset < l->kernel.size)
        size = l->kernel.size - offset;
    if (size == 0 || size > GIB(1))
        return err_set(err, ENOEXEC, "-kernel: '%s' is corrupt: a kernel of %llu bytes", path,
                       (unsigned long long)size);
    if (offset + size > l->kernel.size)
        return err_set(err, ENOEXEC,
                       "-kernel: '%s' is truncated: %llu bytes instead of at least %llu", path,
                       (unsigned long long)l->kernel.size, (unsigned long long)(offset + size));
    if (version >= 0x208 &&
        (uint64_t)get(l, BP_PAYLOAD_OFFSET, 4) + get(l, BP_PAYLOAD_LENGTH, 4) > size)
        return err_set(err, ENOEXEC, "-kernel: '%s' is corrupt: its payload ends behind the kernel",
                       path);
    l->bz.offset = (uint32_t)offset;
    l->bz.size = (uint32_t)size;

    /* Before 2.10 nobody says how much is needed for decompression: take what is usual. */
    uint64_t need = KERNEL_AT + size;
    if (version >= 0x20A)
        need = (uint64_t)get(l, BP_PREF_ADDRESS, 4) + get(l, BP_INIT_SIZE, 4);
    if (need < KERNEL_AT + size)
        need = KERNEL_AT + size;
    if (need > GIB(2))
        return err_set(err, ENOEXEC, "-kernel: '%s' is corrupt: it wants %llu MiB to start in",
                       path, (unsigned long long)(need >> 20));
    l->bz.need_end = (uint32_t)need;
    l->bz.initrd_max = version >= 0x203 ? get(l, BP_INITRD_ADDR_MAX, 4) : 0x37FFFFFF;

    uint32_t limit = version >= 0x206 ? get(l, BP_CMDLINE_SIZE, 4) : 255;
    size_t length = l->append ? strlen(l->append) : 0;
    if (length > limit || length >= 0x10000)
        return err_set(err, E2BIG, "-append: %zu bytes, but '%s' takes at most %u", length, path,
                       limit);
    return 0;
}

static int probe(struct loader *l, struct err *err)
{
    int ret = read_header(l, err);
    if (ret <= 0)
        return ret;
    ret = check_header(l, err);
    if (ret < 0)
        return ret;
    if (l->initrd) {
        ret = loader_add_module(l, l->initrd, strlen(l->initrd), false, err);
        if (ret < 0)
            return ret;
    }
    return 1;
}

/* Places the initrd as high as it may be; *gpa is 0 without one. */
static int place_initrd(struct loader *l, const struct boot_target *t, uint32_t *gpa,
                        struct err *err)
{
    *gpa = 0;
    if (!l->module_count)
        return 0;
    const struct loader_file *f = &l->modules[0].file;
    uint64_t top = t->ram_top;
    if (top > (uint64_t)l->bz.initrd_max + 1)
        top = (uint64_t)l->bz.initrd_max + 1;
    uint64_t at = f->size < top ? (top - f->size) & ~(uint64_t)PAGE_MASK : 0;
    if (at < l->bz.need_end || !loader_is_free_ram(t, at, f->size))
        return err_set(
            err, ENOMEM,
            "-initrd: '%s' (%llu KiB) does not fit into memory beside the kernel with -m "
            "%lluM",
            f->path, (unsigned long long)(f->size >> 10),
            (unsigned long long)(mmu_ram_size(t->mmu) >> 20));
    *gpa = (uint32_t)at;
    return 0;
}

static int load(struct loader *l, const struct boot_target *t, struct err *err)
{
    if (!loader_is_free_ram(t, KERNEL_AT, l->bz.need_end - KERNEL_AT))
        return err_set(err, ENOMEM, "-m: '%s' needs at least %u MiB of memory to start in",
                       l->kernel.path, (l->bz.need_end + (1u << 20) - 1) >> 20);
    uint32_t initrd;
    int ret = place_initrd(l, t, &initrd, err);
    if (ret < 0)
        return ret;
    ret = loader_file_load(&l->kernel, l->bz.offset, l->bz.size, t->mmu, KERNEL_AT, err);
    if (ret < 0)
        return ret;
    uint32_t initrd_size = initrd ? (uint32_t)l->modules[0].file.size : 0;
    if (initrd) {
        ret = loader_file_load(&l->modules[0].file, 0, initrd_size, t->mmu, initrd, err);
        if (ret < 0)
            return ret;
    }

    uint8_t params[PAGE_SIZE] = {0};
    memcpy(params + BP_HEADER, l->bz.header, l->bz.header_size);
    params[BP_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    put(params, BP_CODE32_START, 4, KERNEL_AT);
    put(params, BP_RAMDISK_IMAGE, 4, initrd);
    put(params, BP_RAMDISK_SIZE, 4, initrd_size);
    put(params, BP_CMD_LINE_PTR, 4, CMDLINE_AT);
    put(params, BP_ACPI_RSDP, 8, t->rsdp);
    uint64_t above = t->ram_top > MIB(1) ? (t->ram_top - MIB(1)) >> 10 : 0;
    put(params, BP_EXT_MEM_K, 2, above > 0xFFFF ? 0xFFFF : above);
    put(params, BP_ALT_MEM_K, 4, above);
    params[BP_E820_COUNT] = (uint8_t)t->e820_count;
    for (unsigned i = 0; i < t->e820_count; i++) {
        put(params, BP_E820 + 20 * i, 8, t->e820[i].base);
        put(params, BP_E820 + 20 * i + 8, 8, t->e820[i].size);
        put(params, BP_E820 + 20 * i + 16, 4, t->e820[i].type);
    }
    mmu_load(t->mmu, PARAMS_AT, params, sizeof(params));
    const char *text = l->append ? l->append : "";
    mmu_load(t->mmu, CMDLINE_AT, text, (uint32_t)strlen(text) + 1);

    loader_flat_state(t, GDT_AT, KERNEL_AT, GDT_AT);
    t->vcpu->regs[REG_SI] = PARAMS_AT;
    return 0;
}

const struct loader_format loader_linux = {.name = "Linux", .probe = probe, .load = load};
