/*
 * Plain 32-bit ELF files, by libelf: the loadable segments go to their physical addresses. The
 * image starts as a multiboot image does, but EAX and EBX are 0. The GDT is in the first page from
 * 7000h on that no segment uses, and ESP is that page's address.
 */
#include <elf.h>
#include <errno.h>
#include <libelf.h>
#include <string.h>

#include "machine/loader_format.h"

enum { GDT_FIRST = 0x7000, GDT_LAST = 0x90000 };

static bool is_elf(const struct loader *l)
{
    uint8_t magic[SELFMAG];
    return l->kernel.size >= SELFMAG &&
           loader_file_read(&l->kernel, 0, magic, SELFMAG, NULL) == 0 &&
           memcmp(magic, ELFMAG, SELFMAG) == 0;
}

static int add_segment(struct loader *l, const Elf32_Phdr *ph, struct err *err)
{
    const char *path = l->kernel.path;
    if (ph->p_type != PT_LOAD || ph->p_memsz == 0)
        return 0;
    if (ph->p_filesz > ph->p_memsz || (uint64_t)ph->p_paddr + ph->p_memsz > GIB(4))
        return err_set(err, ENOEXEC, "-kernel: '%s' is corrupt: a segment with impossible sizes",
                       path);
    if (ph->p_offset > l->kernel.size || ph->p_filesz > l->kernel.size - ph->p_offset)
        return err_set(err, ENOEXEC, "-kernel: '%s' is truncated: a segment ends behind the file",
                       path);
    if (l->segment_count == LOADER_MAX_SEGMENTS)
        return err_set(err, ENOEXEC, "-kernel: '%s' has more than %d segments", path,
                       LOADER_MAX_SEGMENTS);
    l->segments[l->segment_count++] = (struct loader_segment){
        .offset = ph->p_offset, .gpa = ph->p_paddr, .file_size = ph->p_filesz, .size = ph->p_memsz};
    return 0;
}

static int read_segments(struct loader *l, Elf *elf, struct err *err)
{
    const char *path = l->kernel.path;
    const char *ident = elf_getident(elf, NULL);
    if (!ident || elf_kind(elf) != ELF_K_ELF)
        return err_set(err, ENOEXEC, "-kernel: '%s' is a corrupt ELF file: %s", path,
                       elf_errmsg(-1));
    if (ident[EI_CLASS] == ELFCLASS64)
        return err_set(err, ENOEXEC,
                       "-kernel: '%s' is a 64-bit ELF file: the machine is a 32-bit PC", path);
    const Elf32_Ehdr *eh = elf32_getehdr(elf);
    if (!eh)
        return err_set(err, ENOEXEC, "-kernel: '%s' is a corrupt ELF file: %s", path,
                       elf_errmsg(-1));
    if (eh->e_machine == EM_X86_64)
        return err_set(err, ENOEXEC,
                       "-kernel: '%s' is 64-bit code (x32): the machine is a 32-bit PC", path);
    if (eh->e_machine != EM_386)
        return err_set(err, ENOEXEC, "-kernel: '%s' is not for x86 (ELF machine %u)", path,
                       eh->e_machine);
    if (eh->e_type != ET_EXEC)
        return err_set(err, ENOEXEC, "-kernel: '%s' is not an executable ELF file (type %u)", path,
                       eh->e_type);

    size_t count;
    if (elf_getphdrnum(elf, &count) != 0)
        return err_set(err, ENOEXEC, "-kernel: '%s' is a corrupt ELF file: %s", path,
                       elf_errmsg(-1));
    const Elf32_Phdr *ph = count ? elf32_getphdr(elf) : NULL;
    if (!ph)
        return err_set(err, ENOEXEC, "-kernel: '%s' is truncated: it has no program headers", path);

    bool entry_found = false;
    l->segment_count = 0;
    for (size_t i = 0; i < count; i++) {
        int ret = add_segment(l, &ph[i], err);
        if (ret < 0)
            return ret;
        /* The entry is a linear address; paging is off, so take the place that it is loaded to. */
        if (ph[i].p_type == PT_LOAD && eh->e_entry >= ph[i].p_vaddr &&
            eh->e_entry - ph[i].p_vaddr < ph[i].p_memsz && !entry_found) {
            l->entry = eh->e_entry - ph[i].p_vaddr + ph[i].p_paddr;
            entry_found = true;
        }
    }
    if (!entry_found)
        return err_set(err, ENOEXEC, "-kernel: '%s': the entry point is in none of its segments",
                       path);
    return 0;
}

int loader_elf_segments(struct loader *l, struct err *err)
{
    if (!is_elf(l))
        return err_set(err, ENOEXEC, "-kernel: '%s' is not an ELF file", l->kernel.path);
    if (elf_version(EV_CURRENT) == EV_NONE)
        return err_set(err, ENOTSUP, "-kernel: libelf: %s", elf_errmsg(-1));
    /* elf_memory's argument is not const, but ELF_C_READ's files are not written either. */
    Elf *elf = l->kernel.fd >= 0
                   ? elf_begin(l->kernel.fd, ELF_C_READ, NULL)
                   : elf_memory((char *)(uintptr_t)l->kernel.bytes, (size_t)l->kernel.size);
    if (!elf)
        return err_set(err, ENOEXEC, "-kernel: '%s' is a corrupt ELF file: %s", l->kernel.path,
                       elf_errmsg(-1));
    int ret = read_segments(l, elf, err);
    elf_end(elf);
    return ret;
}

static int probe(struct loader *l, struct err *err)
{
    if (!is_elf(l))
        return 0;
    int ret = loader_elf_segments(l, err);
    if (ret < 0)
        return ret;
    if (l->initrd)
        return err_set(err, EINVAL, "-initrd: '%s' is a plain ELF file, which takes none",
                       l->kernel.path);
    if (l->append)
        return err_set(err, EINVAL, "-append: '%s' is a plain ELF file, which takes none",
                       l->kernel.path);
    return 1;
}

static int load(struct loader *l, const struct boot_target *t, struct err *err)
{
    uint32_t gdt = GDT_FIRST;
    while (loader_occupied(l, gdt, PAGE_SIZE) && gdt < GDT_LAST)
        gdt += PAGE_SIZE;
    if (gdt == GDT_LAST)
        return err_set(err, ENOMEM, "-kernel: '%s' leaves no page for a GDT below 640K",
                       l->kernel.path);
    int ret = loader_load_segments(l, t, err);
    if (ret == 0)
        loader_flat_state(t, gdt, l->entry, gdt);
    return ret;
}

const struct loader_format loader_elf = {.name = "ELF", .probe = probe, .load = load};
