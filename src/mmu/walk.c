/*
 * The page walk (SDM 3A 4.3, 4.4): 32-bit paging with 4-KiB and 4-MiB pages, and PAE with 4-KiB and
 * 2-MiB pages. It works on guest-physical memory, never through a window, and decides everything
 * afresh.
 *
 * The CPU described has 36 physical address bits and the PAT; it has no PSE-36, so bits 21:13 of a
 * 4-MiB entry are reserved; with PAE, bits 62:36 are, bits 20:13 of a 2-MiB entry, and bit 63
 * unless EFER.NXE. A present entry with a reserved bit set faults before the next level is looked
 * at; rights are those of both levels together (4.6), checked last. The error code is that of 4.7:
 * I/D only where execution can be disabled.
 *
 * A is set in the directory entry as soon as it is used, A and D in the last one when the access is
 * allowed (4.8), by compare-and-exchange; when an entry has changed meanwhile, the walk starts
 * again. Entries in ROM are used as they are. Tables outside RAM are read and written by way of
 * mmu_io, and translation.in_ram says that no window may be filled from them.
 */
#include "mmu/internal.h"

#define DIRECTORY_FRAME 0xFFFFF000u

struct entry_format walk_format(const struct vcpu *v)
{
    if (v->cr4 & CR4_PAE)
        return (struct entry_format){
            .wide = true,
            .large = true,
            .reserved = 0x7FFFFFF000000000ull | (v->efer & EFER_NXE ? 0 : PTE_NX),
            .reserved_large = 0x1FE000,
        };
    return (struct entry_format){.large = v->cr4 & CR4_PSE, .reserved_large = 0x3FE000};
}

static bool entry_in_ram(const struct mmu *m, uint64_t gpa)
{
    return frame_flags(m, gpa >> PAGE_SHIFT) & PAGE_RAM;
}

static uint64_t entry_read(struct mmu *m, uint64_t gpa, bool wide)
{
    uint64_t entry = 0;

    if (!entry_in_ram(m, gpa)) {
        ram_io_read(m, gpa, &entry, wide ? 8 : 4);
        return entry;
    }
    if (wide)
        return __atomic_load_n((const uint64_t *)(m->ram + gpa), __ATOMIC_RELAXED);
    return __atomic_load_n((const uint32_t *)(m->ram + gpa), __ATOMIC_RELAXED);
}

