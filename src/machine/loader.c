/*
 * The loaders' common part: which format a file has, segments, modules, and the CPU's state at
 * entry.
 *
 * Formats are tried in this order: a bzImage, whose header stands at a fixed place; a multiboot
 * header, which may be inside an ELF file; a plain ELF file.
 */
#include "machine/loader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/loader_format.h"

static const struct loader_format *const formats[] = {
    &loader_linux,
    &loader_multiboot,
    &loader_elf,
};

static int probe(struct loader *l, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        int ret = formats[i]->probe(l, err);
        if (ret < 0)
            return ret;
        if (ret > 0) {
            l->format = formats[i];
            return 0;
        }
    }
    return err_set(err, ENOEXEC,
                   "%s: '%s' is not a Linux bzImage, a multiboot image or an ELF file",
                   l->kernel.option, l->kernel.path);
}

struct loader *loader_create(const struct loader_request *request, struct err *err)
{
    struct loader *l = calloc(1, sizeof(*l));
    if (!l) {
        err_set(err, ENOMEM, "-kernel: no memory");
        return NULL;
    }
    if (request->initrd)
        l->initrd = strdup(request->initrd);
    if (request->append)
        l->append = strdup(request->append);
    if ((request->initrd && !l->initrd) || (request->append && !l->append)) {
        err_set(err, ENOMEM, "-kernel: no memory");
        goto fail;
    }
    if (loader_file_open(&l->kernel, "-kernel", request->kernel, err) < 0 || probe(l, err) < 0)
        goto fail;
    return l;

fail:
    loader_destroy(l);
    return NULL;
}

struct loader *loader_create_memory(const void *bytes, size_t size, const char *name,
                                    struct err *err)
{
    struct loader *l = calloc(1, sizeof(*l));
    if (!l || !(l->kernel.path = strdup(name))) {
        err_set(err, ENOMEM, "%s: no memory", name);
        free(l);
        return NULL;
    }
    l->kernel.option = "-kernel";
    l->kernel.fd = -1;
    l->kernel.bytes = bytes;
    l->kernel.size = size;
    if (probe(l, err) < 0) {
        loader_destroy(l);
        return NULL;
    }
    return l;
}

void loader_destroy(struct loader *l)
{
    if (!l)
        return;
    for (unsigned i = 0; i < l->module_count; i++) {
        loader_file_close(&l->modules[i].file);
        free(l->modules[i].text);
    }
    loader_file_close(&l->kernel);
    free(l->initrd);
    free(l->append);
    free(l);
}

static int load(void *opaque, const struct boot_target *target, struct err *err)
{
    struct loader *l = opaque;
    return l->format->load(l, target, err);
}

struct boot_image loader_image(struct loader *l)
{
    return (struct boot_image){.load = load, .opaque = l};
}

/* ---- what the formats share ---- */

int loader_add_module(struct loader *l, const char *text, size_t len, bool has_args,
                      struct err *err)
{
    if (l->module_count == LOADER_MAX_MODULES)
        return err_set(err, E2BIG, "-initrd: more than %d modules", LOADER_MAX_MODULES);
    struct loader_module *m = &l->modules[l->module_count];
    *m = (struct loader_module){.file.fd = -1, .text = strndup(text, len)};
    if (!m->text)
        return err_set(err, ENOMEM, "-initrd: no memory");
    l->module_count++;

    char *path = strndup(text, has_args ? strcspn(m->text, " ") : len);
    if (!path)
        return err_set(err, ENOMEM, "-initrd: no memory");
    int ret = loader_file_open(&m->file, "-initrd", path, err);
    free(path);
    return ret;
}

bool loader_is_free_ram(const struct boot_target *t, uint64_t gpa, uint64_t size)
{
    for (unsigned i = 0; i < t->e820_count; i++) {
        const struct e820_entry *e = &t->e820[i];
        if (e->type == E820_RAM && gpa >= e->base && gpa - e->base <= e->size &&
            size <= e->size - (gpa - e->base))
            return true;
    }
    return false;
}

uint64_t loader_segments_end(const struct loader *l)
{
    uint64_t end = 0;
    for (unsigned i = 0; i < l->segment_count; i++) {
        uint64_t e = (uint64_t)l->segments[i].gpa + l->segments[i].size;
        if (e > end)
            end = e;
    }
    return end;
}

bool loader_occupied(const struct loader *l, uint64_t gpa, uint64_t size)
{
    for (unsigned i = 0; i < l->segment_count; i++) {
        const struct loader_segment *s = &l->segments[i];
        if (gpa < (uint64_t)s->gpa + s->size && s->gpa < gpa + size)
            return true;
    }
    return false;
}

int loader_load_segments(struct loader *l, const struct boot_target *t, struct err *err)
{
    static const uint8_t zeros[PAGE_SIZE];
    for (unsigned i = 0; i < l->segment_count; i++) {
        const struct loader_segment *s = &l->segments[i];
        if (!loader_is_free_ram(t, s->gpa, s->size))
            return err_set(
                err, ENOMEM,
                "-kernel: '%s' wants memory from %#x to %#llx, which is not RAM with -m %lluM",
                l->kernel.path, s->gpa, (unsigned long long)s->gpa + s->size,
                (unsigned long long)(mmu_ram_size(t->mmu) >> 20));
        int ret = loader_file_load(&l->kernel, s->offset, s->file_size, t->mmu, s->gpa, err);
        if (ret < 0)
            return ret;
        for (uint32_t at = s->file_size; at < s->size;) {
            uint32_t n = min_u32(s->size - at, sizeof(zeros));
            mmu_load(t->mmu, s->gpa + at, zeros, n);
            at += n;
        }
    }
    return 0;
}

void loader_flat_state(const struct boot_target *t, uint32_t gdt, uint32_t entry, uint32_t esp)
{
    /* Null, unused, 10h: code, 18h: data; both with base 0, limit 4 GiB (SDM 3A 3.4.5). */
    static const uint64_t table[LOADER_GDT_SIZE / 8] = {
        0,
        0,
        0x00CF9B000000FFFFull,
        0x00CF93000000FFFFull,
    };
    mmu_load(t->mmu, gdt, table, sizeof(table));

    struct vcpu *v = t->vcpu;
    const struct segment code = {.sel = 0x10,
                                 .attr = ATTR_G | ATTR_DB | ATTR_P | ATTR_S | ATTR_CODE |
                                         ATTR_WRITE | ATTR_ACCESSED,
                                 .base = 0,
                                 .limit = 0xFFFFFFFF};
    const struct segment data = {.sel = 0x18,
                                 .attr = ATTR_G | ATTR_DB | ATTR_P | ATTR_S | ATTR_WRITE |
                                         ATTR_ACCESSED,
                                 .base = 0,
                                 .limit = 0xFFFFFFFF};
    for (unsigned i = 0; i < SEG_COUNT; i++)
        v->seg[i] = i == SEG_CS ? code : data;
    v->gdtr = (struct table_register){.base = gdt, .limit = LOADER_GDT_SIZE - 1};
    v->cr0 = CR0_PE | CR0_ET;
    v->cpl = 0;
    vcpu_set_eflags(v, 0);
    for (unsigned i = 0; i < REG_COUNT; i++)
        v->regs[i] = 0;
    v->regs[REG_SP] = esp;
    v->rip = entry;
    vcpu_mode_changed(v);
}
