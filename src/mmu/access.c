/*
 * Guest memory for C: the functions of struct vcpu_mem. Everything is a walk and an access through
 * the view of RAM; a lookaside of recent walks, one for each kind of access and privilege, keeps
 * descriptors and stacks cheap. It is a TLB like any other: a change of its generation flushes it,
 * at each flush that the guest orders. It remembers frames, not pointers, and what the frame is
 * (code, ROM, I/O) is looked up at each access.
 *
 * Multi-page accesses check all pages before the first byte moves.
 */
#include <string.h>

#include "mmu/internal.h"

enum kind { KIND_READ, KIND_WRITE, KIND_FETCH, KIND_USER = 3 };

static const unsigned kind_access[] = {ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC};

/* Looks up the frame of `gva` for one kind of access, walking if need be. */
static int translate(struct vcpu *v, uint32_t gva, enum kind kind, bool user, uint64_t *frame)
{
    struct mmu *m = v->mmu;
    uint32_t page = gva >> PAGE_SHIFT;
    uint64_t key = m->generation << 20 | page;
    struct lookaside_entry *e = &m->lookaside[(user ? KIND_USER : 0) + kind][page % LOOKASIDE_SIZE];
    struct translation t;

    if (LIKELY(e->key == key)) {
        *frame = e->frame;
        return 0;
    }
    if (walk(v, gva, kind_access[kind], user, &t) == FAULT)
        return FAULT;
    *frame = t.gpa >> PAGE_SHIFT;
    e->key = key;
    e->frame = *frame;
    return 0;
}

static void copy(void *to, const void *from, unsigned size)
{
    switch (size) {
    case 1:
        *(uint8_t *)to = *(const uint8_t *)from;
        break;
    case 2:
        __builtin_memcpy(to, from, 2);
        break;
    case 4:
        __builtin_memcpy(to, from, 4);
        break;
    case 8:
        __builtin_memcpy(to, from, 8);
        break;
    default:
        memcpy(to, from, size);
    }
}

static unsigned page_part(uint32_t gva, unsigned size)
{
    return min_u32(size, PAGE_SIZE - (gva & PAGE_MASK));
}

/* Checks pages [gva, gva+size) for an access; *frame is the first one's. */
static int translate_all(struct vcpu *v, uint32_t gva, unsigned size, enum kind kind, bool user,
                         uint64_t *frame)
{
    uint64_t other;

    if (translate(v, gva, kind, user, frame) == FAULT)
        return FAULT;
    for (unsigned done = page_part(gva, size); done < size; done += PAGE_SIZE) {
        if (translate(v, (gva + done) & ~PAGE_MASK, kind, user, &other) == FAULT)
            return FAULT;
    }
    return 0;
}

static void read_part(struct mmu *m, uint64_t frame, uint32_t offset, void *to, unsigned size)
{
    uint64_t gpa = frame << PAGE_SHIFT | offset;

    if (LIKELY(frame_flags(m, frame) & PAGE_RAM))
        copy(to, m->ram + gpa, size);
    else
        ram_io_read(m, gpa, to, size);
}

static void write_part(struct mmu *m, uint64_t frame, uint32_t offset, const void *from,
                       unsigned size)
{
    uint64_t gpa = frame << PAGE_SHIFT | offset;
    uint8_t flags = frame_flags(m, frame);

    if (UNLIKELY(flags != PAGE_RAM)) {
        if (!(flags & PAGE_RAM))
            ram_io_write(m, gpa, from, size);
        if (!(flags & PAGE_RAM) || (flags & PAGE_ROM))
            return;
        ram_code_written(m, frame, offset, size);
    }
    copy(m->ram + gpa, from, size);
}

static int access_read(struct vcpu *v, uint32_t gva, void *to, unsigned size, bool user)
{
    uint8_t *p = to;
    uint64_t frame;

    if (translate_all(v, gva, size, KIND_READ, user, &frame) == FAULT)
        return FAULT;
    for (;;) {
        unsigned part = page_part(gva, size);
        read_part(v->mmu, frame, gva & PAGE_MASK, p, part);
        size -= part;
        if (LIKELY(!size))
            return 0;
        p += part;
        gva += part;
        if (translate(v, gva, KIND_READ, user, &frame) == FAULT)
            return FAULT;
    }
}