/* Sets `bits` in the entry that was read as *entry. False if it is no longer what was read. */
static bool entry_set(struct mmu *m, uint64_t gpa, bool wide, uint64_t *entry, uint32_t bits)
{
    uint64_t old = *entry, new = old | bits;
    uint8_t flags = frame_flags(m, gpa >> PAGE_SHIFT);

    if (new == old || (flags & PAGE_ROM))
        return true;
    if (!(flags & PAGE_RAM)) {
        ram_io_write(m, gpa, &new, wide ? 8 : 4);
        *entry = new;
        return true;
    }
    if (flags & PAGE_CODE)
        ram_code_written(m, gpa >> PAGE_SHIFT, gpa & PAGE_MASK, wide ? 8 : 4);
    *entry = new;
    if (wide)
        return __atomic_compare_exchange_n((uint64_t *)(m->ram + gpa), &old, new, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    uint32_t old32 = (uint32_t)old;
    return __atomic_compare_exchange_n((uint32_t *)(m->ram + gpa), &old32, (uint32_t) new, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static int page_fault(struct vcpu *v, uint32_t gva, unsigned access, bool user, uint32_t error)
{
    if (access & ACCESS_WRITE)
        error |= PF_W;
    if (user)
        error |= PF_U;
    if ((access & ACCESS_EXEC) && (v->cr4 & CR4_PAE) && (v->efer & EFER_NXE))
        error |= PF_ID;
    v->exc = (struct exception){.vector = VEC_PF, .has_error = true, .error = error, .cr2 = gva};
    return FAULT;
}

/* gpa of the directory entry; false where PAE has no directory for `gva`. */
static bool directory_gpa(const struct vcpu *v, uint32_t gva, uint64_t *gpa)
{
    if (!(v->cr4 & CR4_PAE)) {
        *gpa = (v->cr3 & DIRECTORY_FRAME) + (gva >> 22) * 4;
        return true;
    }
    uint64_t pdpte = v->pdpte[gva >> 30];
    *gpa = (pdpte & PTE_FRAME) + (gva >> 21 & 511) * 8;
    return pdpte & PTE_P;
}

uint64_t walk_directory_entry(const struct vcpu *v, unsigned slot)
{
    bool wide = v->cr4 & CR4_PAE;
    uint64_t gpa;

    if (!directory_gpa(v, slot << (wide ? 21 : 22), &gpa) || !entry_in_ram(v->mmu, gpa))
        return 0;
    return entry_at(v->mmu->ram + gpa, 0, wide);
}

enum { WALK_AGAIN = 1 };

static int walk_once(struct vcpu *v, uint32_t gva, unsigned access, bool user,
                     struct translation *out)
{
    struct mmu *m = v->mmu;
    struct entry_format f = walk_format(v);
    uint64_t gpa, entry, rights, offset_mask;

    if (!directory_gpa(v, gva, &gpa))
        return page_fault(v, gva, access, user, 0);
    entry = entry_read(m, gpa, f.wide);
    if (!(entry & PTE_P))
        return page_fault(v, gva, access, user, 0);
    bool large = f.large && (entry & PTE_PS);
    if (entry & (f.reserved | (large ? f.reserved_large : 0)))
        return page_fault(v, gva, access, user, PF_P | PF_RSVD);
    out->in_ram = entry_in_ram(m, gpa);
    rights = entry;
    if (large) {
        offset_mask = f.wide ? MIB(2) - 1 : MIB(4) - 1;
    } else {
        if (!entry_set(m, gpa, f.wide, &entry, PTE_A))
            return WALK_AGAIN;
        out->pde = entry;
        offset_mask = PAGE_MASK;
        gpa = (entry & PTE_FRAME) + (f.wide ? (gva >> 12 & 511) * 8 : (gva >> 12 & 1023) * 4);
        entry = entry_read(m, gpa, f.wide);
        if (!(entry & PTE_P))
            return page_fault(v, gva, access, user, 0);
        if (entry & f.reserved)
            return page_fault(v, gva, access, user, PF_P | PF_RSVD);
        out->in_ram &= entry_in_ram(m, gpa);
        rights &= entry | PTE_NX;
        rights |= entry & PTE_NX;
    }
    if ((user && !(rights & PTE_U)) ||
        ((access & ACCESS_WRITE) && !(rights & PTE_W) && (user || (v->cr0 & CR0_WP))) ||
        ((access & ACCESS_EXEC) && (rights & PTE_NX)))
        return page_fault(v, gva, access, user, PF_P);
    if (!entry_set(m, gpa, f.wide, &entry, access & ACCESS_WRITE ? PTE_A | PTE_D : PTE_A))
        return WALK_AGAIN;
    if (large)
        out->pde = entry;
    out->gva = gva;
    out->gpa = (entry & PTE_FRAME & ~offset_mask) | (gva & offset_mask);
    out->page_size = (uint32_t)offset_mask + 1;
    out->user = rights & PTE_U;
    out->write = rights & PTE_W;
    out->no_execute = rights & PTE_NX;
    out->global = entry & PTE_G;
    out->dirty = entry & PTE_D;
    out->entry_gpa = (uint32_t)gpa;
    out->entry = entry;
    return 0;
}

int walk(struct vcpu *v, uint32_t gva, unsigned access, bool user, struct translation *out)
{
    int ret;

    if (!(v->cr0 & CR0_PG)) {
        uint32_t entry = (gva & ~(uint32_t)(MIB(4) - 1)) | PTE_P | PTE_W | PTE_U | PTE_A | PTE_D;
        *out = (struct translation){
            .gva = gva,
            .gpa = gva,
            .page_size = MIB(4),
            .user = true,
            .write = true,
            .dirty = true,
            .in_ram = true,
            .entry = entry | PTE_PS,
            .pde = entry | PTE_PS,
        };
        return 0;
    }
    do {
        ret = walk_once(v, gva, access, user, out);
    } while (ret == WALK_AGAIN);
    return ret;
}