static int access_write(struct vcpu *v, uint32_t gva, const void *from, unsigned size, bool user)
{
    const uint8_t *p = from;
    uint64_t frame;

    if (translate_all(v, gva, size, KIND_WRITE, user, &frame) == FAULT)
        return FAULT;
    for (;;) {
        unsigned part = page_part(gva, size);
        write_part(v->mmu, frame, gva & PAGE_MASK, p, part);
        size -= part;
        if (LIKELY(!size))
            return 0;
        p += part;
        gva += part;
        if (translate(v, gva, KIND_WRITE, user, &frame) == FAULT)
            return FAULT;
    }
}

static int access_probe_write(struct vcpu *v, uint32_t gva, unsigned size, bool user)
{
    uint64_t frame;
    return translate_all(v, gva, size, KIND_WRITE, user, &frame);
}

static int access_fetch(struct vcpu *v, uint32_t gva, void *to, unsigned size, bool user)
{
    uint8_t *p = to;
    unsigned done = 0;
    uint64_t frame;

    while (done < size) {
        unsigned part = page_part(gva + done, size - done);
        if (translate(v, gva + done, KIND_FETCH, user, &frame) == FAULT)
            return done ? (int)done : FAULT;
        read_part(v->mmu, frame, (gva + done) & PAGE_MASK, p + done, part);
        done += part;
    }
    return (int)done;
}

static int cmpxchg_split(struct vcpu *v, uint32_t gva, uint32_t *old, uint32_t value, bool user)
{
    uint32_t found;

    if (access_probe_write(v, gva, 4, user) == FAULT ||
        access_read(v, gva, &found, 4, user) == FAULT)
        return FAULT;
    if (found != *old)
        value = found;
    *old = found;
    return access_write(v, gva, &value, 4, user);
}

static int access_cmpxchg32(struct vcpu *v, uint32_t gva, uint32_t *old, uint32_t value, bool user)
{
    struct mmu *m = v->mmu;
    uint32_t offset = gva & PAGE_MASK, found;
    uint64_t frame;

    if (translate(v, gva, KIND_WRITE, user, &frame) == FAULT)
        return FAULT;
    uint8_t flags = frame_flags(m, frame);
    if (offset > PAGE_SIZE - 4) /* not aligned, in two pages: not atomic */
        return cmpxchg_split(v, gva, old, value, user);
    if ((flags & PAGE_RAM) && !(flags & PAGE_ROM)) {
        if (flags & PAGE_CODE)
            ram_code_written(m, frame, offset, 4);
        __atomic_compare_exchange_n((uint32_t *)(m->ram + (frame << PAGE_SHIFT | offset)), old,
                                    value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        return 0;
    }
    /* A locked access always writes: what was found, where it is not what was expected. */
    read_part(m, frame, offset, &found, 4);
    if (found != *old)
        value = found;
    write_part(m, frame, offset, &value, 4);
    *old = found;
    return 0;
}

static void access_paging_changed(struct vcpu *v, uint32_t old_cr0, uint32_t old_cr3,
                                  uint32_t old_cr4)
{
    (void)old_cr0;
    (void)old_cr3;
    (void)old_cr4;
    v->mmu->generation++;
    window_paging_changed(v);
}

static void access_invlpg(struct vcpu *v, uint32_t gva)
{
    v->mmu->generation++;
    window_invlpg(v, gva);
}

/* SDM 3A 4.4.1: bits 2:1, 8:5 and those above the physical address are reserved in a present PDPTE.
 */
static int access_load_pdptes(struct vcpu *v, uint32_t cr3)
{
    uint64_t pdpte[4], gpa = cr3 & ~0x1Fu;

    read_part(v->mmu, gpa >> PAGE_SHIFT, gpa & PAGE_MASK, pdpte, sizeof(pdpte));
    for (unsigned i = 0; i < 4; i++) {
        if ((pdpte[i] & PTE_P) && (pdpte[i] & ~(PTE_FRAME | PTE_AVL | PTE_P | PTE_PWT | PTE_PCD)))
            return vcpu_raise_error(v, VEC_GP, 0);
    }
    memcpy(v->pdpte, pdpte, sizeof(pdpte));
    return 0;
}

const struct vcpu_mem access_mem = {
    .read = access_read,
    .write = access_write,
    .probe_write = access_probe_write,
    .fetch = access_fetch,
    .cmpxchg32 = access_cmpxchg32,
    .paging_changed = access_paging_changed,
    .invlpg = access_invlpg,
    .load_pdptes = access_load_pdptes,
};
